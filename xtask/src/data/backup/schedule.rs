//! Backups that nobody has to think of: what was scheduled, how its last run went, and the text of what starts it. The files of
//! systemd and launchd and the line of cron are made here, from one [`Job`]; putting them in their places is for others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::files;

const SCHEDULE: &str = "backup-schedule.json";
const OUTCOME: &str = "backup-schedule-last.json";
const LOG: &str = "backup-schedule.log";
/// A machine that was asleep catches up when it wakes; only then is a run late.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// A run that takes longer has ended without a word.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// What is done every day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The local time of day.
    pub daily: Time,
    /// What is backed up; all of the instance where there are none.
    pub names: Vec<String>,
    /// The place, from the root of the file system, where it is not the checkout's.
    pub to: Option<PathBuf>,
    pub incremental: bool,
    pub recipients: Vec<String>,
    /// Whether those go that the manifest's rules do not keep.
    pub prune: bool,
    pub starter: Starter,
    pub since: Timestamp,
}

/// Who starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Starter {
    Systemd,
    Launchd,
    /// By a line that a person was given.
    Cron,
}

/// How the last run went, or that it is still going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub error: Option<String>,
}

/// How it stands with the scheduled backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Standing {
    /// The first run is still to come.
    Waiting,
    Running {
        since: Timestamp,
    },
    Done {
        at: Timestamp,
    },
    Failed {
        at: Timestamp,
        error: String,
    },
    /// It should have begun at that time.
    Overdue {
        due: Timestamp,
    },
}

impl Schedule {
    /// In the folder of the stack's state.
    pub fn read(state: &Path) -> Result<Option<Schedule>> {
        files::read_json(&state.join(SCHEDULE))
    }

    pub fn write(&self, state: &Path) -> Result<()> {
        files::create_folder(state)?;
        files::write_json(&state.join(SCHEDULE), self)
    }

    pub fn remove(state: &Path) -> Result<()> {
        files::remove_if_present(&state.join(SCHEDULE))?;
        files::remove_if_present(&state.join(OUTCOME))
    }

    pub fn standing(&self, outcome: Option<&Outcome>, now: Timestamp, zone: &TimeZone) -> Standing {
        let due = self.last_due(now, zone);
        let began = outcome.map_or(self.since, |outcome| outcome.started.max(self.since));
        let age = |time: Timestamp| Duration::try_from(now.duration_since(time)).unwrap_or_default();
        match outcome {
            Some(Outcome { started, ended: None, .. }) if age(*started) < LONGEST => {
                Standing::Running { since: *started }
            }
            _ if began < due && age(due) > GRACE => Standing::Overdue { due },
            Some(Outcome { started, ended: None, .. }) => {
                Standing::Failed { at: *started, error: "it ended without a word".to_owned() }
            }
            Some(Outcome { ended: Some(at), error: Some(error), .. }) => {
                Standing::Failed { at: *at, error: error.clone() }
            }
            Some(Outcome { ended: Some(at), error: None, .. }) => Standing::Done { at: *at },
            None => Standing::Waiting,
        }
    }

    fn last_due(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let today = now.to_zoned(zone.clone()).date();
        let on = |day: jiff::civil::Date| day.to_datetime(self.daily).to_zoned(zone.clone()).map(|due| due.timestamp());
        match on(today) {
            Ok(due) if due <= now => due,
            _ => on(today.saturating_sub(1.day())).unwrap_or(Timestamp::MIN),
        }
    }
}

impl Outcome {
    pub fn read(state: &Path) -> Result<Option<Outcome>> {
        files::read_json(&state.join(OUTCOME))
    }

    pub fn write(&self, state: &Path) -> Result<()> {
        files::write_json(&state.join(OUTCOME), self)
    }
}

/// What the last run wrote.
pub fn log(state: &Path) -> PathBuf {
    state.join(LOG)
}

