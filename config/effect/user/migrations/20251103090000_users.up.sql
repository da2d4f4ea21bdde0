CREATE TYPE user_role AS ENUM ('learner', 'editor', 'admin');

CREATE TABLE users (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  email text NOT NULL CHECK (email LIKE '_%@_%' AND length(email) <= 254),
  display_name text NOT NULL CHECK (length(display_name) BETWEEN 1 AND 80),
  role user_role NOT NULL DEFAULT 'learner',
  learning_goal text CHECK (learning_goal IN ('daily_life', 'travel', 'business', 'exam', 'study_abroad')),
  cefr_level text CHECK (cefr_level IN ('A1', 'A2', 'B1', 'B2', 'C1', 'C2')),
  registered_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE users IS 'profiles; every other database knows a user by this id only';
COMMENT ON COLUMN users.learning_goal IS 'why the user learns; null until asked';
COMMENT ON COLUMN users.cefr_level IS 'the level the user chose; null until asked';

-- People write their address in any case; it is one mailbox all the same.
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE INDEX users_staff ON users (role) INCLUDE (display_name) WHERE role <> 'learner';

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
