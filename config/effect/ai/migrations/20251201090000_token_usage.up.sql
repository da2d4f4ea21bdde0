-- What a text cost. The model's own report is kept whole; the sum that bills need is a column.
ALTER TABLE generation_tasks
  ADD COLUMN usage jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT generation_tasks_usage_is_object CHECK (jsonb_typeof(usage) = 'object');
ALTER TABLE generation_tasks
  ADD COLUMN tokens integer GENERATED ALWAYS AS (
    coalesce((usage ->> 'input')::integer, 0) + coalesce((usage ->> 'output')::integer, 0)
  ) STORED;
ALTER TABLE chat_messages
  ADD COLUMN tokens integer NOT NULL DEFAULT 0 CONSTRAINT chat_messages_tokens_count CHECK (tokens >= 0);

COMMENT ON COLUMN generation_tasks.usage IS 'input and output tokens and the name of the model';
COMMENT ON COLUMN generation_tasks.tokens IS 'input plus output of usage';

CREATE INDEX generation_tasks_cost ON generation_tasks (user_id, requested_at) INCLUDE (tokens);
