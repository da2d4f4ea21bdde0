ALTER TABLE users
  ADD COLUMN settings jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT users_settings_is_object CHECK (jsonb_typeof(settings) = 'object');

-- Reminders are sent by time zone, so this one setting is also a column with an index.
ALTER TABLE users
  ADD COLUMN time_zone text GENERATED ALWAYS AS (coalesce(settings ->> 'timeZone', 'Asia/Tokyo')) STORED;

COMMENT ON COLUMN users.settings IS 'what the user chose in the app: timeZone, theme, dailyGoal, notifications';
COMMENT ON COLUMN users.time_zone IS 'timeZone of the settings, Asia/Tokyo when there is none';

CREATE INDEX users_by_time_zone ON users (time_zone);
CREATE INDEX users_by_settings ON users USING gin (settings jsonb_path_ops);
