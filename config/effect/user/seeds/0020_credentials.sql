-- Everyone has a password, and every fifth an account at Google besides. The password of every seeded account is
-- "effect-dev"; the hash is written down, since hashing is slow on purpose.
INSERT INTO credentials (user_id, provider, password_hash, subject, failed_attempts, locked_until, created_at, updated_at)
SELECT
  user_id,
  'password',
  '$argon2id$v=19$m=19456,t=2,p=1$ZWZmZWN0LWRldi1zYWx0IQ$hnz3OY8r1Wt/+ptR88sDgJJTTfeZyS/53gdTRKcPVVc',
  NULL,
  CASE WHEN n % 50 = 7 THEN 5 ELSE 0 END,
  CASE WHEN n % 50 = 7 THEN timestamptz '2026-02-16 09:00+00' END,
  registered_at,
  registered_at
FROM world_people
UNION ALL
SELECT user_id, 'google', NULL, 'google-' || md5('effect/google/' || n), 0, NULL, registered_at, registered_at
FROM world_people
WHERE n % 5 = 0;
