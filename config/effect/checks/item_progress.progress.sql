SELECT
  user_id, item_id, answers, correct, last_quality, repetitions, interval_days, next_review_on, last_answered_at
FROM item_progress
ORDER BY 1, 2
