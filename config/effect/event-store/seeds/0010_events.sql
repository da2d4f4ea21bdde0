-- Every event of the history, collected first, so that positions can follow the time over all streams. Within a stream the
-- times rise with the versions.
CREATE TEMP TABLE world_events ON COMMIT DROP AS
-- vocabulary: the items were published before the first user came; the levels are known from the bands of the numbers
SELECT
  md5('effect/item/' || item)::uuid AS stream_id, 'VocabularyItem' AS aggregate_type, 1 AS version,
  'vocabulary-events' AS topic, 'VocabularyItemPublished' AS event_type,
  jsonb_build_object('itemId', md5('effect/item/' || item)::uuid, 'number', item, 'cefrLevel', level.cefr_level) AS data,
  NULL::uuid AS correlation_id, NULL::uuid AS causation_id,
  timestamptz '2025-12-01 09:00+00' + make_interval(mins => 10 * item) AS occurred_at
FROM world_levels AS level
CROSS JOIN LATERAL generate_series(level.first_item, level.first_item + level.items - 1) AS item
UNION ALL
SELECT
  md5('effect/item/' || item)::uuid, 'VocabularyItem', 2, 'vocabulary-events', 'VocabularyItemUpdated',
  jsonb_build_object('itemId', md5('effect/item/' || item)::uuid, 'number', item, 'changed', jsonb_build_array('examples')),
  NULL, NULL, timestamptz '2025-12-15 09:00+00' + make_interval(mins => item)
FROM generate_series(10, 490, 10) AS item

-- user
UNION ALL
SELECT
  user_id, 'User', 1, 'user-events', 'UserRegistered',
  jsonb_build_object('userId', user_id, 'learningGoal', first_goal),
  CASE WHEN n % 4 = 0 THEN md5('effect/correlation/user/' || n)::uuid END, NULL, registered_at
FROM world_people
UNION ALL
SELECT
  user_id, 'User', 2, 'user-events', 'ProfileUpdated',
  jsonb_build_object('userId', user_id, 'learningGoal', second_goal), NULL, NULL, goal_changed_at
FROM world_people
WHERE second_goal IS NOT NULL

-- learning: a session starts, its answers are judged, it ends
UNION ALL
SELECT
  session.session_id, 'LearningSession', 1, 'learning-events', 'SessionStarted',
  jsonb_build_object(
    'sessionId', session.session_id, 'userId', person.user_id, 'kind', session.kind, 'itemCount', session.items
  ),
  NULL,
  md5('effect/event/' || md5('effect/plan/' || session.n)::uuid || '/'
    || row_number() OVER (PARTITION BY session.n ORDER BY session.day))::uuid,
  session.started_at
FROM world_sessions AS session
JOIN world_people AS person USING (n)
UNION ALL
SELECT
  session_id, 'LearningSession', 1 + question, 'learning-events', 'CorrectnessJudged',
  jsonb_build_object(
    'sessionId', session_id, 'userId', user_id, 'itemId', item_id, 'correct', correct, 'responseMs', response_ms
  ),
  NULL, NULL, answered_at
FROM world_answers
UNION ALL
SELECT
  session.session_id, 'LearningSession', 2 + session.items, 'learning-events', 'SessionCompleted',
  jsonb_build_object(
    'sessionId', session.session_id, 'userId', person.user_id, 'itemCount', session.items, 'judgedCorrect', session.correct
  ),
  NULL, NULL, session.started_at + make_interval(secs => 30 * session.items + 20)
FROM world_sessions AS session
JOIN world_people AS person USING (n)
WHERE session.completed

-- algorithm: items are selected for a session, and each judged answer leads to the next review
UNION ALL
SELECT
  md5('effect/plan/' || session.n)::uuid, 'ReviewPlan', row_number() OVER (PARTITION BY session.n ORDER BY session.day),
  'algorithm-events', 'ItemsSelected',
  jsonb_build_object('userId', person.user_id, 'sessionId', session.session_id, 'itemIds', selected.item_ids),
  NULL, NULL, session.started_at - interval '2 seconds'
