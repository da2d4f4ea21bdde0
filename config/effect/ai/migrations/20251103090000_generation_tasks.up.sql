CREATE TYPE task_kind AS ENUM ('item_info', 'examples', 'mnemonic');
CREATE TYPE task_status AS ENUM ('pending', 'running', 'completed', 'failed');

CREATE TABLE generation_tasks (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id uuid NOT NULL,
  item_id uuid NOT NULL,
  kind task_kind NOT NULL,
  status task_status NOT NULL DEFAULT 'pending',
  prompt text NOT NULL CHECK (prompt <> ''),
  result jsonb CHECK (jsonb_typeof(result) = 'object'),
  failure text,
  requested_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- The status says which of the other columns are there.
  CHECK ((status = 'completed') = (result IS NOT NULL)),
  CHECK ((status = 'failed') = (failure IS NOT NULL)),
  CHECK ((status IN ('completed', 'failed')) = (finished_at IS NOT NULL)),
  CHECK (finished_at >= requested_at)
);

COMMENT ON TABLE generation_tasks IS 'texts asked of the language model';
COMMENT ON COLUMN generation_tasks.user_id IS 'who asked: a user of the user database';
COMMENT ON COLUMN generation_tasks.item_id IS 'what it is about: an item of the vocabulary database';
COMMENT ON COLUMN generation_tasks.failure IS 'why it failed, for people';

-- The queue: workers take the oldest with FOR UPDATE SKIP LOCKED; finished tasks do not weigh on it.
CREATE INDEX generation_tasks_queue ON generation_tasks (requested_at) INCLUDE (kind) WHERE status = 'pending';
CREATE INDEX generation_tasks_by_item ON generation_tasks (item_id, kind) WHERE status = 'completed';
CREATE INDEX generation_tasks_by_result ON generation_tasks USING gin (result jsonb_path_ops);

-- A writer that gives its own time keeps it; the others get the present one.
CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
    NEW.updated_at := now();
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER generation_tasks_touch
  BEFORE UPDATE ON generation_tasks
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
