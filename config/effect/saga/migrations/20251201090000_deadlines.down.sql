ALTER TABLE saga_executions DROP COLUMN deadline_at;
