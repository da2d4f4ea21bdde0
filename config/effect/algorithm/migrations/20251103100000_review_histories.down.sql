DROP TABLE review_histories;
DROP FUNCTION refuse_change_of_history();
