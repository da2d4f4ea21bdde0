INSERT INTO review_histories (
  record_id, sequence, session_id, quality,
  repetitions_before, repetitions_after, easiness_before, easiness_after, interval_before, interval_after, reviewed_at
)
SELECT
  record_id, sequence, session_id, quality,
  repetitions_before, repetitions, easiness_before, easiness, interval_before, interval_days, answered_at
FROM world_answers
ORDER BY answered_at, record_id;
