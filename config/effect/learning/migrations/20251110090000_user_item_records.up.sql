CREATE TABLE user_item_records (
  user_id uuid NOT NULL,
  item_id uuid NOT NULL,
  mastery text NOT NULL CHECK (mastery IN ('learning', 'familiar', 'mastered')),
  answers integer NOT NULL CHECK (answers >= 1),
  correct integer NOT NULL CHECK (correct >= 0),
  correct_in_a_row integer NOT NULL CHECK (correct_in_a_row >= 0),
  first_answered_at timestamptz NOT NULL,
  last_answered_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, item_id),
  CHECK (correct <= answers),
  CHECK (correct_in_a_row <= correct),
  CHECK (last_answered_at >= first_answered_at)
);

COMMENT ON TABLE user_item_records IS 'UserItemRecord: what a user has shown about an item, over all sessions';
COMMENT ON COLUMN user_item_records.mastery IS
  'learning: the last answer was wrong or the only one; familiar: right twice in a row; mastered: three times';
COMMENT ON COLUMN user_item_records.user_id IS 'a user of the user database';
COMMENT ON COLUMN user_item_records.item_id IS 'an item of the vocabulary database';

CREATE INDEX user_item_records_by_item ON user_item_records (item_id) INCLUDE (answers, correct);
CREATE INDEX user_item_records_unmastered ON user_item_records (user_id, last_answered_at) WHERE mastery <> 'mastered';

CREATE TRIGGER user_item_records_touch
  BEFORE UPDATE ON user_item_records
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
