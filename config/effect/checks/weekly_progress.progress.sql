SELECT user_id, week, active_days, sessions_completed, answers, correct, new_items, response_ms
FROM weekly_progress
ORDER BY 1, 2
