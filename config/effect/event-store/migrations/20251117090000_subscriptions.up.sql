CREATE TABLE subscriptions (
  name text PRIMARY KEY,
  topic text NOT NULL CHECK (topic IN (
    'vocabulary-events', 'learning-events', 'algorithm-events', 'ai-events', 'user-events', 'saga-events'
  )),
  application text NOT NULL CHECK (application <> ''),
  last_position bigint NOT NULL DEFAULT 0 CHECK (last_position >= 0),
  paused boolean NOT NULL DEFAULT false,
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (application, topic)
);

COMMENT ON TABLE subscriptions IS 'who is told about which topic, and how far it came';
COMMENT ON COLUMN subscriptions.last_position IS 'position of the last event delivered and acknowledged, 0 before the first';

-- Only these are polled for more.
CREATE INDEX subscriptions_running ON subscriptions (topic, last_position) WHERE NOT paused;

CREATE FUNCTION keep_subscription_forward() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'subscription % cannot go back from position % to %', OLD.name, OLD.last_position, NEW.last_position
    USING
      ERRCODE = 'check_violation',
      HINT = 'To replay, set last_position to 0; the subscriber must then start from nothing too.';
END
$$;

CREATE TRIGGER subscriptions_go_forward
  BEFORE UPDATE OF last_position ON subscriptions
  FOR EACH ROW WHEN (NEW.last_position < OLD.last_position AND NEW.last_position <> 0)
  EXECUTE FUNCTION keep_subscription_forward();
