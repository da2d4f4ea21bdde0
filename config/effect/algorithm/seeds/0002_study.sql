-- What the people of 0001 study, until Sunday, 15 February 2026 (day 41). The same file in learning, algorithm, progress and
-- event-store: the sums of one are the details of another, so a change here must be made in each.

-- SM-2 as it was published: the interval follows the easiness before the review; the easiness changes with every review and
-- stays within 1.3 to 2.5; a quality below 3 starts over. Review 0 is the item being taken up, before any answer.
CREATE TEMP TABLE world_reviews ON COMMIT DROP AS
WITH RECURSIVE review AS (
  SELECT
    person.n,
    person.rhythm,
    level.first_item + (pg_temp.dice('first item/' || person.n, level.items) + 13 * (taken.k - 1)) % level.items AS item,
    0 AS sequence,
    0 AS day,
    -- Five items are taken up at a time, the others a week later.
    person.registered_day + 7 * ((taken.k - 1) / 5) AS due,
    NULL::integer AS quality,
    0 AS repetitions_before,
    2.50::numeric(3, 2) AS easiness_before,
    0 AS interval_before,
    0 AS repetitions,
    2.50::numeric(3, 2) AS easiness,
    0 AS interval_days
  FROM world_people AS person
  JOIN world_levels AS level ON level.rank = person.level_rank
  CROSS JOIN LATERAL generate_series(1, person.items) AS taken (k)
  UNION ALL
  SELECT
    review.n,
    review.rhythm,
    review.item,
    review.sequence + 1,
    today.day,
    today.day + after.interval_days,
    answer.quality,
    review.repetitions,
    review.easiness,
    review.interval_days,
    after.repetitions,
    after.easiness,
    after.interval_days
  FROM review
  -- A person studies on the days of the own rhythm: the first of them on which the item is due, or later.
  CROSS JOIN LATERAL (
    SELECT review.due + (review.rhythm - (review.due + review.n) % review.rhythm) % review.rhythm AS day
  ) AS today
  CROSS JOIN LATERAL (
    SELECT pg_temp.dice('quality/' || review.n || '/' || review.item || '/' || review.sequence + 1, 100) AS thrown
  ) AS throw
  CROSS JOIN LATERAL (
    SELECT CASE
      WHEN throw.thrown < 34 THEN 5
      WHEN throw.thrown < 68 THEN 4
      WHEN throw.thrown < 86 THEN 3
      WHEN throw.thrown < 93 THEN 2
      WHEN throw.thrown < 97 THEN 1
      ELSE 0
    END AS quality
  ) AS answer
  CROSS JOIN LATERAL (
    SELECT
      CASE WHEN answer.quality >= 3 THEN review.repetitions + 1 ELSE 0 END AS repetitions,
      least(2.5, greatest(
        1.3, review.easiness + (0.1 - (5 - answer.quality) * (0.08 + (5 - answer.quality) * 0.02))
      ))::numeric(3, 2) AS easiness,
      CASE
        WHEN answer.quality < 3 OR review.repetitions = 0 THEN 1
        WHEN review.repetitions = 1 THEN 6
        ELSE round(review.interval_days * review.easiness)::integer
      END AS interval_days
  ) AS after
  WHERE today.day <= 41
)
SELECT
  n, item, sequence, day, quality,
  repetitions_before, easiness_before, interval_before,
  repetitions, easiness, interval_days,
  date '2026-01-05' + due AS next_review_on
FROM review
WHERE sequence > 0;

-- What is due for a person on a day is one session.
CREATE TEMP TABLE world_sessions ON COMMIT DROP AS
SELECT
  sitting.n,
  sitting.day,
  md5('effect/session/' || sitting.n || '/' || sitting.number)::uuid AS session_id,
  sitting.kind,
  sitting.items,
  sitting.correct,
  timestamptz '2026-01-05 12:00+00'
    + make_interval(hours => 24 * sitting.day, secs => pg_temp.dice('session/' || sitting.n || '/' || sitting.day, 36000))
    AS started_at,
  -- Some sessions of the last day still run.
  NOT (sitting.day = 41 AND sitting.n % 3 = 0) AS completed
FROM (
  SELECT
    n,
    day,
    row_number() OVER (PARTITION BY n ORDER BY day) AS number,
    CASE WHEN max(sequence) = 1 THEN 'new' WHEN min(sequence) > 1 THEN 'review' ELSE 'mixed' END AS kind,
    count(*)::integer AS items,
    (count(*) FILTER (WHERE quality >= 3))::integer AS correct
  FROM world_reviews
  GROUP BY n, day
) AS sitting;

CREATE TEMP TABLE world_answers ON COMMIT DROP AS
SELECT
  person.user_id,
  md5('effect/item/' || review.item)::uuid AS item_id,
  md5('effect/record/' || review.n || '/' || review.item)::uuid AS record_id,
  session.session_id,
  review.n,
  date '2026-01-05' + review.day AS day,
  question.number AS question,
  -- Questions come every 30 seconds, so answers have an order.
  session.started_at
    + make_interval(secs => 30 * question.number + pg_temp.dice('answer/' || throw.name, 12)) AS answered_at,
  1200 + pg_temp.dice('response/' || throw.name, 9000) AS response_ms,
  review.quality >= 3 AS correct,
  review.sequence,
  review.quality,
  review.repetitions_before,
  review.easiness_before,
  review.interval_before,
  review.repetitions,
  review.easiness,
  review.interval_days,
  review.next_review_on
FROM (
  SELECT *, row_number() OVER (PARTITION BY n, day ORDER BY sequence, item)::integer AS number FROM world_reviews
) AS question
JOIN world_reviews AS review USING (n, item, sequence)
JOIN world_sessions AS session ON session.n = review.n AND session.day = review.day
JOIN world_people AS person ON person.n = review.n
CROSS JOIN LATERAL (SELECT review.n || '/' || review.item || '/' || review.sequence AS name) AS throw;
