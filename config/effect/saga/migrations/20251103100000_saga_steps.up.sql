CREATE TYPE saga_step_state AS ENUM ('pending', 'running', 'completed', 'failed', 'compensated');

CREATE TABLE saga_steps (
  saga_id uuid NOT NULL REFERENCES saga_executions ON DELETE CASCADE,
  number integer NOT NULL CHECK (number BETWEEN 1 AND 20),
  name text NOT NULL CHECK (name <> ''),
  service text NOT NULL CHECK (service LIKE '%-service'),
  state saga_step_state NOT NULL DEFAULT 'pending',
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  failure text,
  started_at timestamptz,
  finished_at timestamptz,
  PRIMARY KEY (saga_id, number),
  UNIQUE (saga_id, name),
  CHECK ((state = 'pending') = (started_at IS NULL)),
  CHECK ((state IN ('pending', 'running')) = (finished_at IS NULL)),
  CHECK ((state = 'failed') = (failure IS NOT NULL)),
  CHECK (state = 'pending' OR attempts >= 1),
  CHECK (finished_at >= started_at)
);

COMMENT ON TABLE saga_steps IS 'the steps of a run, in order';
COMMENT ON COLUMN saga_steps.service IS 'the service that does the step';
COMMENT ON COLUMN saga_steps.attempts IS 'how often the step was tried; its command is idempotent';

CREATE INDEX saga_steps_running ON saga_steps (service, started_at) WHERE state = 'running';
