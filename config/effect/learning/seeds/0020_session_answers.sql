INSERT INTO session_answers (session_id, question, item_id, correct, response_ms, answered_at)
SELECT session_id, question, item_id, correct, response_ms, answered_at
FROM world_answers
ORDER BY answered_at, session_id;
