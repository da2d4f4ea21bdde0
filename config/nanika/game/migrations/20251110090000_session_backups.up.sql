-- Sessions live in Redis; this copy lets players stay signed in when Redis lost its data.
CREATE TABLE session_backups (
  sid text PRIMARY KEY CHECK (sid <> ''),
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  data jsonb NOT NULL CHECK (data ? 'cookie'),
  saved_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  CHECK (expires_at > saved_at)
);

COMMENT ON TABLE session_backups IS 'copies of the sessions in Redis';
COMMENT ON COLUMN session_backups.sid IS 'the id in the cookie, without its signature';

CREATE INDEX session_backups_by_user ON session_backups (user_id);
CREATE INDEX session_backups_by_expiry ON session_backups (expires_at);
CREATE INDEX session_backups_by_data ON session_backups USING gin (data jsonb_path_ops);