FROM world_sessions AS session
JOIN world_people AS person USING (n)
JOIN (
  SELECT session_id, jsonb_agg(item_id ORDER BY question) AS item_ids FROM world_answers GROUP BY session_id
) AS selected USING (session_id)
UNION ALL
SELECT
  record_id, 'ReviewRecord', sequence, 'algorithm-events', 'ReviewScheduled',
  jsonb_build_object(
    'recordId', record_id, 'userId', user_id, 'itemId', item_id, 'sessionId', session_id, 'sequence', sequence,
    'quality', quality, 'repetitions', repetitions, 'easiness', easiness, 'intervalDays', interval_days,
    'nextReviewOn', next_review_on
  ),
  NULL,
  md5('effect/event/' || session_id || '/' || 1 + question)::uuid,
  answered_at + interval '1 second'
FROM world_answers

-- ai
UNION ALL
SELECT
  task_id, 'GenerationTask', 1, 'ai-events', 'TaskRequested',
  jsonb_build_object('taskId', task_id, 'userId', user_id, 'itemId', item_id, 'kind', kind),
  correlation_id, md5('effect/event/' || saga_id || '/1')::uuid, requested_at
FROM world_tasks
UNION ALL
SELECT
  task_id, 'GenerationTask', 2, 'ai-events',
  CASE status WHEN 'completed' THEN 'ItemInfoGenerated' ELSE 'TaskFailed' END,
  jsonb_build_object('taskId', task_id, 'itemId', item_id, 'kind', kind),
  correlation_id, md5('effect/event/' || task_id || '/1')::uuid, finished_at
FROM world_tasks
WHERE finished_at IS NOT NULL

-- saga
UNION ALL
SELECT
  saga_id, 'Saga', 1, 'saga-events', 'SagaStarted',
  jsonb_build_object('sagaId', saga_id, 'sagaType', saga_type), correlation_id, NULL, started_at
FROM world_sagas
UNION ALL
SELECT
  saga_id, 'Saga', 2, 'saga-events',
  CASE state WHEN 'completed' THEN 'SagaCompleted' ELSE 'SagaCompensated' END,
  jsonb_build_object('sagaId', saga_id, 'sagaType', saga_type), correlation_id,
  md5('effect/event/' || saga_id || '/1')::uuid, finished_at
FROM world_sagas
WHERE finished_at IS NOT NULL;

-- Streams begin empty; appending their events moves their heads.
INSERT INTO event_streams (stream_id, stream_type, aggregate_type, version, created_at, updated_at)
SELECT
  stream_id,
  CASE aggregate_type WHEN 'Saga' THEN 'process' ELSE 'aggregate' END,
  aggregate_type,
  0,
  occurred_at,
  occurred_at
FROM world_events
WHERE version = 1
ORDER BY occurred_at, stream_id;

-- Positions are given, not drawn: a sequence keeps what a failed attempt took, and checkpoints elsewhere name positions.
INSERT INTO events (
  position, event_id, stream_id, version, topic, event_type, data, metadata, correlation_id, causation_id,
  occurred_at, recorded_at
)
OVERRIDING SYSTEM VALUE
SELECT
  row_number() OVER (ORDER BY occurred_at, stream_id, version),
  md5('effect/event/' || stream_id || '/' || version)::uuid,
  stream_id,
  version,
  topic,
  event_type,
  data,
  jsonb_build_object(
    'source', CASE topic WHEN 'saga-events' THEN 'saga-orchestrator' ELSE replace(topic, '-events', '-service') END,
    'schemaVersion', 1
  ),
  correlation_id,
  causation_id,
  occurred_at,
  occurred_at + interval '40 milliseconds'
FROM world_events
ORDER BY occurred_at, stream_id, version;

SELECT setval(pg_get_serial_sequence('events', 'position'), (SELECT max(position) FROM events));
