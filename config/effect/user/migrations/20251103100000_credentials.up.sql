CREATE TABLE credentials (
  user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
  provider text NOT NULL CHECK (provider IN ('password', 'google')),
  password_hash text CHECK (password_hash LIKE '$argon2id$%'),
  subject text CHECK (subject <> ''),
  failed_attempts smallint NOT NULL DEFAULT 0 CHECK (failed_attempts >= 0),
  locked_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, provider),
  -- A password has a hash and no subject; an account elsewhere has a subject and no hash.
  CHECK ((provider = 'password') = (password_hash IS NOT NULL)),
  CHECK ((provider <> 'password') = (subject IS NOT NULL))
);

COMMENT ON TABLE credentials IS 'the ways a user may sign in, apart from the profile so that few may read them';
COMMENT ON COLUMN credentials.subject IS 'the id of the account at the provider';

CREATE UNIQUE INDEX credentials_subject ON credentials (provider, subject) WHERE subject IS NOT NULL;
CREATE INDEX credentials_locked ON credentials (locked_until) WHERE locked_until IS NOT NULL;

CREATE TRIGGER credentials_touch
  BEFORE UPDATE ON credentials
  FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
