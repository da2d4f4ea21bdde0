DROP TABLE vocabulary_items;
DROP TYPE item_status;
DROP TYPE cefr_level;
DROP TYPE part_of_speech;
