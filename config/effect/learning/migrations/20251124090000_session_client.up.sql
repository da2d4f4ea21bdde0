-- Which app and device a session ran on; its keys change with every release of the apps, hence a document.
ALTER TABLE learning_sessions
  ADD COLUMN client jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT learning_sessions_client_is_object CHECK (jsonb_typeof(client) = 'object');

COMMENT ON COLUMN learning_sessions.client IS 'app, device and version, as the client told';

CREATE INDEX learning_sessions_by_client ON learning_sessions USING gin (client jsonb_path_ops);
