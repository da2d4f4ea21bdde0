CREATE TYPE part_of_speech AS ENUM (
  'noun', 'verb', 'adjective', 'adverb', 'pronoun', 'preposition', 'conjunction', 'interjection', 'phrase'
);
-- In ascending order, so that levels compare.
CREATE TYPE cefr_level AS ENUM ('A1', 'A2', 'B1', 'B2', 'C1', 'C2');
CREATE TYPE item_status AS ENUM ('draft', 'published');

CREATE TABLE vocabulary_items (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  number integer NOT NULL UNIQUE CHECK (number >= 1),
  entry_id uuid NOT NULL REFERENCES vocabulary_entries ON DELETE RESTRICT,
  sense smallint NOT NULL CHECK (sense >= 1),
  part_of_speech part_of_speech NOT NULL,
  cefr_level cefr_level NOT NULL,
  gloss_ja text NOT NULL CHECK (gloss_ja <> ''),
  definition text NOT NULL CHECK (definition <> ''),
  examples jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(examples) = 'array'),
  status item_status NOT NULL DEFAULT 'draft',
  published_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (entry_id, sense),
  -- What learners see is complete.
  CHECK ((status = 'published') = (published_at IS NOT NULL)),
  CHECK (status = 'draft' OR jsonb_array_length(examples) >= 1)
);

COMMENT ON TABLE vocabulary_items IS 'one meaning of an entry: what a learner studies';
COMMENT ON COLUMN vocabulary_items.number IS 'a short stable number, for people and for files';
COMMENT ON COLUMN vocabulary_items.sense IS 'which meaning of its entry: 1, 2 …';
COMMENT ON COLUMN vocabulary_items.gloss_ja IS 'the meaning in Japanese, as short as a card allows';
COMMENT ON COLUMN vocabulary_items.examples IS 'example sentences in English, the best first';

CREATE INDEX vocabulary_items_published ON vocabulary_items (cefr_level, part_of_speech)
  INCLUDE (number) WHERE status = 'published';
CREATE INDEX vocabulary_items_drafts ON vocabulary_items (created_at) WHERE status = 'draft';

CREATE TRIGGER vocabulary_items_touch
  BEFORE UPDATE ON vocabulary_items
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
