SELECT
  (data ->> 'userId')::uuid AS user_id,
  (date_trunc('week', occurred_at AT TIME ZONE 'UTC'))::date AS week,
  count(DISTINCT (occurred_at AT TIME ZONE 'UTC')::date) AS active_days,
  count(*) FILTER (WHERE event_type = 'SessionCompleted') AS sessions_completed,
  count(*) FILTER (WHERE event_type = 'CorrectnessJudged') AS answers,
  count(*) FILTER (WHERE event_type = 'CorrectnessJudged' AND (data ->> 'correct')::boolean) AS correct,
  count(*) FILTER (WHERE event_type = 'ReviewScheduled' AND (data ->> 'sequence')::integer = 1) AS new_items,
  coalesce(sum((data ->> 'responseMs')::bigint) FILTER (WHERE event_type = 'CorrectnessJudged'), 0) AS response_ms
FROM events
WHERE event_type IN ('SessionStarted', 'CorrectnessJudged', 'SessionCompleted', 'ReviewScheduled')
GROUP BY 1, 2
ORDER BY 1, 2
