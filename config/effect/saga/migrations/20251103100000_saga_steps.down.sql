DROP TABLE saga_steps;
DROP TYPE saga_step_state;
