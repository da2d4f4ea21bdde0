-- What a learner was shown must be found again after an editor changed it.
ALTER TABLE vocabulary_items
  ADD COLUMN revision integer NOT NULL DEFAULT 1 CONSTRAINT vocabulary_items_revision_counts CHECK (revision >= 1);

COMMENT ON COLUMN vocabulary_items.revision IS 'counts the changes of the content; the trigger keeps it';

CREATE TABLE vocabulary_item_revisions (
  item_id uuid NOT NULL REFERENCES vocabulary_items ON DELETE CASCADE,
  revision integer NOT NULL CHECK (revision >= 1),
  content jsonb NOT NULL CHECK (jsonb_typeof(content) = 'object'),
  replaced_at timestamptz NOT NULL,
  PRIMARY KEY (item_id, revision)
);

COMMENT ON TABLE vocabulary_item_revisions IS 'the former contents of items';

CREATE FUNCTION keep_former_revision() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO vocabulary_item_revisions (item_id, revision, content, replaced_at)
  VALUES (
    OLD.id,
    OLD.revision,
    jsonb_build_object(
      'partOfSpeech', OLD.part_of_speech,
      'cefrLevel', OLD.cefr_level,
      'glossJa', OLD.gloss_ja,
      'definition', OLD.definition,
      'examples', OLD.examples
    ),
    NEW.updated_at
  );
  NEW.revision := OLD.revision + 1;
  RETURN NEW;
END
$$;

-- Triggers run in the order of their names: "touch" has set updated_at before "z_revision" copies it.
CREATE TRIGGER vocabulary_items_z_revision
  BEFORE UPDATE ON vocabulary_items
  FOR EACH ROW WHEN (
    (OLD.part_of_speech, OLD.cefr_level, OLD.gloss_ja, OLD.definition, OLD.examples)
      IS DISTINCT FROM (NEW.part_of_speech, NEW.cefr_level, NEW.gloss_ja, NEW.definition, NEW.examples)
  )
  EXECUTE FUNCTION keep_former_revision();
