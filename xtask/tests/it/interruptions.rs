//! Interrupted, killed, started twice: the next `up` works, and no server is ever without a record.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Checkout, Random, finish, is_running, pid_of, remove_under_servers, signal, wait_until};

const SERVICES: [&str; 4] = ["up", "learning", "user", "redis"];

#[test]
fn killed_at_any_moment_the_next_up_works() {
    let checkout = Checkout::new();
    let mut random = Random(7);
    for round in 0..20 {
        let moment = Duration::from_millis(random.below(500));
        let up = checkout.spawn(&SERVICES);
        std::thread::sleep(moment);
        signal(pid_of(&up), "KILL");
        finish(up);
        // A process that is on its way to become a server holds the lock until its record is written.
        let mut next = checkout.run(&SERVICES);
        if round % 3 == 0 {
            next = checkout.run(&SERVICES);
        }
        assert_eq!(next.code, Some(0), "killed after {moment:?}: {}", next.err);
        checkout.assert_all_recorded();
        assert_eq!(checkout.servers().len(), 3, "killed after {moment:?}");
        assert_eq!(checkout.sql("learning", "SELECT 1"), "1");
        match round % 3 {
            0 => checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok(),
            1 => checkout.run(&["stop"]).ok(),
            _ => checkout.run(&["stop", "user"]).ok(),
        };
    }
}

#[test]
fn interrupted_once_or_twice_nothing_is_lost() {
    let checkout = Checkout::new();
    let mut random = Random(11);
    for (round, name) in ["INT", "TERM", "HUP", "INT", "INT", "TERM", "HUP", "INT"].into_iter().enumerate() {
        let up = checkout.spawn(&SERVICES);
        std::thread::sleep(Duration::from_millis(20 + random.below(300)));
        signal(pid_of(&up), name);
        if round % 2 == 0 {
            signal(pid_of(&up), name);
        }
        let ran = finish(up);
        // A signal that comes before the helper listens ends it at once; one that comes late finds it done.
        if ran.code == Some(130) {
            assert!(ran.err.contains("interrupted; what started keeps running"), "{}", ran.err);
        }
        checkout.run(&["status", "--json"]);
        checkout.run(&SERVICES).ok();
        checkout.assert_all_recorded();
        assert_eq!(checkout.servers().len(), 3);
        checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok();
        assert!(checkout.servers().is_empty(), "down stops everything that an interrupted up had started");
    }
}

#[test]
fn two_at_once_make_one_stack() {
    let checkout = Checkout::new();
    let (first, second) = (checkout.spawn(&SERVICES), checkout.spawn(&SERVICES));
    let (first, second) = (finish(first).ok(), finish(second).ok());
    let said = format!("{}{}", first.err, second.err);
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!(checkout.servers().len(), 3);
    checkout.assert_all_recorded();

    // Who waits is told for whom; who does not want to wait, who is at work.
    let lock = fs::File::options().read(true).write(true).open(checkout.root.join(".xtask/effect/lock")).unwrap();
    lock.lock().unwrap();
    let holder = r#"{"pid":4711,"command":"cargo xtask up learning","started":"2026-11-22T09:12:00Z"}"#;
    fs::write(checkout.root.join(".xtask/effect/lock"), holder).unwrap();
    let waiting = checkout.spawn(&SERVICES);
    let refused = checkout.run(&["up", "--no-wait", "learning"]).exits(1);
    assert!(refused.err.contains("`cargo xtask up learning` (pid 4711, since "), "{}", refused.err);
    assert!(refused.err.contains("is changing this instance"), "{}", refused.err);
    checkout.run(&["status", "--json"]).exits(3).says("\"ready\"");
    std::thread::sleep(Duration::from_millis(500));
    lock.unlock().unwrap();
    finish(waiting).ok().says("waiting for `cargo xtask up learning` (pid 4711, since ").says("unchanged");
}

#[test]
fn down_during_up_waits_and_leaves_nothing() {
    let checkout = Checkout::new();
    for delay in [30, 120, 250] {
        let up = checkout.spawn(&SERVICES);
        std::thread::sleep(Duration::from_millis(delay));
        let down = checkout.spawn(&["down"]);
        finish(up);
        finish(down).ok();
        // Whichever came first, everything that runs is recorded, and another `down` ends it.
        checkout.assert_all_recorded();
        checkout.run(&["down"]).ok();
        assert!(checkout.servers().is_empty());
    }
}

