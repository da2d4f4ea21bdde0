CREATE TYPE message_role AS ENUM ('system', 'user', 'assistant');

CREATE TABLE chat_sessions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid NOT NULL,
  item_id uuid,
  title text NOT NULL CHECK (length(title) BETWEEN 1 AND 120),
  started_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (archived_at >= started_at)
);

COMMENT ON TABLE chat_sessions IS 'conversations of a user with the tutor';
COMMENT ON COLUMN chat_sessions.user_id IS 'a user of the user database';
COMMENT ON COLUMN chat_sessions.item_id IS 'an item of the vocabulary database; null for a free conversation';

CREATE INDEX chat_sessions_open ON chat_sessions (user_id, started_at DESC) INCLUDE (title) WHERE archived_at IS NULL;

CREATE TRIGGER chat_sessions_touch
  BEFORE UPDATE ON chat_sessions
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE TABLE chat_messages (
  chat_session_id uuid NOT NULL REFERENCES chat_sessions ON DELETE CASCADE,
  number integer NOT NULL CHECK (number >= 1),
  role message_role NOT NULL,
  content text NOT NULL CHECK (content <> ''),
  sent_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (chat_session_id, number)
);

COMMENT ON COLUMN chat_messages.number IS 'place in its conversation: 1, 2, 3 …';
