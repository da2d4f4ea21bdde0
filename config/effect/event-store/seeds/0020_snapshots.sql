-- A snapshot after every fourth review of a record; the last event of it holds the whole state.
INSERT INTO snapshots (stream_id, version, state, schema_version, taken_at)
SELECT stream_id, version, data - 'sessionId' - 'quality', 1, recorded_at
FROM events
WHERE event_type = 'ReviewScheduled' AND version % 4 = 0
ORDER BY position;