#[test]
fn a_server_that_crashed_is_seen_and_started_again() {
    let checkout = Checkout::new();
    checkout.run(&SERVICES).ok();
    checkout.sql("learning", "CREATE TABLE kept AS SELECT 1 AS id");
    checkout.run(&["redis-cli", "SET", "kept", "yes"]).ok();
    // Redis writes its append-only file to the disk every second.
    std::thread::sleep(Duration::from_millis(1300));
    let learning = checkout.pid("learning");
    for service in ["learning", "redis"] {
        let pid = checkout.pid(service);
        signal(pid, "KILL");
        wait_until("it is gone", || !is_running(pid));
    }
    let status = checkout.run(&["status"]).exits(3);
    assert!(status.out.contains("died") && status.out.contains("cargo xtask logs learning"), "{}", status.out);
    checkout.run(&["doctor"]).exits(3).says("record-stale");
    checkout.run(&SERVICES).ok();
    assert_ne!(checkout.pid("learning"), learning);
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "1");
    checkout.run(&["redis-cli", "GET", "kept"]).ok().says("yes");
    checkout.assert_all_recorded();
}

/// After a reboot the records are there, the processes are not, and their pids may be other programs'.
#[test]
fn a_recycled_pid_is_neither_trusted_nor_killed() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    let server = checkout.pid("learning");
    let record = checkout.record("learning").unwrap();
    signal(server, "KILL");
    wait_until("it is gone", || !is_running(server));
    // The servers' own user, as PostgreSQL looks only at those.
    let owner = fs::metadata(checkout.data_folder("effect").join("learning/data")).unwrap();
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("600");
    if crate::support::is_root() {
        std::os::unix::process::CommandExt::uid(&mut sleeper, std::os::unix::fs::MetadataExt::uid(&owner));
    }
    let mut sleeper = sleeper.spawn().unwrap();
    let forged = Value::Object(
        record
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| {
                let value = if key == "pid" { Value::from(sleeper.id()) } else { value.clone() };
                (key.clone(), value)
            })
            .collect(),
    );
    fs::write(checkout.record_path("learning"), forged.to_string()).unwrap();
    let lock = checkout.data_folder("effect").join("learning/data/postmaster.pid");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, text.replacen(&server.to_string(), &sleeper.id().to_string(), 1)).unwrap();
    checkout.run(&["status"]).exits(3).says("died");
    checkout.run(&["up", "learning"]).ok();
    assert!(sleeper.try_wait().unwrap().is_none(), "the other program lives");

    // The same pid, another boot.
    checkout.run(&["stop"]).ok();
    let mut other_boot = forged;
    other_boot["birth"] = Value::from(format!(
        "0000-another-boot:{}",
        other_boot["birth"].as_str().unwrap().split(':').next_back().unwrap()
    ));
    fs::write(checkout.record_path("learning"), other_boot.to_string()).unwrap();
    checkout.run(&["down"]).ok();
    assert!(sleeper.try_wait().unwrap().is_none(), "the other program lives");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

/// Every process of a terminal that closes gets SIGHUP; servers are in sessions of their own.
#[test]
fn a_closed_terminal_leaves_servers_running() {
    let checkout = Checkout::new();
    let mut terminal = std::process::Command::new("script");
    let helper = format!("'{}' up learning redis; sleep 600", env!("CARGO_BIN_EXE_xtask"));
    terminal.args(["-qec", &helper, "/dev/null"]).current_dir(&checkout.root).envs(&checkout.environment);
    terminal.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut terminal = terminal.spawn().unwrap();
    wait_until("both are recorded", || {
        checkout.recorded().len() == 2 && checkout.run(&["psql", "learning", "-c", "SELECT 1"]).code == Some(0)
    });
    signal(i32::try_from(terminal.id()).unwrap(), "KILL");
    terminal.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(checkout.servers().len(), 2);
    checkout.run(&["up", "learning", "redis"]).ok().says("unchanged");
}

#[test]
fn another_tmpdir_finds_the_same_servers() {
    let mut checkout = Checkout::named(&"a-long-name-for-the-socket-".repeat(5));
    checkout.run(&["up", "learning"]).ok();
    let sockets = checkout.record("learning").unwrap()["sockets"].as_str().unwrap().to_owned();
    assert!(sockets.starts_with("/tmp/xtask-"), "{sockets}");
    let other = checkout.beside("other-tmp");
    fs::create_dir(&other).unwrap();
    checkout.environment.insert("TMPDIR".into(), other.display().to_string());
    checkout.run(&["up", "learning"]).ok().says("unchanged");
    checkout.run(&["status", "--json"]).exits(3).says("\"ready\"");
    checkout.run(&["down"]).ok();
    assert!(checkout.servers().is_empty() && !fs::exists(&sockets).unwrap());

    // Somebody else's folder of that name is not used.
    fs::create_dir(&sockets).unwrap();
    std::os::unix::fs::chown(
        &sockets,
        Some(if crate::support::is_root() { 1 } else { rustix::process::geteuid().as_raw() }),
        None,
    )
    .unwrap();
    if crate::support::is_root() {
        checkout.run(&["up", "learning"]).exits(4).says("is not a folder of user");
    }
    fs::remove_dir(&sockets).unwrap();
    checkout.run(&["up", "learning"]).ok();
}

