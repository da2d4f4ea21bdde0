CREATE TABLE item_progress (
  user_id uuid NOT NULL,
  item_id uuid NOT NULL,
  answers integer NOT NULL DEFAULT 0 CHECK (answers >= 0),
  correct integer NOT NULL DEFAULT 0 CHECK (correct >= 0),
  last_quality smallint CHECK (last_quality BETWEEN 0 AND 5),
  repetitions integer NOT NULL DEFAULT 0 CHECK (repetitions >= 0),
  interval_days integer NOT NULL DEFAULT 0 CHECK (interval_days >= 0),
  next_review_on date,
  last_answered_at timestamptz,
  PRIMARY KEY (user_id, item_id),
  CHECK (correct <= answers)
) WITH (fillfactor = 80);

COMMENT ON TABLE item_progress IS 'projection: how far a user is with an item';
COMMENT ON COLUMN item_progress.user_id IS 'a user of the user database';
COMMENT ON COLUMN item_progress.item_id IS 'an item of the vocabulary database';
COMMENT ON COLUMN item_progress.next_review_on IS 'as the algorithm service scheduled it';

CREATE INDEX item_progress_due ON item_progress (user_id, next_review_on) INCLUDE (item_id)
  WHERE next_review_on IS NOT NULL;
CREATE INDEX item_progress_by_item ON item_progress (item_id) INCLUDE (answers, correct);
