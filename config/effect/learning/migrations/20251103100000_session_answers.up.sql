CREATE TABLE session_answers (
  session_id uuid NOT NULL REFERENCES learning_sessions ON DELETE CASCADE,
  question integer NOT NULL CHECK (question BETWEEN 1 AND 100),
  item_id uuid NOT NULL,
  correct boolean NOT NULL,
  response_ms integer NOT NULL CHECK (response_ms BETWEEN 0 AND 600000),
  answered_at timestamptz NOT NULL,
  PRIMARY KEY (session_id, question),
  -- An item is asked once in a session.
  UNIQUE (session_id, item_id)
);

COMMENT ON TABLE session_answers IS 'the judged answers of a session, in the order of the questions';
COMMENT ON COLUMN session_answers.item_id IS 'an item of the vocabulary database';

CREATE INDEX session_answers_wrong ON session_answers (item_id, answered_at) WHERE NOT correct;
