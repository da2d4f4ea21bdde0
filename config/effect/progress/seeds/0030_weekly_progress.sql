INSERT INTO weekly_progress (user_id, week, active_days, sessions_completed, answers, correct, new_items, response_ms)
SELECT
  user_id,
  day - (extract(isodow FROM day)::integer - 1) AS week,
  count(*),
  sum(sessions_completed),
  sum(answers),
  sum(correct),
  sum(new_items),
  sum(response_ms)
FROM daily_progress
GROUP BY user_id, week
ORDER BY week, user_id;
