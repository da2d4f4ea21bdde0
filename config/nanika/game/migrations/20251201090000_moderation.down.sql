DROP INDEX chat_messages_hidden;
DROP INDEX chat_messages_by_room;
CREATE INDEX chat_messages_by_room ON chat_messages (room, sent_at DESC) INCLUDE (user_id);

ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_hidden_for_a_reason;
ALTER TABLE chat_messages DROP COLUMN hidden_because;
ALTER TABLE chat_messages DROP COLUMN hidden_at;
