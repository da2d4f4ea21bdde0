CREATE TABLE daily_statistics (
  user_id uuid NOT NULL,
  day date NOT NULL,
  reviews integer NOT NULL CHECK (reviews >= 1),
  lapses integer NOT NULL CHECK (lapses >= 0),
  quality_sum integer NOT NULL,
  -- Computed, so that the average can never disagree with what it is an average of.
  average_quality numeric(3, 2) GENERATED ALWAYS AS (round(quality_sum::numeric / reviews, 2)) STORED,
  PRIMARY KEY (user_id, day),
  CHECK (lapses <= reviews),
  CHECK (quality_sum BETWEEN 0 AND 5 * reviews)
);

COMMENT ON TABLE daily_statistics IS 'reviews of a user on a day (in UTC)';
COMMENT ON COLUMN daily_statistics.lapses IS 'reviews with a quality below 3';

CREATE INDEX daily_statistics_by_day ON daily_statistics (day) INCLUDE (reviews, lapses);
