DROP INDEX users_email;
CREATE UNIQUE INDEX users_email ON users (lower(email));

ALTER TABLE users DROP COLUMN deactivated_at;
