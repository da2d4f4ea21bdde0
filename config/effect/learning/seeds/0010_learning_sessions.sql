INSERT INTO learning_sessions (
  id, user_id, kind, item_count, judged_count, judged_correct, started_at, ended_at, client, updated_at
)
SELECT
  session.session_id,
  person.user_id,
  session.kind::session_kind,
  session.items,
  session.items,
  session.correct,
  session.started_at,
  finish.ended_at,
  CASE session.n % 3
    WHEN 0 THEN '{"app": "ios", "version": "1.4.2", "device": "phone"}'
    WHEN 1 THEN '{"app": "android", "version": "1.4.0", "device": "phone"}'
    ELSE '{"app": "web", "version": "2026.1", "device": "desktop"}'
  END::jsonb,
  coalesce(finish.ended_at, session.started_at)
FROM world_sessions AS session
JOIN world_people AS person ON person.n = session.n
CROSS JOIN LATERAL (
  SELECT CASE WHEN session.completed THEN session.started_at + make_interval(secs => 30 * session.items + 20) END AS ended_at
) AS finish
ORDER BY session.started_at, session.n;
