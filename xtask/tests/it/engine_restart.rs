//! A Docker engine that really stops, starts and is killed while the helper works: an engine of the test's own, with its own
//! socket, data and networks. The machine's engine, which others use, only lends its images.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Checkout, Engine, finish, is_root, ran, signal, skip};

/// How long an engine may take to answer or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of an engine's log a failed test shows.
const LOG_LINES: usize = 40;

/// A Docker engine of its own. Dropped, it is gone with everything it held.
struct PrivateEngine {
    folder: PathBuf,
    /// How the addresses of its networks begin: engines do not know each other's.
    addresses: String,
    process: Option<Child>,
}

impl PrivateEngine {
    /// With the images of that checkout's settings; nothing where there can be none.
    fn with_images_of(checkout: &Checkout) -> Option<PrivateEngine> {
        if !is_root() || which::which("dockerd").is_err() {
            skip("a Docker engine of its own needs root and `dockerd`");
            return None;
        }
        // Its sockets lie in it: the name is short.
        let folder = tempfile::Builder::new().prefix("xtask-engine-").tempdir_in("/tmp").unwrap().keep();
        let mut engine = PrivateEngine { folder, addresses: free_addresses(), process: None };
        engine.start();
        let images: Vec<&String> =
            ["POSTGRES_IMAGE", "REDIS_IMAGE"].iter().map(|name| &checkout.environment[*name]).collect();
        let mut saving = Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn().unwrap();
        let loaded = engine.docker(&["load"]).stdin(saving.stdout.take().unwrap()).output().unwrap();
        assert!(loaded.status.success() && saving.wait().unwrap().success(), "{loaded:?}");
        Some(engine)
    }

    fn host(&self) -> String {
        format!("unix://{}/engine.sock", self.folder.display())
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]).args(arguments);
        command
    }

    /// Leaves the packet filter to the machine's engine: ports of loopback are forwarded by a process each.
    fn start(&mut self) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let log = fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--host", &self.host(), "--data-root", &path("data"), "--exec-root", &path("exec")]);
        let pool = format!("base={}0.0/16,size=24", self.addresses);
        command.args(["--pidfile", &path("pid"), "--bridge", "none", "--default-address-pool", &pool]);
        command.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]);
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while ran(self.docker(&["version"])).code != Some(0) {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            assert!(process.try_wait().unwrap().is_none() && Instant::now() < deadline, "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
    }

    /// Ends it by a signal, and waits until it has ended. One that does not is killed in the end, as a service manager would.
    fn end(&mut self, name: &str) {
        let mut process = self.process.take().unwrap();
        let pid = i32::try_from(process.id()).unwrap();
        signal(pid, name);
        let mut deadline = Some(Instant::now() + PATIENCE / 2);
        while process.try_wait().unwrap().is_none() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                deadline = None;
                signal(pid, "KILL");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if self.process.is_none() {
            // What a killed engine left running, only an engine can end.
            self.start();
        }
        let running = ran(self.docker(&["ps", "--quiet"])).out;
        let ids: Vec<&str> = running.lines().collect();
        if !ids.is_empty() {
            ran(self.docker(&[&["kill"][..], &ids].concat()));
        }
        self.end("TERM");
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the engine's log ends:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let folder = format!("{}/", self.folder.display());
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&folder))
        {
            let _said_by_rm = Command::new("umount").arg("--lazy").arg(mount).status();
        }
        // An engine that was killed does not know all of its networks any more.
        for (device, _) in devices().iter().filter(|(_, address)| address.starts_with(&self.addresses)) {
            let deleted = Command::new("ip").args(["link", "delete", device]).status();
            assert!(deleted.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
        let removed = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.folder).status();
        assert!(removed.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// The machine's network devices with their addresses; none where there is no `ip`.
fn devices() -> Vec<(String, String)> {
    let Ok(listed) = Command::new("ip").args(["-4", "-oneline", "address"]).output() else { return Vec::new() };
    let listed = String::from_utf8_lossy(&listed.stdout);
    let device = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    listed.lines().filter_map(device).collect()
}

/// As `10.231.`, which nobody on this machine uses, or is about to.
fn free_addresses() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let taken = devices();
    let mut all = (0..20).map(|_| {
        let number = std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed);
        format!("10.{}.", 231 + number % 20)
    });
    all.find(|begin| taken.iter().all(|(_, address)| !address.starts_with(begin))).expect("one of 20 is free")
}

/// Engine and checkout; the checkout is dropped first, while its engine is still there.
fn on_a_private_engine() -> Option<(Checkout, PrivateEngine)> {
    let mut checkout = Checkout::on(Engine::Docker)?;
    let engine = PrivateEngine::with_images_of(&checkout)?;
    checkout.environment.insert("DOCKER_HOST".into(), engine.host());
    Some((checkout, engine))
}

fn state(checkout: &Checkout, service: &str) -> String {
    let status = checkout.run(&["status", "--json"]).json();
    let lines = status["services"].as_array().unwrap().clone();
    lines.iter().find(|line| line["name"] == service).unwrap()["state"].as_str().unwrap().to_owned()
}

