-- A hundred players for each unit of xtask.scale. Everything is a function of it: ids and choices come from names by md5, times
-- from a fixed Monday morning. The password of every seeded account is "nanika-dev".
SET LOCAL TimeZone = 'UTC';

-- A throw of a die that always falls the same way for the same name: 0 to sides - 1. It lives until the connection ends.
CREATE OR REPLACE FUNCTION pg_temp.dice(name text, sides integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || substr(md5(name), 1, 7))::bit(28)::integer % sides;

INSERT INTO users (
  id, username, password_hash, avatar, score, games_played, games_won, settings, created_at, updated_at
)
SELECT
  md5('nanika/user/' || n)::uuid,
  -- 20 animals and 11 adjectives make 220 names; the number makes the rest different.
  (ARRAY['Quick', 'Sleepy', 'Brave', 'Tiny', 'Lucky', 'Silent', 'Golden', 'Funny', 'Wild', 'Clever', 'Kind'])[1 + n % 11]
    || (ARRAY[
      'Cat', 'Fox', 'Owl', 'Rabbit', 'Tanuki', 'Otter', 'Crow', 'Wolf', 'Bear', 'Crane',
      'Koi', 'Hare', 'Lynx', 'Mole', 'Newt', 'Panda', 'Robin', 'Seal', 'Toad', 'Wren'
    ])[1 + n % 20]
    || CASE WHEN n > 220 THEN n::text ELSE '' END,
  '$argon2id$v=19$m=19456,t=2,p=1$bmFuaWthLWRldi1zYWx0IQ$/oj1HaJJxZxTPRRVvYeR49hJwg4ZbsI4sp6yDrAzdbY',
  (ARRAY['cat', 'fox', 'owl', 'rabbit', 'tanuki'])[1 + pg_temp.dice('avatar/' || n, 5)],
  -- ten points for a game, fifty more for one that was won
  10 * games.played + 50 * games.won,
  games.played,
  games.won,
  jsonb_build_object(
    'language', (ARRAY['ja', 'ja', 'en'])[1 + pg_temp.dice('language/' || n, 3)],
    'sound', pg_temp.dice('sound/' || n, 4) > 0
  ),
  timestamptz '2026-01-05 09:00+00' + make_interval(secs => pg_temp.dice('joined/' || n, 30 * 86400)),
  timestamptz '2026-02-15 12:00+00'
FROM generate_series(1, 100 * current_setting('xtask.scale')::integer) AS n
CROSS JOIN LATERAL (SELECT pg_temp.dice('played/' || n, 60) AS played) AS plays
CROSS JOIN LATERAL (SELECT plays.played, pg_temp.dice('won/' || n, plays.played + 1) AS won) AS games
ORDER BY n;
