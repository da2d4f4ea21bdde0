SELECT
  (data ->> 'userId')::uuid AS user_id,
  (data ->> 'itemId')::uuid AS item_id,
  count(*) FILTER (WHERE event_type = 'CorrectnessJudged') AS answers,
  count(*) FILTER (WHERE event_type = 'CorrectnessJudged' AND (data ->> 'correct')::boolean) AS correct,
  (array_agg((data ->> 'quality')::integer ORDER BY position DESC) FILTER (WHERE event_type = 'ReviewScheduled'))[1]
    AS last_quality,
  (array_agg((data ->> 'repetitions')::integer ORDER BY position DESC) FILTER (WHERE event_type = 'ReviewScheduled'))[1]
    AS repetitions,
  (array_agg((data ->> 'intervalDays')::integer ORDER BY position DESC) FILTER (WHERE event_type = 'ReviewScheduled'))[1]
    AS interval_days,
  (array_agg((data ->> 'nextReviewOn')::date ORDER BY position DESC) FILTER (WHERE event_type = 'ReviewScheduled'))[1]
    AS next_review_on,
  max(occurred_at) FILTER (WHERE event_type = 'CorrectnessJudged') AS last_answered_at
FROM events
WHERE event_type IN ('CorrectnessJudged', 'ReviewScheduled')
GROUP BY 1, 2
ORDER BY 1, 2
