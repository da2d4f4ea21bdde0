ALTER TABLE vocabulary_items DROP COLUMN search;
