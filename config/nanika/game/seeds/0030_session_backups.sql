-- Three of five players were signed in when the copy was made.
INSERT INTO session_backups (sid, user_id, data, saved_at, expires_at)
SELECT
  md5('nanika/session/' || n),
  md5('nanika/user/' || n)::uuid,
  jsonb_build_object(
    'cookie', jsonb_build_object('originalMaxAge', 604800000, 'httpOnly', true, 'path', '/'),
    'userId', md5('nanika/user/' || n)::uuid,
    'room', (ARRAY['lobby', 'beginners', 'ranked'])[1 + pg_temp.dice('in room/' || n, 3)]
  ),
  timestamptz '2026-02-15 12:00+00',
  timestamptz '2026-02-15 12:00+00' + make_interval(hours => 24 * (1 + pg_temp.dice('expires/' || n, 7)))
FROM generate_series(1, 100 * current_setting('xtask.scale')::integer) AS n
WHERE n % 5 < 3
ORDER BY n;
