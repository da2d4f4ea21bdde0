CREATE TABLE vocabulary_entries (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  spelling text NOT NULL CHECK (spelling = btrim(spelling) AND spelling <> ''),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE vocabulary_entries IS 'a spelling; what it means is in vocabulary_items';

-- Polish and polish are two words, so the spelling is unique as it is written, and found whatever its case.
CREATE UNIQUE INDEX vocabulary_entries_spelling ON vocabulary_entries (spelling);
CREATE INDEX vocabulary_entries_by_prefix ON vocabulary_entries (lower(spelling) text_pattern_ops);

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

CREATE TRIGGER vocabulary_entries_touch
  BEFORE UPDATE ON vocabulary_entries
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
