-- 40 given names and 37 family names have no common divisor, so the first 1,480 people have different names.
INSERT INTO users (
  id, email, display_name, role, learning_goal, cefr_level, settings, registered_at, updated_at, deactivated_at
)
SELECT
  person.user_id,
  lower(name.given || '.' || name.family) || CASE WHEN person.n > 1480 THEN '.' || person.n ELSE '' END || '@example.com',
  name.given || ' ' || name.family,
  CASE WHEN person.n = 1 THEN 'admin' WHEN person.n % 50 = 2 THEN 'editor' ELSE 'learner' END::user_role,
  coalesce(person.second_goal, person.first_goal),
  level.cefr_level,
  jsonb_build_object(
    'timeZone', (ARRAY['Asia/Tokyo', 'Asia/Tokyo', 'Asia/Tokyo', 'Asia/Seoul', 'Europe/Berlin', 'America/New_York'])
      [1 + pg_temp.dice('time zone/' || person.n, 6)],
    'theme', (ARRAY['system', 'light', 'dark'])[1 + pg_temp.dice('theme/' || person.n, 3)],
    'dailyGoal', 5 * (1 + pg_temp.dice('daily goal/' || person.n, 4)),
    'notifications', jsonb_build_object(
      'email', pg_temp.dice('by email/' || person.n, 2) = 0,
      'push', pg_temp.dice('by push/' || person.n, 4) > 0
    )
  ),
  person.registered_at,
  CASE WHEN person.second_goal IS NULL THEN person.registered_at ELSE person.goal_changed_at END,
  -- Some of those who never studied have left.
  CASE WHEN person.items = 0 AND person.n % 2 = 0 THEN timestamptz '2026-02-14 10:00+00' END
FROM world_people AS person
JOIN world_levels AS level ON level.rank = person.level_rank
CROSS JOIN LATERAL (
  SELECT
    (ARRAY[
      'Hana', 'Kenji', 'Emma', 'Yuki', 'Daniel', 'Sakura', 'Minjun', 'Aoi', 'Lucas', 'Mei',
      'Haruto', 'Sofia', 'Ren', 'Jisoo', 'Noah', 'Akari', 'Takumi', 'Clara', 'Sora', 'Maria',
      'Riku', 'Anna', 'Yuto', 'Mina', 'Oliver', 'Nanami', 'Kaito', 'Elena', 'Shun', 'Rin',
      'Paul', 'Misaki', 'Itsuki', 'Laura', 'Hinata', 'Tomas', 'Ayaka', 'Jun', 'Amelia', 'Naoki'
    ])[1 + (person.n - 1) % 40] AS given,
    (ARRAY[
      'Sato', 'Suzuki', 'Tanaka', 'Kim', 'Watanabe', 'Ito', 'Muller', 'Yamamoto', 'Nakamura', 'Park',
      'Kobayashi', 'Kato', 'Smith', 'Yoshida', 'Yamada', 'Garcia', 'Sasaki', 'Matsumoto', 'Inoue', 'Lee',
      'Kimura', 'Hayashi', 'Weber', 'Shimizu', 'Yamazaki', 'Brown', 'Mori', 'Abe', 'Ikeda', 'Novak',
      'Hashimoto', 'Ishikawa', 'Rossi', 'Ogawa', 'Goto', 'Okada', 'Hasegawa'
    ])[1 + (person.n - 1) % 37] AS family
) AS name
ORDER BY person.n;
