-- All projections have read the whole event store. Positions count from 1, so that of the last event is the number of all
-- events; it is a TaskRequested, late in the evening of the last day.
INSERT INTO projection_checkpoints (projection, last_position, last_occurred_at, updated_at)
SELECT
  projection,
  (
    -- vocabulary: 490 items published, 49 of them updated
    490 + 49
    -- user: registered, goal changed
    + (SELECT count(*) + count(second_goal) FROM world_people)
    -- learning and algorithm: items selected, session started and completed; answer judged, review scheduled
    + (SELECT 2 * count(*) + count(*) FILTER (WHERE completed) FROM world_sessions)
    + (SELECT 2 * count(*) FROM world_answers)
    -- ai and saga: requested and finished; started and finished
    + (SELECT count(*) + count(finished_at) FROM world_tasks)
    + (SELECT count(*) + count(finished_at) FROM world_sagas)
  ),
  last.occurred_at,
  last.occurred_at
FROM unnest(ARRAY['user_progress', 'daily_progress', 'weekly_progress', 'item_progress']) AS projection
CROSS JOIN (SELECT max(requested_at) AS occurred_at FROM world_tasks) AS last;
