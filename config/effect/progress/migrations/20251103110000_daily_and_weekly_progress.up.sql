CREATE TABLE daily_progress (
  user_id uuid NOT NULL,
  day date NOT NULL,
  sessions_started integer NOT NULL DEFAULT 0 CHECK (sessions_started >= 0),
  sessions_completed integer NOT NULL DEFAULT 0 CHECK (sessions_completed >= 0),
  answers integer NOT NULL DEFAULT 0 CHECK (answers >= 0),
  correct integer NOT NULL DEFAULT 0 CHECK (correct >= 0),
  new_items integer NOT NULL DEFAULT 0 CHECK (new_items >= 0),
  response_ms bigint NOT NULL DEFAULT 0 CHECK (response_ms >= 0),
  PRIMARY KEY (user_id, day),
  CHECK (correct <= answers),
  CHECK (new_items <= answers)
) WITH (fillfactor = 80);

COMMENT ON TABLE daily_progress IS 'projection: what a user did on a day (in UTC)';
COMMENT ON COLUMN daily_progress.response_ms IS 'sum of the response times of the answers';

CREATE INDEX daily_progress_by_day ON daily_progress (day) INCLUDE (answers, correct);

CREATE TABLE weekly_progress (
  user_id uuid NOT NULL,
  week date NOT NULL,
  active_days integer NOT NULL DEFAULT 0 CHECK (active_days BETWEEN 0 AND 7),
  sessions_completed integer NOT NULL DEFAULT 0 CHECK (sessions_completed >= 0),
  answers integer NOT NULL DEFAULT 0 CHECK (answers >= 0),
  correct integer NOT NULL DEFAULT 0 CHECK (correct >= 0),
  new_items integer NOT NULL DEFAULT 0 CHECK (new_items >= 0),
  response_ms bigint NOT NULL DEFAULT 0 CHECK (response_ms >= 0),
  PRIMARY KEY (user_id, week),
  CONSTRAINT weekly_progress_week_is_monday CHECK (extract(isodow FROM week) = 1),
  CHECK (correct <= answers),
  CHECK (new_items <= answers)
) WITH (fillfactor = 80);

COMMENT ON TABLE weekly_progress IS 'projection: what a user did in a week';
COMMENT ON COLUMN weekly_progress.week IS 'the Monday the week begins with';
