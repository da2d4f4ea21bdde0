//! Backups that come by themselves: what is put in place, what it runs, and that nobody misses one that failed.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Checkout, is_running, programs, ran, signal, skip, wait_until};

/// A checkout in a folder whose name has everything that a shell or systemd reads otherwise, with a systemd that notes what it
/// is told.
fn checkout() -> Checkout {
    let mut checkout = Checkout::named("it's 日本 100% \"x\" $HOME");
    let folder = programs(&checkout, &[("systemctl", "echo \"$@\" >> \"$HOME/systemctl.log\"")]);
    checkout.environment.insert("PATH".into(), format!("{folder}:{}", std::env::var("PATH").unwrap()));
    checkout.environment.insert("HOME".into(), checkout.beside("home").display().to_string());
    checkout.environment.insert("XDG_CONFIG_HOME".into(), String::new());
    fs::create_dir(checkout.beside("home")).unwrap();
    checkout
}

fn without_systemd(checkout: &mut Checkout) {
    let folder = programs(checkout, &[("systemctl", "echo 'Failed to connect to bus' >&2; exit 1")]);
    checkout.environment.insert("PATH".into(), format!("{folder}:{}", std::env::var("PATH").unwrap()));
}

fn set(checkout: &Checkout, file: &str, key: &str, value: Value) {
    let path = checkout.root.join(".xtask/effect").join(file);
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state[key] = value;
    fs::write(path, state.to_string()).unwrap();
}

#[test]
fn a_timer_of_systemd_is_put_in_place_and_removed() {
    let checkout = checkout();
    checkout.run(&["backup", "schedule", "--daily", "03:05", "--prune"]).ok().says("a backup every day at 03:05");
    let units = checkout.beside("home").join(".config/systemd/user");
    let files = || fs::read_dir(&units).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 2);
    let log = fs::read_to_string(checkout.beside("home").join("systemctl.log")).unwrap();
    assert!(log.contains("--user daemon-reload\n--user enable --now xtask-backup-effect-"), "{log}");
    if which::which("systemd-analyze").is_ok() {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--user", "--man=no"]).args(files()).env("XDG_RUNTIME_DIR", checkout.beside("home"));
        let said = ran(verify);
        assert!(!said.err.contains("xtask-backup"), "{}", said.err);
    } else {
        skip("there is no `systemd-analyze`");
    }
    checkout.run(&["backup", "schedule", "--show"]).ok().says("every day at 03:05").says("still to come");
    checkout.run(&["status"]).exits(3).says("the first is still to come");
    checkout.run(&["backup", "schedule", "--daily", "04:00"]).ok();
    assert_eq!(files().len(), 2, "the same timer, at another time");
    checkout.run(&["backup", "schedule", "--remove"]).ok().says("any more");
    assert!(files().is_empty());
    checkout.run(&["backup", "schedule", "--show"]).ok().says("no backup of effect is scheduled");
    checkout.run(&["backup", "schedule", "--remove"]).ok();
    checkout.run(&["backup", "scheduled"]).exits(2).says("no backup of effect is scheduled");
    checkout.run(&["backup", "schedule"]).exits(2);
    checkout.run(&["backup", "schedule", "--daily", "25:00"]).exits(2).says("a time of day");
    checkout.run(&["backup", "schedule", "--daily", "03:00", "lerning"]).exits(2).says("did you mean `learning`?");
}

