ALTER TABLE learning_sessions DROP COLUMN client;
