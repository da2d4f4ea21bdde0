-- The projections as a replay of the event store makes them, computed from what people did instead of from the events.
INSERT INTO user_progress (
  user_id, learning_goal, sessions_started, sessions_completed, answers, correct, items_studied,
  last_session_id, last_answered_at, registered_at
)
SELECT
  person.user_id,
  coalesce(person.second_goal, person.first_goal),
  coalesce(session.started, 0),
  coalesce(session.completed, 0),
  coalesce(answer.answers, 0),
  coalesce(answer.correct, 0),
  coalesce(answer.items, 0),
  session.last_session_id,
  answer.last_answered_at,
  person.registered_at
FROM world_people AS person
LEFT JOIN (
  SELECT
    n,
    count(*) AS started,
    count(*) FILTER (WHERE completed) AS completed,
    (array_agg(session_id ORDER BY started_at DESC))[1] AS last_session_id
  FROM world_sessions
  GROUP BY n
) AS session USING (n)
LEFT JOIN (
  SELECT
    n,
    count(*) AS answers,
    count(*) FILTER (WHERE correct) AS correct,
    count(*) FILTER (WHERE sequence = 1) AS items,
    max(answered_at) AS last_answered_at
  FROM world_answers
  GROUP BY n
) AS answer USING (n)
ORDER BY n;
