-- Rows are updated with every answer, so pages keep room for the new version beside the old one.
CREATE TABLE user_progress (
  user_id uuid PRIMARY KEY,
  learning_goal text,
  sessions_started integer NOT NULL DEFAULT 0 CHECK (sessions_started >= 0),
  sessions_completed integer NOT NULL DEFAULT 0 CHECK (sessions_completed >= 0),
  answers integer NOT NULL DEFAULT 0 CHECK (answers >= 0),
  correct integer NOT NULL DEFAULT 0 CHECK (correct >= 0),
  items_studied integer NOT NULL DEFAULT 0 CHECK (items_studied >= 0),
  last_session_id uuid,
  last_answered_at timestamptz,
  registered_at timestamptz NOT NULL,
  CHECK (sessions_completed <= sessions_started),
  CHECK (correct <= answers),
  CHECK (items_studied <= answers),
  CHECK ((sessions_started = 0) = (last_session_id IS NULL)),
  CHECK ((answers = 0) = (last_answered_at IS NULL))
) WITH (fillfactor = 80);

COMMENT ON TABLE user_progress IS 'projection: what a user did in all';
COMMENT ON COLUMN user_progress.user_id IS 'a user of the user database';
COMMENT ON COLUMN user_progress.last_session_id IS 'a session of the learning database';

CREATE INDEX user_progress_idle ON user_progress (last_answered_at) INCLUDE (user_id) WHERE answers > 0;
