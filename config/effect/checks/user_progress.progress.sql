SELECT
  user_id, learning_goal, sessions_started, sessions_completed, answers, correct, items_studied,
  last_session_id, last_answered_at, registered_at
FROM user_progress
ORDER BY 1