/// What a starter has to know.
#[derive(Debug, Clone)]
pub struct Job {
    pub stack: String,
    /// The checkout.
    pub root: PathBuf,
    /// The helper.
    pub program: PathBuf,
    pub log: PathBuf,
    /// Of the shell that scheduled it, what leads to programs and configuration.
    pub environment: Vec<(String, String)>,
    pub daily: Time,
}

impl Job {
    /// The same for one stack of one checkout, and another for every other.
    pub fn label(&self) -> String {
        let root = self.root.to_string_lossy();
        format!("xtask-backup-{}-{}", self.stack, files::short_hash([root.as_ref(), &self.stack]))
    }

    fn words(&self) -> Vec<String> {
        let program = self.program.display().to_string();
        [&program, "--stack", &self.stack, "backup", "scheduled"].map(str::to_owned).to_vec()
    }

    /// For `~/.config/systemd/user`.
    pub fn systemd_service(&self) -> String {
        let environment = self.environment.iter();
        let environment: String =
            environment.map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}")))).collect();
        let words: Vec<String> = self.words().iter().map(|word| quoted(word).replace('$', "$$")).collect();
        format!(
            "[Unit]\nDescription=Backup of {} in {}\n\n[Service]\nType=oneshot\nUMask=0077\n\
             WorkingDirectory={}\n{environment}ExecStart={}\nStandardOutput=truncate:{}\nStandardError=inherit\n",
            self.stack,
            unit_text(&self.root),
            unit_text(&self.root),
            words.join(" "),
            unit_text(&self.log),
        )
    }

    pub fn systemd_timer(&self) -> String {
        format!(
            "[Unit]\nDescription=Daily backup of {} in {}\n\n[Timer]\nOnCalendar=*-*-* {}\nPersistent=true\n\n\
             [Install]\nWantedBy=timers.target\n",
            self.stack,
            unit_text(&self.root),
            self.daily.strftime("%H:%M:00"),
        )
    }

    /// For `~/Library/LaunchAgents`.
    pub fn launch_agent(&self) -> String {
        let string = |text: &str| format!("<string>{}</string>", xml(text));
        let words: String = self.words().iter().map(|word| format!("    {}\n", string(word))).collect();
        let environment = self.environment.iter();
        let environment: String =
            environment.map(|(name, value)| format!("    <key>{}</key>{}\n", xml(name), string(value))).collect();
        let log = string(&self.log.display().to_string());
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n<dict>\n  <key>Label</key>{}\n  \
             <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n  <key>WorkingDirectory</key>{}\n  \
             <key>EnvironmentVariables</key>\n  <dict>\n{environment}  </dict>\n  <key>StartCalendarInterval</key>\n  \
             <dict><key>Hour</key><integer>{}</integer><key>Minute</key><integer>{}</integer></dict>\n  \
             <key>StandardOutPath</key>{log}\n  <key>StandardErrorPath</key>{log}\n  \
             <key>Umask</key><integer>63</integer>\n</dict>\n</plist>\n",
            string(&self.label()),
            string(&self.root.display().to_string()),
            self.daily.hour(),
            self.daily.minute(),
        )
    }

    /// For `crontab -e`, where a `%` stands for the end of the line unless it is escaped.
    pub fn cron_line(&self) -> String {
        let environment: Vec<String> =
            self.environment.iter().map(|(name, value)| format!("{name}={}", shell(value))).collect();
        let words: Vec<String> = self.words().iter().map(|word| shell(word)).collect();
        let command = format!(
            "cd {} && umask 077 && {} {} > {} 2>&1",
            shell(&self.root.display().to_string()),
            environment.join(" "),
            words.join(" "),
            shell(&self.log.display().to_string()),
        );
        format!("{} {} * * * {}", self.daily.minute(), self.daily.hour(), command.replace('%', "\\%"))
    }
}

