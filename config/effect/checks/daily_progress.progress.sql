SELECT user_id, day, sessions_started, sessions_completed, answers, correct, new_items, response_ms
FROM daily_progress
ORDER BY 1, 2
