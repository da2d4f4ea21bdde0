DROP TABLE item_progress;
