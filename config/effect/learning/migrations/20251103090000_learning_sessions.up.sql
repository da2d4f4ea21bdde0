CREATE TYPE session_kind AS ENUM ('new', 'review', 'mixed');

CREATE TABLE learning_sessions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid NOT NULL,
  kind session_kind NOT NULL,
  item_count integer NOT NULL CHECK (item_count BETWEEN 1 AND 100),
  judged_count integer NOT NULL DEFAULT 0,
  judged_correct integer NOT NULL DEFAULT 0,
  started_at timestamptz NOT NULL,
  ended_at timestamptz,
  -- A day is a day in UTC everywhere in Effect, so that all services count alike.
  session_day date GENERATED ALWAYS AS ((started_at AT TIME ZONE 'UTC')::date) STORED,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (judged_count BETWEEN 0 AND item_count),
  CHECK (judged_correct BETWEEN 0 AND judged_count),
  CHECK (ended_at > started_at)
);

COMMENT ON TABLE learning_sessions IS 'one sitting of a user with the items chosen for it';
COMMENT ON COLUMN learning_sessions.user_id IS 'a user of the user database';
COMMENT ON COLUMN learning_sessions.kind IS 'new: only items never seen; review: only items seen before; mixed: both';
COMMENT ON COLUMN learning_sessions.ended_at IS 'null while the session runs';

CREATE INDEX learning_sessions_by_user ON learning_sessions (user_id, started_at DESC)
  INCLUDE (kind, item_count, judged_correct);
CREATE INDEX learning_sessions_by_day ON learning_sessions (session_day);
-- A user has one session at a time.
CREATE UNIQUE INDEX learning_sessions_one_running ON learning_sessions (user_id) WHERE ended_at IS NULL;

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

CREATE TRIGGER learning_sessions_touch
  BEFORE UPDATE ON learning_sessions
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
