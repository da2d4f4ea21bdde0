-- A run that waits for an answer that never comes is compensated at its deadline.
ALTER TABLE saga_executions ADD COLUMN deadline_at timestamptz;
ALTER TABLE saga_executions
  ADD CONSTRAINT saga_executions_deadline_after_start CHECK (deadline_at > started_at);

COMMENT ON COLUMN saga_executions.deadline_at IS 'when an unfinished run is given up; null for no limit';

CREATE INDEX saga_executions_by_deadline ON saga_executions (deadline_at) WHERE state = 'running';
