DROP TABLE saga_executions;
DROP FUNCTION refuse_change_of_saga_state();
DROP FUNCTION touch_updated_at();
DROP TYPE saga_state;
