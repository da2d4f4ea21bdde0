DROP TRIGGER event_streams_follow_their_events ON event_streams;
DROP TRIGGER event_streams_start_empty ON event_streams;
DROP TABLE events;
DROP FUNCTION refuse_change_of_history();
DROP FUNCTION advance_event_streams();
