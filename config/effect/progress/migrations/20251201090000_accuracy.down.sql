ALTER TABLE user_progress DROP COLUMN accuracy;
ALTER TABLE weekly_progress DROP COLUMN accuracy;
ALTER TABLE daily_progress DROP COLUMN accuracy;
