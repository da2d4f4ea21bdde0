DROP TABLE vocabulary_entries;
DROP FUNCTION touch_updated_at();
