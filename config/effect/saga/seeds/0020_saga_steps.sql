-- Before the last step all are completed, or compensated when the run was given up; the last one completed, failed or runs.
INSERT INTO saga_steps (saga_id, number, name, service, state, attempts, failure, started_at, finished_at)
SELECT
  saga.saga_id,
  step.number,
  step.name,
  step.service,
  course.state::saga_step_state,
  CASE course.state WHEN 'pending' THEN 0 WHEN 'failed' THEN 3 ELSE 1 END,
  CASE WHEN course.state = 'failed' THEN step.failure END,
  CASE WHEN course.state <> 'pending' THEN saga.started_at + make_interval(secs => 0.5 * step.number) END,
  CASE
    WHEN course.state IN ('pending', 'running') THEN NULL
    -- The last step ends just before the saga does.
    WHEN step.number = saga.last_step THEN saga.finished_at - interval '0.5 seconds'
    ELSE saga.started_at + make_interval(secs => 0.5 * step.number + 0.4)
  END
FROM world_sagas AS saga
JOIN (VALUES
  ('generate_item_info', 1, 'reserve_quota', 'user-service', 'no quota left'),
  ('generate_item_info', 2, 'generate_text', 'ai-service', 'the generation failed three times'),
  ('generate_item_info', 3, 'store_text', 'vocabulary-service', 'the item was changed meanwhile'),
  ('onboard_user', 1, 'create_profile', 'user-service', 'the address is taken'),
  ('onboard_user', 2, 'create_review_plan', 'algorithm-service', 'no items of this level'),
  ('onboard_user', 3, 'create_progress', 'progress-service', 'the projection did not answer')
) AS step (saga_type, number, name, service, failure) USING (saga_type)
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN step.number > saga.last_step THEN 'pending'
    WHEN step.number < saga.last_step THEN CASE saga.state WHEN 'compensated' THEN 'compensated' ELSE 'completed' END
    ELSE CASE saga.state WHEN 'completed' THEN 'completed' WHEN 'compensated' THEN 'failed' ELSE 'running' END
  END AS state
) AS course
ORDER BY saga.started_at, saga.saga_id, step.number;