/// What runs is kept and read back; what should run and does not is told of until it does.
#[test]
fn a_database_that_does_not_run_makes_the_night_a_failed_one() {
    let checkout = checkout();
    checkout.run(&["up", "learning", "user", "redis"]).ok();
    checkout.run(&["backup", "schedule", "--daily", "03:05", "--prune"]).ok();
    // The other databases of the stack were never started here.
    checkout.run(&["backup", "scheduled"]).ok().says("3 backups read back, and as written");
    checkout.run(&["backup", "list"]).ok().says("verified").silent_about("not verified");
    let state = || checkout.run(&["status", "--json"]).json()["scheduled_backup"].clone();
    assert_eq!(state()["state"], "done");
    signal(checkout.pid("user"), "KILL");
    let server = checkout.pid("user");
    wait_until("its server is gone", || !is_running(server));
    checkout
        .run(&["backup", "scheduled"])
        .exits(1)
        .says("not running, and so not backed up: user")
        .says("xtask up user");
    let listed = checkout.run(&["backup", "list", "--json"]).ok().json();
    let of = |name: &str| listed["backups"].as_array().unwrap().iter().filter(|one| one["name"] == name).count();
    assert_eq!((of("learning"), of("redis"), of("user")), (2, 2, 1), "what runs is backed up all the same");
    assert_eq!(state()["state"], "failed");
    checkout.run(&["doctor"]).exits(3).says("scheduled-backup-failed").says("not backed up: user");
    checkout.run(&["up", "user"]).ok();
    checkout.run(&["backup", "scheduled"]).ok();
    assert_eq!(state()["state"], "done");
}

/// The line does what it says when it is run as cron runs it, from a place whose name could not be worse.
#[test]
fn a_line_of_cron_runs_as_it_is() {
    let mut checkout = checkout();
    without_systemd(&mut checkout);
    checkout.run(&["up", "redis"]).ok();
    let to = checkout.beside("other place %");
    let place = to.display().to_string();
    let given = checkout.run(&["backup", "schedule", "--daily", "03:05", "redis", "--prune", "--to", &place]).ok();
    assert!(given.err.contains("does not answer: add this line with `crontab -e`"), "{}", given.err);
    let line = given.out.trim().strip_prefix("5 3 * * * ").unwrap().replace("\\%", "%");
    let as_cron = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).env_clear().env("HOME", checkout.beside("home")).env("XTASK_ENGINE", "native");
        shell.current_dir("/");
        ran(shell)
    };
    assert_eq!(as_cron().code, Some(0), "{line}");
    assert_eq!(fs::read_dir(to.join("effect/redis")).unwrap().count(), 1);
    checkout.run(&["backup", "schedule", "--show"]).ok().says("done").says("its log").says("redis");
    let status = checkout.run(&["status", "--json"]).exits(3).json();
    assert_eq!(status["scheduled_backup"]["state"], "done");
    checkout.run(&["doctor", "--json"]).says("\"scheduled-backup\"");
    use std::os::unix::fs::PermissionsExt;
    for file in ["backup-schedule.json", "backup-schedule-last.json", "backup-schedule.log"] {
        let mode = fs::metadata(checkout.root.join(".xtask/effect").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }

    // One that failed is told of everywhere, and so is one that did not come.
    checkout.run(&["stop"]).ok();
    assert_eq!(as_cron().code, Some(1));
    checkout.run(&["status"]).exits(3).says("scheduled backup: failed").says("not running: redis");
    checkout.run(&["doctor"]).exits(3).says("scheduled-backup-failed").says("not running: redis");
    checkout.run(&["backup", "schedule", "--show"]).ok().says("error: not running: redis");
    set(&checkout, "backup-schedule-last.json", "started", json!("2026-01-01T03:00:00Z"));
    set(&checkout, "backup-schedule.json", "since", json!("2026-01-01T00:00:00Z"));
    // Whatever the clock says here, three hours ago it was due.
    let due = jiff::Zoned::now().saturating_sub(jiff::Span::new().hours(3));
    set(&checkout, "backup-schedule.json", "daily", json!(due.strftime("%H:%M:00").to_string()));
    checkout.run(&["status"]).exits(3).says("scheduled backup: did not run");
    checkout.run(&["doctor"]).exits(3).says("scheduled-backup-overdue");
    checkout.run(&["backup", "schedule", "--remove"]).ok().says("take its line away as well");
}
