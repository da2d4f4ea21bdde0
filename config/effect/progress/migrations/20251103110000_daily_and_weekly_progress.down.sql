DROP TABLE weekly_progress;
DROP TABLE daily_progress;
