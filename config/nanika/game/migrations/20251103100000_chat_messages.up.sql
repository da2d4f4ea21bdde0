CREATE TABLE chat_messages (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room text NOT NULL CHECK (room ~ '^[a-z0-9-]{1,40}$'),
  -- What was said stays when the player leaves.
  user_id uuid REFERENCES users ON DELETE SET NULL,
  body text NOT NULL CHECK (length(body) BETWEEN 1 AND 500),
  sent_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE chat_messages IS 'what players said, by room';
COMMENT ON COLUMN chat_messages.user_id IS 'null when the player was deleted';

CREATE INDEX chat_messages_by_room ON chat_messages (room, sent_at DESC) INCLUDE (user_id);
CREATE INDEX chat_messages_by_user ON chat_messages (user_id, sent_at DESC) WHERE user_id IS NOT NULL;
