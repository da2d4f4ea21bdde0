CREATE TABLE sm2_records (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid NOT NULL,
  item_id uuid NOT NULL,
  repetitions integer NOT NULL DEFAULT 0 CHECK (repetitions >= 0),
  easiness numeric(3, 2) NOT NULL DEFAULT 2.50 CHECK (easiness BETWEEN 1.30 AND 2.50),
  interval_days integer NOT NULL DEFAULT 0 CHECK (interval_days >= 0),
  review_count integer NOT NULL DEFAULT 0 CHECK (review_count >= repetitions),
  last_reviewed_at timestamptz,
  next_review_on date NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (user_id, item_id)
) WITH (fillfactor = 80);

COMMENT ON TABLE sm2_records IS 'where the SM-2 algorithm is with one item of one user';
COMMENT ON COLUMN sm2_records.user_id IS 'a user of the user database';
COMMENT ON COLUMN sm2_records.item_id IS 'an item of the vocabulary database';
COMMENT ON COLUMN sm2_records.repetitions IS 'right answers in a row; a quality below 3 sets it to 0';
COMMENT ON COLUMN sm2_records.easiness IS 'EF of SM-2: starts at 2.5, never leaves 1.3 to 2.5';
COMMENT ON COLUMN sm2_records.interval_days IS 'days from the last review to the next; 0 before the first';

-- "What is due for this user" is asked before every session and answered from the index alone.
CREATE INDEX sm2_records_due ON sm2_records (user_id, next_review_on) INCLUDE (item_id, easiness);

-- A writer that gives its own time keeps it; the others get the present one.
CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
    NEW.updated_at := now();
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER sm2_records_touch
  BEFORE UPDATE ON sm2_records
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
