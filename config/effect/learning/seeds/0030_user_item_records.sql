-- SM-2 counts the right answers in a row as its repetitions, so the last answer knows the mastery.
INSERT INTO user_item_records (
  user_id, item_id, mastery, answers, correct, correct_in_a_row, first_answered_at, last_answered_at, updated_at
)
SELECT
  user_id,
  item_id,
  CASE WHEN in_a_row >= 3 THEN 'mastered' WHEN in_a_row = 2 THEN 'familiar' ELSE 'learning' END,
  answers,
  correct,
  in_a_row,
  first_answered_at,
  last_answered_at,
  last_answered_at
FROM (
  SELECT
    user_id,
    item_id,
    min(n) AS n,
    count(*) AS answers,
    count(*) FILTER (WHERE correct) AS correct,
    (array_agg(repetitions ORDER BY sequence DESC))[1] AS in_a_row,
    min(answered_at) AS first_answered_at,
    max(answered_at) AS last_answered_at
  FROM world_answers
  GROUP BY user_id, item_id
) AS record
ORDER BY n, first_answered_at, item_id;
