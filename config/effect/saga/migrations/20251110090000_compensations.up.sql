CREATE TABLE compensations (
  saga_id uuid NOT NULL,
  step_number integer NOT NULL,
  action text NOT NULL CHECK (action <> ''),
  reason text NOT NULL CHECK (reason <> ''),
  result jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(result) = 'object'),
  executed_at timestamptz NOT NULL DEFAULT now(),
  -- A step is undone once.
  PRIMARY KEY (saga_id, step_number),
  FOREIGN KEY (saga_id, step_number) REFERENCES saga_steps (saga_id, number) ON DELETE CASCADE
);

COMMENT ON TABLE compensations IS 'what undid a completed step of a run that failed later';
COMMENT ON COLUMN compensations.reason IS 'the failure that made it necessary';

CREATE INDEX compensations_by_time ON compensations (executed_at);
