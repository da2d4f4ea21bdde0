DROP TABLE session_backups;
