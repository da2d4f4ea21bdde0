CREATE TABLE snapshots (
  stream_id uuid NOT NULL,
  version bigint NOT NULL,
  state jsonb NOT NULL CHECK (jsonb_typeof(state) = 'object'),
  schema_version integer NOT NULL DEFAULT 1 CHECK (schema_version >= 1),
  taken_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (stream_id, version),
  -- A snapshot is the state after an event that exists.
  FOREIGN KEY (stream_id, version) REFERENCES events (stream_id, version)
);

COMMENT ON TABLE snapshots IS 'state of an aggregate after an event, so that a load need not replay the whole stream';
COMMENT ON COLUMN snapshots.schema_version IS 'form of state; an older form is ignored and the stream replayed';
