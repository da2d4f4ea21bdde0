ALTER TABLE chat_messages DROP COLUMN tokens;
ALTER TABLE generation_tasks DROP COLUMN tokens;
ALTER TABLE generation_tasks DROP COLUMN usage;
