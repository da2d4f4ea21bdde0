DROP TABLE chat_messages;
DROP TABLE chat_sessions;
DROP TYPE message_role;
