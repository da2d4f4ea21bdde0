CREATE TABLE review_histories (
  record_id uuid NOT NULL REFERENCES sm2_records ON DELETE CASCADE,
  sequence integer NOT NULL CHECK (sequence >= 1),
  session_id uuid NOT NULL,
  quality smallint NOT NULL CHECK (quality BETWEEN 0 AND 5),
  repetitions_before integer NOT NULL CHECK (repetitions_before >= 0),
  repetitions_after integer NOT NULL,
  easiness_before numeric(3, 2) NOT NULL,
  easiness_after numeric(3, 2) NOT NULL,
  interval_before integer NOT NULL CHECK (interval_before >= 0),
  interval_after integer NOT NULL,
  reviewed_at timestamptz NOT NULL,
  lapse boolean GENERATED ALWAYS AS (quality < 3) STORED,
  PRIMARY KEY (record_id, sequence),
  -- One step of SM-2. The interval uses the easiness before the review, as SM-2 was published.
  CONSTRAINT review_histories_follow_sm2 CHECK (
    repetitions_after = CASE WHEN quality >= 3 THEN repetitions_before + 1 ELSE 0 END
    AND easiness_after = least(
      2.50, greatest(1.30, easiness_before + (0.1 - (5 - quality) * (0.08 + (5 - quality) * 0.02)))
    )
    AND interval_after = CASE
      WHEN quality < 3 OR repetitions_before = 0 THEN 1
      WHEN repetitions_before = 1 THEN 6
      ELSE round(interval_before * easiness_before)
    END
  )
);

COMMENT ON TABLE review_histories IS 'every review of a record and what SM-2 made of it; append-only';
COMMENT ON COLUMN review_histories.session_id IS 'a session of the learning database';
COMMENT ON COLUMN review_histories.quality IS 'how well it was remembered: 0 not at all … 5 at once; right from 3';

CREATE INDEX review_histories_by_session ON review_histories (session_id);
CREATE INDEX review_histories_lapses ON review_histories (record_id, reviewed_at) WHERE lapse;

CREATE FUNCTION refuse_change_of_history() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a review that took place cannot be changed'
    USING ERRCODE = 'restrict_violation', HINT = 'A record may be deleted with all its reviews.';
END
$$;

CREATE TRIGGER review_histories_are_append_only
  BEFORE UPDATE ON review_histories
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