#[test]
fn a_server_that_does_not_start_shows_why() {
    let checkout = Checkout::new();
    checkout.append("docker/postgres/effect.conf", "shared_bufers = 1GB\n");
    let ran = checkout.run(&["up", "learning", "redis"]).exits(1);
    assert!(ran.err.contains("`learning` ended while it started"), "{}", ran.err);
    assert!(ran.err.contains("unrecognized configuration parameter \"shared_bufers\""), "{}", ran.err);
    assert!(ran.err.contains("cargo xtask logs learning"), "{}", ran.err);
    checkout.run(&["redis-cli", "PING"]).ok();
    checkout.replace("docker/postgres/effect.conf", "shared_bufers = 1GB\n", "");
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.assert_all_recorded();
}

#[test]
fn a_server_that_hangs_hangs_nobody_else() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    let pid = checkout.pid("learning");
    signal(pid, "STOP");
    let begun = std::time::Instant::now();
    checkout.run(&["up", "learning", "redis", "--timeout-secs", "2"]).exits(1).says("no answer within 2 s");
    checkout.run(&["status"]).exits(3).says("not ready");
    checkout.run(&["down", "--volumes"]).exits(4);
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    signal(pid, "CONT");
    checkout.run(&["up", "learning", "redis"]).ok().says("unchanged");
}

#[test]
fn a_folder_or_record_that_is_gone_or_broken_keeps_no_server_from_being_stopped() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    let redis = checkout.pid("redis");
    remove_under_servers(&checkout.data_folder("effect").join("redis"));
    checkout.run(&["doctor"]).exits(3).says("folder-gone");
    checkout.run(&["stop", "redis"]).ok().says("1 service stopped");
    assert!(!is_running(redis));
    checkout.run(&["up", "learning", "redis"]).ok();
    // The registry's copy stands in for a record that was cut off.
    fs::write(checkout.record_path("redis"), "").unwrap();
    checkout.run(&["status", "--json"]).exits(3).says("\"ready\"");
    let redis = checkout.servers();
    checkout.run(&["down"]).ok().says("2 services stopped");
    assert!(redis.iter().all(|pid| !is_running(*pid)));
    // Without the copy, the one service is a finding, and the others are served.
    checkout.run(&["up", "learning"]).ok();
    fs::create_dir_all(checkout.data_folder("effect").join("redis")).unwrap();
    fs::write(checkout.record_path("redis"), "{}").unwrap();
    checkout.run(&["status"]).exits(3).says("ready").says("cannot be read");
    checkout.run(&["doctor"]).exits(3).says("record-unreadable").says("rm -r");
    fs::remove_file(checkout.record_path("redis")).unwrap();
    checkout.run(&["up", "learning", "redis"]).ok();
}

#[test]
fn what_somebody_removed_behind_our_back_is_made_again_or_named() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    // The database.
    let port = checkout.port("POSTGRES_LEARNING_PORT").to_string();
    let psql = checkout.record("learning").unwrap()["program"].as_str().unwrap().replace("/bin/postgres", "/bin/psql");
    let mut drop_database = std::process::Command::new(psql);
    drop_database.args(["-h", "127.0.0.1", "-p", &port, "-U", "effect", "postgres", "-c", "DROP DATABASE learning_db"]);
    drop_database.env("PGPASSWORD", "effect_password");
    crate::support::ran(drop_database).ok();
    checkout.run(&["up", "learning", "redis"]).ok().says("database created");
    assert_eq!(checkout.sql("learning", "SELECT 1"), "1");
    // The sockets, as cleaners of temporary files do.
    let (learning, sockets) =
        (checkout.pid("learning"), checkout.record("learning").unwrap()["sockets"].as_str().unwrap().to_owned());
    fs::remove_dir_all(&sockets).unwrap();
    checkout.run(&["doctor"]).exits(3).says("sockets-gone");
    checkout.run(&["up", "learning", "redis"]).ok().says("its socket folder is gone");
    assert_ne!(checkout.pid("learning"), learning);
    assert_eq!(checkout.sql("learning", "SELECT 1"), "1");
    // All state: the servers are still found, by the copy that is kept for looking up.
    let pids = checkout.recorded();
    remove_under_servers(&checkout.root.join(".xtask"));
    // PostgreSQL looks once a minute whether its folder is there, and may have ended by now.
    let ran = checkout.run(&["up", "learning", "redis"]).exits(1).says(" of 2 ports ");
    assert!(ran.err.contains("whose state is gone: `cargo xtask doctor --fix` stops it"), "{}", ran.err);
    checkout.run(&["doctor", "--fix"]).says("stopped ");
    assert!(pids.iter().all(|pid| !is_running(*pid)));
    checkout.run(&["up", "learning", "redis"]).ok();
}
