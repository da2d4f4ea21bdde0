-- The configuration is named, since the server's default would make the expression depend on a setting.
ALTER TABLE vocabulary_items
  ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('english', definition), 'A') || setweight(to_tsvector('english', examples), 'B')
  ) STORED;

COMMENT ON COLUMN vocabulary_items.search IS 'words of the definition (A) and of the examples (B)';

CREATE INDEX vocabulary_items_search ON vocabulary_items USING gin (search);
