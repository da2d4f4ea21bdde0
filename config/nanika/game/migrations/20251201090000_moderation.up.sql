-- A hidden message is kept for the moderators, so reading a room skips it and its index leaves it out.
ALTER TABLE chat_messages ADD COLUMN hidden_at timestamptz;
ALTER TABLE chat_messages ADD COLUMN hidden_because text;
ALTER TABLE chat_messages
  ADD CONSTRAINT chat_messages_hidden_for_a_reason CHECK ((hidden_at IS NULL) = (hidden_because IS NULL));

COMMENT ON COLUMN chat_messages.hidden_at IS 'when a moderator hid the message; null while players see it';

DROP INDEX chat_messages_by_room;
CREATE INDEX chat_messages_by_room ON chat_messages (room, sent_at DESC) INCLUDE (user_id) WHERE hidden_at IS NULL;
CREATE INDEX chat_messages_hidden ON chat_messages (hidden_at) WHERE hidden_at IS NOT NULL;
