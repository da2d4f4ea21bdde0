INSERT INTO generation_tasks (
  id, user_id, item_id, kind, status, prompt, result, failure, usage, requested_at, finished_at, updated_at
)
SELECT
  task_id,
  user_id,
  item_id,
  kind::task_kind,
  status::task_status,
  CASE kind
    WHEN 'item_info' THEN format('Explain the %s "%s" (%s) to a Japanese learner in two sentences.', part_of_speech, spelling, gloss_ja)
    WHEN 'examples' THEN format('Write three short sentences with the %s "%s" in the sense of %s.', part_of_speech, spelling, gloss_ja)
    ELSE format('Think of a picture that helps to remember the %s "%s" (%s).', part_of_speech, spelling, gloss_ja)
  END,
  CASE WHEN status = 'completed' THEN
    jsonb_build_object(
      'spelling', spelling,
      'partOfSpeech', part_of_speech,
      'glossJa', gloss_ja,
      'confidence', round(0.80 + pg_temp.dice('confidence/' || t, 20) / 100.0, 2)
    )
  END,
  CASE WHEN status = 'failed' THEN
    (ARRAY['the model did not answer within 30 seconds', 'the answer was not valid JSON', 'the quota of the day is used up'])
      [1 + t % 3]
  END,
  CASE WHEN status = 'completed' THEN
    jsonb_build_object(
      'model', 'tutor-small',
      'input', 60 + pg_temp.dice('input/' || t, 40),
      'output', 90 + pg_temp.dice('output/' || t, 160)
    )
  ELSE '{}' END,
  requested_at,
  finished_at,
  coalesce(finished_at, requested_at)
FROM world_tasks
ORDER BY t;
