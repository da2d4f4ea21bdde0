-- There is no foreign key to event_streams: the trigger below already fails for an unknown stream, and it asks once for a
-- statement instead of once for a row.
CREATE TABLE events (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id uuid NOT NULL DEFAULT uuidv7() UNIQUE,
  stream_id uuid NOT NULL,
  version bigint NOT NULL CHECK (version >= 1),
  topic text NOT NULL CHECK (topic IN (
    'vocabulary-events', 'learning-events', 'algorithm-events', 'ai-events', 'user-events', 'saga-events'
  )),
  event_type text NOT NULL CHECK (event_type <> ''),
  data jsonb NOT NULL CHECK (jsonb_typeof(data) = 'object'),
  metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
  correlation_id uuid,
  causation_id uuid,
  occurred_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (stream_id, version)
);

COMMENT ON TABLE events IS 'what happened, in order; append-only';
COMMENT ON COLUMN events.position IS 'place in the order over all streams; subscriptions remember how far they came';
COMMENT ON COLUMN events.version IS 'place in the order of its own stream: 1, 2, 3 … without gaps';
COMMENT ON COLUMN events.correlation_id IS 'the saga execution this event belongs to';
COMMENT ON COLUMN events.causation_id IS 'the event_id of the event that led to this one';

-- Few events belong to a saga, so the index leaves the others out.
CREATE INDEX events_by_correlation_id ON events (correlation_id, position) WHERE correlation_id IS NOT NULL;

-- Events of one statement must continue their streams: the first is the head plus one, and none is left out between.
CREATE FUNCTION advance_event_streams() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  refused record;
BEGIN
  WITH appended AS (
    SELECT
      stream_id,
      min(version) AS first_version,
      max(version) AS last_version,
      count(*) AS events,
      max(recorded_at) AS recorded_at
    FROM new_events
    GROUP BY stream_id
  ), advanced AS (
    UPDATE event_streams AS stream
    SET version = appended.last_version, updated_at = greatest(stream.updated_at, appended.recorded_at)
    FROM appended
    WHERE stream.stream_id = appended.stream_id
      AND stream.version = appended.first_version - 1
      AND appended.events = appended.last_version - appended.first_version + 1
    RETURNING stream.stream_id
  )
  SELECT appended.stream_id, appended.first_version, appended.last_version
  INTO refused
  FROM appended
  WHERE NOT EXISTS (SELECT FROM advanced WHERE advanced.stream_id = appended.stream_id)
  ORDER BY appended.stream_id
  LIMIT 1;

  IF FOUND THEN
    RAISE EXCEPTION 'events % to % do not continue stream %',
      refused.first_version, refused.last_version, refused.stream_id
      USING
        ERRCODE = 'integrity_constraint_violation',
        HINT = 'Read the stream again and append from its present version plus one.';
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER events_continue_their_streams
  AFTER INSERT ON events
  REFERENCING NEW TABLE AS new_events
  FOR EACH STATEMENT EXECUTE FUNCTION advance_event_streams();

CREATE FUNCTION refuse_change_of_history() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on % is refused: history is appended to, never changed', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation', HINT = 'Append an event; it may correct an earlier one.';
END
$$;

-- TRUNCATE is left alone: it needs a privilege of its own, which no service has, and a reset of a test database uses it.
CREATE TRIGGER events_are_append_only
  BEFORE UPDATE OR DELETE ON events
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

CREATE TRIGGER event_streams_start_empty
  BEFORE INSERT ON event_streams
  FOR EACH ROW WHEN (NEW.version <> 0) EXECUTE FUNCTION refuse_change_of_history();

-- Depth 0 is a statement somebody typed; the trigger on events arrives here at depth 1.
CREATE TRIGGER event_streams_follow_their_events
  BEFORE UPDATE OR DELETE ON event_streams
  FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change_of_history();
