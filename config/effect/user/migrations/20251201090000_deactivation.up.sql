-- A user who leaves is kept until the other services have forgotten the id; the address becomes free at once.
ALTER TABLE users ADD COLUMN deactivated_at timestamptz;
ALTER TABLE users
  ADD CONSTRAINT users_deactivated_after_registration CHECK (deactivated_at >= registered_at);

COMMENT ON COLUMN users.deactivated_at IS 'null for an active user';

DROP INDEX users_email;
CREATE UNIQUE INDEX users_email ON users (lower(email)) WHERE deactivated_at IS NULL;
CREATE INDEX users_deactivated ON users (deactivated_at) WHERE deactivated_at IS NOT NULL;
