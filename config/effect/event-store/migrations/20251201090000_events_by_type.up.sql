-- no-transaction
-- Built while services append: events is the largest table and must not be locked for as long as this takes.
CREATE INDEX CONCURRENTLY events_by_type ON events (event_type, position);
