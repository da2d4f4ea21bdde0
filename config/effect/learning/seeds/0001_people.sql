-- The people of the seeds: who they are and how they study. Services share ids and nothing else, so every database derives
-- the same people by the same formulas: this file is the same in all of them, and a change here must be made in each.
--
-- Everything is a function of xtask.scale: ids and choices come from names by md5, times from a fixed Monday morning.
SET LOCAL TimeZone = 'UTC';

-- A throw of a die that always falls the same way for the same name: 0 to sides - 1. It lives until the connection ends.
CREATE OR REPLACE FUNCTION pg_temp.dice(name text, sides integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || substr(md5(name), 1, 7))::bit(28)::integer % sides;

-- Items 491 to 500 of the vocabulary are drafts, which nobody studies yet.
CREATE TEMP TABLE world_levels ON COMMIT DROP AS
SELECT * FROM (VALUES
  (1, 'A1', 1, 80), (2, 'A2', 81, 100), (3, 'B1', 181, 120), (4, 'B2', 301, 100), (5, 'C1', 401, 70), (6, 'C2', 471, 20)
) AS level (rank, cefr_level, first_item, items);

-- The first day is Monday, 5 January 2026; people register from 09:00 to 12:00 and study from 12:00 to 22:00 of days 0 to 41.
-- Hours, not days, are added: a day is not always 24 hours in the time zone of a connection.
CREATE TEMP TABLE world_people ON COMMIT DROP AS
SELECT
  n,
  md5('effect/user/' || n)::uuid AS user_id,
  chosen.registered_day,
  timestamptz '2026-01-05 09:00+00'
    + make_interval(hours => 24 * chosen.registered_day, secs => pg_temp.dice('registered at/' || n, 10800)) AS registered_at,
  -- Few are beginners, few are masters.
  (ARRAY[1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6])[1 + pg_temp.dice('level/' || n, 15)] AS level_rank,
  (ARRAY['daily_life', 'travel', 'business', 'exam', 'study_abroad'])[1 + pg_temp.dice('goal/' || n, 5)] AS first_goal,
  -- Every third person changes the goal after some days.
  CASE WHEN n % 3 = 0 THEN
    (ARRAY['business', 'exam', 'study_abroad', 'daily_life', 'travel'])[1 + pg_temp.dice('goal/' || n, 5)]
  END AS second_goal,
  timestamptz '2026-01-05 09:00+00'
    + make_interval(hours => 24 * (chosen.registered_day + 1 + pg_temp.dice('goal changed/' || n, 20))) AS goal_changed_at,
  -- One studies on every third day, another on every sixth.
  3 + pg_temp.dice('rhythm/' || n, 4) AS rhythm,
  -- One in twenty registers and never studies.
  CASE WHEN pg_temp.dice('idle/' || n, 20) = 0 THEN 0 ELSE 3 + pg_temp.dice('items/' || n, 6) END AS items
FROM generate_series(1, 100 * current_setting('xtask.scale')::integer) AS n
CROSS JOIN LATERAL (SELECT pg_temp.dice('registered/' || n, 21) AS registered_day) AS chosen;
