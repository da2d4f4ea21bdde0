-- Six messages for each player, in five rooms. Ids are given in the order of time, so that they do not depend on what a failed
-- attempt drew from the sequence.
INSERT INTO chat_messages (id, room, user_id, body, sent_at, hidden_at, hidden_because)
OVERRIDING SYSTEM VALUE
SELECT
  row_number() OVER (ORDER BY said.sent_at, said.m),
  (ARRAY['lobby', 'lobby', 'beginners', 'ranked', 'trading', 'off-topic'])[1 + pg_temp.dice('room/' || said.m, 6)],
  -- A player who left is no longer named.
  CASE WHEN said.m % 50 <> 0 THEN md5('nanika/user/' || said.n)::uuid END,
  (ARRAY[
    'Good game, everyone!', 'Anyone up for a match?', 'こんにちは！', 'How do I change my avatar?', 'よろしくお願いします',
    'That was close.', 'Rematch?', 'I have to go, see you tomorrow.', 'ナイス！', 'The new map is great.',
    'Can somebody explain the rules?', 'おつかれさまでした', 'Finally a win!', 'Brb', 'Welcome!'
  ])[1 + pg_temp.dice('body/' || said.m, 15)],
  said.sent_at,
  CASE WHEN said.m % 97 = 0 THEN said.sent_at + interval '5 minutes' END,
  CASE WHEN said.m % 97 = 0 THEN 'reported as spam' END
FROM (
  SELECT
    m,
    (m - 1) / 6 + 1 AS n,
    timestamptz '2026-02-05 09:00+00' + make_interval(secs => pg_temp.dice('said/' || m, 10 * 86400)) AS sent_at
  FROM generate_series(1, 600 * current_setting('xtask.scale')::integer) AS m
) AS said
ORDER BY said.sent_at, said.m;

SELECT setval(pg_get_serial_sequence('chat_messages', 'id'), (SELECT max(id) FROM chat_messages));
