-- What was done last is undone first.
INSERT INTO compensations (saga_id, step_number, action, reason, result, executed_at)
SELECT
  step.saga_id,
  step.number,
  CASE step.name
    WHEN 'reserve_quota' THEN 'release_quota'
    WHEN 'create_profile' THEN 'deactivate_profile'
    ELSE 'delete_review_plan'
  END,
  failed.failure,
  jsonb_build_object('undone', step.name),
  saga.finished_at - make_interval(secs => 0.1 * step.number)
FROM saga_steps AS step
JOIN saga_steps AS failed ON failed.saga_id = step.saga_id AND failed.state = 'failed'
JOIN saga_executions AS saga ON saga.id = step.saga_id
WHERE step.state = 'compensated'
ORDER BY saga.started_at, saga.id, step.number DESC;
