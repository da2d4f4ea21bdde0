-- A stream is the life of one aggregate. Its head is kept here, so that an append locks one row and two writers of one
-- aggregate meet at once instead of at the unique index of the events.
CREATE TABLE event_streams (
  stream_id uuid PRIMARY KEY,
  stream_type text NOT NULL DEFAULT 'aggregate' CHECK (stream_type IN ('aggregate', 'process')),
  aggregate_type text NOT NULL CHECK (aggregate_type <> ''),
  version bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (updated_at >= created_at)
);

COMMENT ON TABLE event_streams IS 'one row per aggregate: its kind and the version of its last event';
COMMENT ON COLUMN event_streams.stream_id IS 'the id of the aggregate itself (a user, a session, a saga …)';
COMMENT ON COLUMN event_streams.stream_type IS 'aggregate: state of the domain; process: the course of a saga';
COMMENT ON COLUMN event_streams.version IS 'version of the last event, 0 before the first; only appending events moves it';

CREATE INDEX event_streams_by_aggregate_type ON event_streams (aggregate_type, stream_id) INCLUDE (version);