#[test]
fn an_engine_that_is_restarted_keeps_all_data() {
    let Some((checkout, mut engine)) = on_a_private_engine() else { return };
    checkout.run(&["up", "learning", "redis"]).ok().says("2 services ready");
    checkout.run(&["psql", "learning", "-qc", "CREATE TABLE kept AS SELECT 7 AS id"]).ok();
    checkout.run(&["redis-cli", "SET", "kept", "8"]).ok();
    for signal in ["TERM", "KILL"] {
        engine.end(signal);
        checkout.run(&["status"]).exits(1).says("no Docker engine answers");
        checkout.run(&["up", "learning", "redis"]).exits(1).says("no Docker engine answers").says("start Docker");
        checkout.run(&["up", "learning", "redis", "--engine", "native"]).exits(4);
        checkout.run(&["doctor"]).exits(3).says("engine-gone");
        engine.start();
        assert_ne!(state(&checkout, "learning"), "ready", "after {signal}");
        checkout.run(&["up", "learning", "redis"]).ok().says("2 services ready");
        assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7", "after {signal}");
        assert_eq!(
            checkout.run(&["redis-cli", "GET", "kept"]).ok().out.trim().trim_matches('"'),
            "8",
            "after {signal}"
        );
    }
    drop(checkout);
    drop(engine);
}

/// A killed engine may leave the process that forwards a port, or take a port for given away: both are told apart from other
/// holders, and what the hint says works.
fn up_again(checkout: &Checkout, engine: &mut PrivateEngine) {
    for _ in 0..4 {
        let up = checkout.run(&["up", "learning", "user", "redis"]);
        let lines = up.err.lines().filter(|line| line.contains("of no container: an engine that was killed left it"));
        let ends = lines.filter_map(|line| line.split('`').nth(1)?.strip_prefix("kill ")?.parse().ok());
        let leftovers: Vec<i32> = ends.collect();
        if up.err.contains("as given away, and nobody listens on it") {
            up.exits(1).says("restart Docker");
            engine.end("TERM");
            engine.start();
        } else if leftovers.is_empty() {
            up.ok();
            return;
        }
        leftovers.into_iter().for_each(|pid| signal(pid, "TERM"));
    }
    panic!("what the hints say does not help");
}

#[test]
fn an_engine_that_dies_during_up_leaves_nothing_half_made() {
    let Some((checkout, mut engine)) = on_a_private_engine() else { return };
    checkout.run(&["up", "redis"]).ok();
    for (millis, signal) in [(250, "KILL"), (700, "TERM"), (1200, "KILL"), (2000, "KILL")] {
        let up = checkout.spawn(&["up", "learning", "user", "redis"]);
        std::thread::sleep(Duration::from_millis(millis));
        engine.end(signal);
        let up = finish(up);
        assert!(matches!(up.code, Some(0 | 1)) && !up.err.contains("panicked"), "{up:?}");
        engine.start();
        up_again(&checkout, &mut engine);
        for database in ["learning", "user"] {
            assert_eq!(checkout.sql(database, "SELECT current_database()"), format!("{database}_db"));
        }
        checkout.run(&["down", "--volumes", "--yes"]).ok();
    }
    drop(checkout);
    drop(engine);
}

/// Whether a template is whole is said on the engine that has it: another engine's, or another user's cache, change nothing.
#[test]
fn every_engine_has_its_own_template_and_everybody_uses_it() {
    let Some((mut checkout, engine)) = on_a_private_engine() else { return };
    let made = || {
        let listed =
            ran(engine.docker(&["volume", "ls", "--quiet", "--filter", "label=cargo-xtask.template"])).ok().out;
        let names: Vec<&str> = listed.lines().collect();
        assert_eq!(names.len(), 2, "{listed}");
        ran(engine.docker(&[&["volume", "inspect", "--format", "{{.Name}} {{.CreatedAt}}"][..], &names].concat()))
            .ok()
            .out
    };
    checkout.run(&["up", "learning"]).ok();
    let before = made();
    // Long enough for a volume made anew to be younger.
    std::thread::sleep(Duration::from_millis(1100));
    checkout.run(&["down", "--volumes", "--yes"]).ok();
    checkout.environment.insert("XTASK_CACHE_DIR".into(), checkout.beside("cache").display().to_string());
    checkout.run(&["up", "learning"]).ok().says("new");
    assert_eq!(made(), before);

    // One that a killed run left without its mark is made anew.
    checkout.run(&["down", "--volumes", "--yes"]).ok();
    let mark = before.lines().find_map(|line| line.split(' ').next().filter(|name| name.ends_with("-whole"))).unwrap();
    ran(engine.docker(&["volume", "rm", mark])).ok();
    checkout.run(&["up", "learning"]).ok().says("new");
    assert_ne!(made(), before);
    drop(checkout);
    drop(engine);
}
