CREATE TYPE saga_state AS ENUM ('running', 'compensating', 'completed', 'compensated');

CREATE TABLE saga_executions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  saga_type text NOT NULL CHECK (saga_type IN ('generate_item_info', 'onboard_user')),
  state saga_state NOT NULL DEFAULT 'running',
  current_step integer NOT NULL DEFAULT 1 CHECK (current_step >= 1),
  step_count integer NOT NULL CHECK (step_count BETWEEN 1 AND 20),
  correlation_id uuid NOT NULL UNIQUE,
  context jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(context) = 'object'),
  started_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (current_step <= step_count),
  CHECK ((state IN ('completed', 'compensated')) = (finished_at IS NOT NULL)),
  CHECK (finished_at >= started_at)
);

COMMENT ON TABLE saga_executions IS 'one run of a saga across the services';
COMMENT ON COLUMN saga_executions.current_step IS 'the step that runs, or the last one that ran';
COMMENT ON COLUMN saga_executions.correlation_id IS 'carried by every event of this run in the event store';
COMMENT ON COLUMN saga_executions.context IS 'ids the steps work on';

-- After a restart the orchestrator picks up what is unfinished, oldest first.
CREATE INDEX saga_executions_unfinished ON saga_executions (started_at) INCLUDE (saga_type, current_step)
  WHERE state IN ('running', 'compensating');
CREATE INDEX saga_executions_by_context ON saga_executions USING gin (context jsonb_path_ops);

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

CREATE TRIGGER saga_executions_touch
  BEFORE UPDATE ON saga_executions
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- running -> completed, running -> compensating -> compensated; nothing leaves an end, nothing skips compensation.
CREATE FUNCTION refuse_change_of_saga_state() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'saga % cannot go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER saga_executions_go_forward
  BEFORE UPDATE OF state ON saga_executions
  FOR EACH ROW WHEN (
    OLD.state <> NEW.state
    AND NOT (OLD.state = 'running' AND NEW.state IN ('completed', 'compensating'))
    AND NOT (OLD.state = 'compensating' AND NEW.state = 'compensated')
  )
  EXECUTE FUNCTION refuse_change_of_saga_state();
