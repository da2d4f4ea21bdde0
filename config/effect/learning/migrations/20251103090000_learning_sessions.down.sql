DROP TABLE learning_sessions;
DROP FUNCTION touch_updated_at();
DROP TYPE session_kind;
