INSERT INTO daily_progress (
  user_id, day, sessions_started, sessions_completed, answers, correct, new_items, response_ms
)
SELECT
  answer.user_id,
  answer.day,
  1,
  CASE WHEN session.completed THEN 1 ELSE 0 END,
  answer.answers,
  answer.correct,
  answer.new_items,
  answer.response_ms
FROM (
  SELECT
    n,
    user_id,
    day,
    session_id,
    count(*) AS answers,
    count(*) FILTER (WHERE correct) AS correct,
    count(*) FILTER (WHERE sequence = 1) AS new_items,
    sum(response_ms) AS response_ms
  FROM world_answers
  GROUP BY n, user_id, day, session_id
) AS answer
-- Nobody has two sessions on one day, so a session is a day.
JOIN world_sessions AS session USING (session_id)
ORDER BY answer.n, answer.day;
