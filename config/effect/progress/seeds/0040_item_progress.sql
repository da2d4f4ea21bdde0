INSERT INTO item_progress (
  user_id, item_id, answers, correct, last_quality, repetitions, interval_days, next_review_on, last_answered_at
)
SELECT DISTINCT ON (n, item_id)
  user_id,
  item_id,
  sequence,
  count(*) FILTER (WHERE correct) OVER (PARTITION BY n, item_id),
  quality,
  repetitions,
  interval_days,
  next_review_on,
  answered_at
FROM world_answers
ORDER BY n, item_id, sequence DESC;
