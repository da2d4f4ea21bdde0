CREATE TABLE users (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  username text NOT NULL CHECK (username ~ '^[A-Za-z0-9_]{3,20}$'),
  password_hash text NOT NULL CHECK (password_hash LIKE '$argon2id$%'),
  avatar text NOT NULL DEFAULT 'cat' CHECK (avatar IN ('cat', 'fox', 'owl', 'rabbit', 'tanuki')),
  score integer NOT NULL DEFAULT 0 CHECK (score >= 0),
  games_played integer NOT NULL DEFAULT 0 CHECK (games_played >= 0),
  games_won integer NOT NULL DEFAULT 0 CHECK (games_won >= 0),
  settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (games_won <= games_played)
);

COMMENT ON TABLE users IS 'players';
COMMENT ON COLUMN users.settings IS 'sound, language and whatever else the client keeps';

-- Hana and hana would be taken for one another in a chat.
CREATE UNIQUE INDEX users_username ON users (lower(username));
CREATE INDEX users_ranking ON users (score DESC, id) INCLUDE (username, avatar) WHERE games_played > 0;

-- A writer that gives its own time keeps it; the others get the present one.
CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
    NEW.updated_at := now();
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER users_touch
  BEFORE UPDATE ON users
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
