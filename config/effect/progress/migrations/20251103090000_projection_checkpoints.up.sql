-- Projections are built from events and can be thrown away: a projection at position 0 is empty and is replayed.
CREATE TABLE projection_checkpoints (
  projection text PRIMARY KEY CHECK (projection <> ''),
  last_position bigint NOT NULL DEFAULT 0 CHECK (last_position >= 0),
  last_occurred_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (last_position = 0 OR last_occurred_at IS NOT NULL)
);

COMMENT ON TABLE projection_checkpoints IS 'how far each projection has read the event store';
COMMENT ON COLUMN projection_checkpoints.last_position IS 'position of the last event read, 0 before the first';

-- An event delivered twice, or by two instances, must not be counted twice.
CREATE FUNCTION keep_checkpoint_forward() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'projection % cannot go back from position % to %', OLD.projection, OLD.last_position, NEW.last_position
    USING ERRCODE = 'check_violation', HINT = 'To replay, empty the projection and set last_position to 0.';
END
$$;

CREATE TRIGGER projection_checkpoints_go_forward
  BEFORE UPDATE OF last_position ON projection_checkpoints
  FOR EACH ROW WHEN (NEW.last_position < OLD.last_position AND NEW.last_position <> 0)
  EXECUTE FUNCTION keep_checkpoint_forward();
