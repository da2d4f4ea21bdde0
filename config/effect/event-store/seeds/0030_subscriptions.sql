-- Everyone has acknowledged the last event of the topic, but for the orchestrator, which is behind with ai-events: it stopped
-- at the last event about a task that ended.
INSERT INTO subscriptions (name, topic, application, last_position, paused, updated_at)
SELECT subscription.name, subscription.topic, subscription.application, last.position, false, event.recorded_at
FROM (VALUES
  ('progress-vocabulary-events', 'vocabulary-events', 'progress-service'),
  ('progress-learning-events', 'learning-events', 'progress-service'),
  ('progress-algorithm-events', 'algorithm-events', 'progress-service'),
  ('progress-user-events', 'user-events', 'progress-service'),
  ('algorithm-learning-events', 'learning-events', 'algorithm-service'),
  ('vocabulary-ai-events', 'ai-events', 'vocabulary-service'),
  ('saga-vocabulary-events', 'vocabulary-events', 'saga-orchestrator'),
  ('saga-learning-events', 'learning-events', 'saga-orchestrator'),
  ('saga-algorithm-events', 'algorithm-events', 'saga-orchestrator'),
  ('saga-ai-events', 'ai-events', 'saga-orchestrator'),
  ('saga-user-events', 'user-events', 'saga-orchestrator'),
  ('saga-saga-events', 'saga-events', 'saga-orchestrator')
) AS subscription (name, topic, application)
CROSS JOIN LATERAL (
  SELECT max(position) AS position
  FROM events
  WHERE events.topic = subscription.topic
    AND (subscription.name <> 'saga-ai-events' OR events.event_type <> 'TaskRequested')
) AS last
JOIN events AS event ON event.position = last.position;