/// A path where systemd takes the rest of the line.
fn unit_text(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

/// A word as systemd quotes it.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// `03:00`.
pub fn time_of_day(text: &str) -> Result<Time, String> {
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        let is_plain = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let (hour, minute) = (is_plain(hour).then_some(hour)?, is_plain(minute).then_some(minute)?);
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    });
    parsed.ok_or_else(|| "a time of day is hours and minutes: 03:00".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            stack: "effect".into(),
            root: "/home/a b/日本 100% \"x\" $HOME it's".into(),
            program: "/home/a b/target/debug/xtask".into(),
            log: "/home/a b/log".into(),
            environment: vec![("PATH".into(), "/usr/bin:/opt/\\x".into())],
            daily: time_of_day("03:05").unwrap(),
        }
    }

    #[test]
    fn whatever_a_path_has_in_it_arrives_where_it_should() {
        let service = job().systemd_service();
        assert!(service.contains("WorkingDirectory=/home/a b/日本 100%% \"x\" $HOME it's\n"), "{service}");
        assert!(service.contains("ExecStart=\"/home/a b/target/debug/xtask\" \"--stack\" \"effect\""), "{service}");
        assert!(service.contains("Environment=\"PATH=/usr/bin:/opt/\\\\x\"\n"), "{service}");
        let strange = Job { program: "/a \"b\" $c %d \\e".into(), ..job() };
        assert!(strange.systemd_service().contains(r#"ExecStart="/a \"b\" $$c %%d \\e" "#));
        assert!(job().systemd_timer().contains("OnCalendar=*-*-* 03:05:00\n"));
        assert!(job().launch_agent().contains("<key>Hour</key><integer>3</integer>"));
        let cron = job().cron_line();
        assert!(cron.starts_with("5 3 * * * cd '/home/a b/日本 100\\% \"x\" $HOME it'\\''s' && "), "{cron}");
        assert_ne!(job().label(), Job { root: "/else".into(), ..job() }.label());
    }

    #[test]
    fn a_time_of_day_is_one() {
        assert_eq!(time_of_day("3:07").unwrap(), jiff::civil::time(3, 7, 0, 0));
        for bad in ["", "3", "24:00", "12:60", "+1:00", "aa:00", "03:00:00", " 03:00"] {
            assert!(time_of_day(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_that_did_not_come_is_overdue_and_one_that_failed_failed() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let schedule = Schedule {
            daily: time_of_day("03:00").unwrap(),
            names: vec![],
            to: None,
            incremental: false,
            recipients: vec![],
            prune: false,
            starter: Starter::Systemd,
            since: at("2026-11-20T12:00:00Z"),
        };
        let standing = |outcome: Option<&Outcome>, now| schedule.standing(outcome, at(now), &TimeZone::UTC);
        assert_eq!(standing(None, "2026-11-21T02:00:00Z"), Standing::Waiting);
        assert_eq!(standing(None, "2026-11-21T03:30:00Z"), Standing::Waiting, "within the hour");
        let due = at("2026-11-21T03:00:00Z");
        assert_eq!(standing(None, "2026-11-21T05:00:00Z"), Standing::Overdue { due });
        let (started, ended) = (at("2026-11-21T03:00:01Z"), at("2026-11-21T03:01:00Z"));
        let done = Outcome { started, ended: Some(ended), error: None };
        assert_eq!(standing(Some(&done), "2026-11-21T05:00:00Z"), Standing::Done { at: ended });
        assert!(matches!(standing(Some(&done), "2026-11-22T05:00:00Z"), Standing::Overdue { .. }));
        let failed = Outcome { error: Some("no".into()), ..done.clone() };
        assert!(matches!(standing(Some(&failed), "2026-11-21T05:00:00Z"), Standing::Failed { .. }));
        let going = Outcome { ended: None, ..done };
        assert_eq!(standing(Some(&going), "2026-11-21T03:02:00Z"), Standing::Running { since: started });
        assert!(matches!(standing(Some(&going), "2026-11-21T23:02:00Z"), Standing::Failed { .. }), "killed");
    }
}
