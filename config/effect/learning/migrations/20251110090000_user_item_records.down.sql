DROP TABLE user_item_records;
