ALTER TABLE sm2_records DROP COLUMN lapses;
