DROP TRIGGER vocabulary_items_z_revision ON vocabulary_items;
DROP FUNCTION keep_former_revision();
DROP TABLE vocabulary_item_revisions;
ALTER TABLE vocabulary_items DROP COLUMN revision;
