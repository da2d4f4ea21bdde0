-- Virtual: computed when read, so that adding them rewrites nothing and replays write nothing more.
ALTER TABLE daily_progress
  ADD COLUMN accuracy numeric GENERATED ALWAYS AS (round(correct::numeric / nullif(answers, 0), 3)) VIRTUAL;
ALTER TABLE weekly_progress
  ADD COLUMN accuracy numeric GENERATED ALWAYS AS (round(correct::numeric / nullif(answers, 0), 3)) VIRTUAL;
ALTER TABLE user_progress
  ADD COLUMN accuracy numeric GENERATED ALWAYS AS (round(correct::numeric / nullif(answers, 0), 3)) VIRTUAL;

COMMENT ON COLUMN daily_progress.accuracy IS 'share of right answers, 0 to 1; null without an answer';
COMMENT ON COLUMN weekly_progress.accuracy IS 'share of right answers, 0 to 1; null without an answer';
COMMENT ON COLUMN user_progress.accuracy IS 'share of right answers, 0 to 1; null without an answer';
