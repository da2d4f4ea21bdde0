-- no-transaction
DROP INDEX CONCURRENTLY events_by_type;
