DROP TABLE sm2_records;
DROP FUNCTION touch_updated_at();
