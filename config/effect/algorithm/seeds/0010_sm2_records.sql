INSERT INTO sm2_records (
  id, user_id, item_id, repetitions, easiness, interval_days, review_count, lapses, last_reviewed_at, next_review_on, updated_at
)
SELECT DISTINCT ON (n, record_id)
  record_id,
  user_id,
  item_id,
  repetitions,
  easiness,
  interval_days,
  sequence,
  count(*) FILTER (WHERE NOT correct) OVER (PARTITION BY n, record_id),
  answered_at,
  next_review_on,
  answered_at
FROM world_answers
ORDER BY n, record_id, sequence DESC;
