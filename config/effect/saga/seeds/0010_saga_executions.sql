INSERT INTO saga_executions (
  id, saga_type, state, current_step, step_count, correlation_id, context, started_at, finished_at, deadline_at, updated_at
)
SELECT
  saga_id,
  saga_type,
  state::saga_state,
  last_step,
  3,
  correlation_id,
  jsonb_strip_nulls(jsonb_build_object('userId', user_id, 'itemId', item_id, 'taskId', task_id)),
  started_at,
  finished_at,
  started_at + interval '5 minutes',
  coalesce(finished_at, started_at)
FROM world_sagas
ORDER BY started_at, saga_id;
