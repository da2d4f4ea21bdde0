INSERT INTO daily_statistics (user_id, day, reviews, lapses, quality_sum)
SELECT user_id, day, count(*), count(*) FILTER (WHERE NOT correct), sum(quality)
FROM world_answers
GROUP BY n, user_id, day
ORDER BY n, day;
