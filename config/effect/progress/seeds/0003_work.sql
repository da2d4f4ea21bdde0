-- The texts people had generated, and the sagas that ran. The same file in ai, saga, progress and event-store: the ids of one
-- are references of another, so a change here must be made in each.

-- A part of the vocabulary, since only its own database holds the whole.
CREATE TEMP TABLE world_words ON COMMIT DROP AS
SELECT * FROM (VALUES
  (1, 7, 'book', 'noun', '本'), (2, 48, 'light', 'noun', '明かり、光'), (3, 85, 'bank', 'noun', '銀行'),
  (4, 89, 'borrow', 'verb', '借りる'), (5, 155, 'lend', 'verb', '貸す'), (6, 184, 'accurate', 'adjective', '正確な'),
  (7, 188, 'advice', 'noun', '助言'), (8, 199, 'bank', 'noun', '土手、川岸'), (9, 321, 'assume', 'verb', '仮定する、思い込む'),
  (10, 358, 'current', 'noun', '流れ、海流'), (11, 371, 'discipline', 'noun', '規律'), (12, 385, 'evidence', 'noun', '証拠'),
  (13, 441, 'elaborate', 'verb', '詳しく述べる'), (14, 462, 'meticulous', 'adjective', '几帳面な'),
  (15, 499, 'ubiquitous', 'adjective', '至る所にある')
) AS word (k, item, spelling, part_of_speech, gloss_ja);

-- Forty tasks for every hundred people. Of twenty, fourteen succeed, four fail, one runs and one waits.
CREATE TEMP TABLE world_tasks ON COMMIT DROP AS
SELECT
  t,
  md5('effect/task/' || t)::uuid AS task_id,
  md5('effect/saga/task/' || t)::uuid AS saga_id,
  md5('effect/correlation/task/' || t)::uuid AS correlation_id,
  person.user_id,
  md5('effect/item/' || word.item)::uuid AS item_id,
  word.spelling,
  word.part_of_speech,
  word.gloss_ja,
  (ARRAY['item_info', 'examples', 'mnemonic'])[1 + t % 3] AS kind,
  course.status,
  asked.requested_at,
  CASE WHEN course.status IN ('completed', 'failed') THEN
    asked.requested_at + make_interval(secs => 3 + pg_temp.dice('task took/' || t, 40))
  END AS finished_at
FROM generate_series(1, 40 * current_setting('xtask.scale')::integer) AS t
JOIN world_people AS person ON person.n = (t - 1) / 40 * 100 + 1 + pg_temp.dice('task by/' || t, 100)
JOIN world_words AS word ON word.k = 1 + pg_temp.dice('task about/' || t, 15)
CROSS JOIN LATERAL (
  SELECT CASE WHEN t % 20 < 14 THEN 'completed' WHEN t % 20 < 18 THEN 'failed' WHEN t % 20 = 18 THEN 'running' ELSE 'pending' END
    AS status
) AS course
CROSS JOIN LATERAL (
  -- What is unfinished was asked for at the very end.
  SELECT CASE WHEN course.status IN ('completed', 'failed')
    THEN person.registered_at
      + make_interval(hours => 1, secs => pg_temp.dice('task at/' || t, (41 - person.registered_day) * 86400))
    ELSE timestamptz '2026-02-15 23:30+00' + make_interval(secs => pg_temp.dice('task at/' || t, 1200))
  END AS requested_at
) AS asked;

-- Every task is led by a saga, which is compensated when the task fails. Every fourth newcomer is led through the first steps
-- by one, too; one in forty of them fails at the last step.
CREATE TEMP TABLE world_sagas ON COMMIT DROP AS
SELECT
  saga_id,
  'generate_item_info' AS saga_type,
  correlation_id,
  CASE status WHEN 'completed' THEN 'completed' WHEN 'failed' THEN 'compensated' ELSE 'running' END AS state,
  CASE WHEN status = 'completed' THEN 3 ELSE 2 END AS last_step,
  requested_at - interval '1 second' AS started_at,
  finished_at + interval '2 seconds' AS finished_at,
  user_id,
  item_id,
  task_id
FROM world_tasks
UNION ALL
SELECT
  md5('effect/saga/user/' || n)::uuid,
  'onboard_user',
  md5('effect/correlation/user/' || n)::uuid,
  CASE WHEN n % 40 = 0 THEN 'compensated' ELSE 'completed' END,
  3,
  registered_at + interval '1 second',
  registered_at + interval '9 seconds',
  user_id,
  NULL,
  NULL
FROM world_people
WHERE n % 4 = 0;
