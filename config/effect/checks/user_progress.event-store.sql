SELECT
  (data ->> 'userId')::uuid AS user_id,
  (array_agg(data ->> 'learningGoal' ORDER BY position DESC) FILTER (WHERE topic = 'user-events'))[1] AS learning_goal,
  count(*) FILTER (WHERE event_type = 'SessionStarted') AS sessions_started,
  count(*) FILTER (WHERE event_type = 'SessionCompleted') AS sessions_completed,
  count(*) FILTER (WHERE event_type = 'CorrectnessJudged') AS answers,
  count(*) FILTER (WHERE event_type = 'CorrectnessJudged' AND (data ->> 'correct')::boolean) AS correct,
  count(DISTINCT data ->> 'itemId') FILTER (WHERE event_type = 'CorrectnessJudged') AS items_studied,
  (array_agg((data ->> 'sessionId')::uuid ORDER BY position DESC) FILTER (WHERE event_type = 'SessionStarted'))[1]
    AS last_session_id,
  max(occurred_at) FILTER (WHERE event_type = 'CorrectnessJudged') AS last_answered_at,
  min(occurred_at) FILTER (WHERE event_type = 'UserRegistered') AS registered_at
FROM events
WHERE event_type IN ('UserRegistered', 'ProfileUpdated', 'SessionStarted', 'CorrectnessJudged', 'SessionCompleted')
GROUP BY 1
ORDER BY 1
