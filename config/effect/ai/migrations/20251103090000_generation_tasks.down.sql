DROP TABLE generation_tasks;
DROP FUNCTION touch_updated_at();
DROP TYPE task_status;
DROP TYPE task_kind;
