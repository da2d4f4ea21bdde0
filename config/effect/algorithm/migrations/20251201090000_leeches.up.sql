-- An item forgotten again and again (a leech) is shown differently, and is rare enough for a small index.
ALTER TABLE sm2_records
  ADD COLUMN lapses integer NOT NULL DEFAULT 0
  CONSTRAINT sm2_records_lapses_are_reviews CHECK (lapses BETWEEN 0 AND review_count);

COMMENT ON COLUMN sm2_records.lapses IS 'reviews with a quality below 3, in all';

CREATE INDEX sm2_records_leeches ON sm2_records (user_id, lapses DESC) INCLUDE (item_id) WHERE lapses >= 3;
