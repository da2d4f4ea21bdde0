DROP TABLE session_answers;
