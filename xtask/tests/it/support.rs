//! A checkout for one test, and what tests ask of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for what must come: far longer than it takes on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The repository under test.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A checkout of its own. Dropping it stops its servers and removes everything.
pub struct Checkout {
    pub root: PathBuf,
    folder: tempfile::TempDir,
    /// Of the helper's process.
    pub environment: BTreeMap<String, String>,
    /// Runs the helper as somebody else than root.
    pub user: Option<(u32, u32)>,
}

/// Where a checkout's services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Native,
    Docker,
}

pub const ENGINES: [Engine; 2] = [Engine::Native, Engine::Docker];

/// One test for each engine.
macro_rules! on_both_engines {
    ($($test:ident)*) => {
        mod native {
            $(#[test] fn $test() { super::$test(crate::support::Engine::Native) })*
        }
        mod docker_engine {
            $(#[test] fn $test() { super::$test(crate::support::Engine::Docker) })*
        }
    };
}
pub(crate) use on_both_engines;

/// What one run of the helper gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(self.err.contains(text) || self.out.contains(text), "no {text:?} in\n{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn silent_about(self, text: &str) -> Ran {
        assert!(!self.err.contains(text) && !self.out.contains(text), "{text:?} in\n{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

impl Checkout {
    pub fn new() -> Checkout {
        Checkout::named("checkout")
    }

    /// A checkout whose services run on that engine; nothing where there is no Docker, or not its images.
    pub fn on(engine: Engine) -> Option<Checkout> {
        let mut checkout = Checkout::new();
        if engine == Engine::Docker && !checkout.use_docker() {
            skip_docker();
            return None;
        }
        Some(checkout)
    }

    /// From now on containers, of a project of its own. `false`: that cannot be here.
    pub fn use_docker(&mut self) -> bool {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let images =
            [("postgres-18", "POSTGRES_IMAGE"), ("redis-8", "REDIS_IMAGE"), ("google-cloud-cli", "PUBSUB_IMAGE")];
        let Some(images) = local_images(&images) else { return false };
        self.environment.extend(images);
        self.environment.insert("XTASK_ENGINE".into(), "docker".into());
        let project = format!("xtask-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.environment.insert("COMPOSE_PROJECT_NAME".into(), project);
        true
    }

    pub fn project(&self) -> &str {
        &self.environment["COMPOSE_PROJECT_NAME"]
    }

    /// The id of a service's container; empty if there is none.
    pub fn container(&self, service: &str) -> String {
        let (project, service) = (
            format!("label=com.docker.compose.project={}", self.project()),
            format!("label=com.docker.compose.service={service}"),
        );
        docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &project, "--filter", &service]).trim().to_owned()
    }

    /// A checkout in a folder of that name.
    pub fn named(name: &str) -> Checkout {
        let folder = tempfile::Builder::new().prefix("xtask-test-").tempdir_in("/tmp").unwrap();
        // Root's servers run as somebody else, who must get in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = folder.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(&root).unwrap();
        for part in ["config", "docker"] {
            copy_tree(&repository().join(part), &root.join(part));
        }
        let state = folder.path().join("state").display().to_string();
        // What a test says holds for the engine that it names, whatever else this machine has.
        let environment =
            BTreeMap::from([("XTASK_STATE_DIR".to_owned(), state), ("XTASK_ENGINE".to_owned(), "native".to_owned())]);
        let checkout = Checkout { root, folder, environment, user: None };
        checkout.move_ports("effect", ".env");
        checkout.move_ports("nanika", ".env.nanika");
        checkout
    }

    /// Free ports for all services of a stack.
    fn move_ports(&self, stack: &str, file: &str) {
        let text = fs::read_to_string(repository().join(format!("{file}.example"))).unwrap();
        let lines = text.lines().filter_map(|line| {
            let name = line.split_once('=')?.0;
            name.ends_with("_PORT").then(|| format!("{name}={}\n", free_port()))
        });
        let lines: String = lines.collect();
        assert!(!lines.is_empty(), "no ports of {stack}");
        fs::write(self.root.join(file), lines).unwrap();
    }

    /// A place beside the checkout that goes away with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).current_dir(&self.root).stdin(Stdio::null());
        for name in ["XTASK_STACK", "XTASK_OFFLINE", "XTASK_ROOT", "XTASK_SERVER_USER"] {
            command.env_remove(name);
        }
        command.env("RUST_BACKTRACE", "0").env("NO_COLOR", "1").envs(&self.environment);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    /// Starts a run and does not wait for it.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a run whose words can be read while it goes on.
    pub fn watch(&self, arguments: &[&str]) -> Watched {
        let [out, err] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        let mut command = self.command(arguments);
        command.stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
        Watched { child: command.spawn().unwrap(), out, err }
    }

    /// A session of psql that says nothing yet.
    pub fn session(&self, database: &str) -> Session {
        let mut command = self.command(&["psql", database, "-XAtq", "-v", "ON_ERROR_STOP=1"]);
        let mut psql = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Session { answers: BufReader::new(psql.stdout.take().unwrap()), psql }
    }

    /// The value of a variable in `.env`.
    pub fn setting(&self, file: &str, name: &str) -> String {
        let text = fs::read_to_string(self.root.join(file)).unwrap();
        let line = text.lines().rfind(|line| line.starts_with(&format!("{name}="))).unwrap();
        line.split_once('=').unwrap().1.to_owned()
    }

    pub fn port(&self, name: &str) -> u16 {
        self.setting(".env", name).parse().unwrap()
    }

    /// Adds a line to `.env`.
    pub fn set(&self, line: &str) {
        self.append(".env", &format!("{line}\n"));
    }

    pub fn append(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + text).unwrap();
    }

    pub fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.root.join(file);
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "no {from:?} in {file}");
        fs::write(path, before.replace(from, to)).unwrap();
    }

    /// Where the service folders are.
    pub fn data_folder(&self, stack: &str) -> PathBuf {
        let beside = self.root.join(".xtask").join(stack);
        let identity: Option<Value> =
            fs::read(beside.join("instance.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let elsewhere = identity.and_then(|identity| Some(PathBuf::from(identity["data_elsewhere"].as_str()?)));
        elsewhere.unwrap_or(beside)
    }

    pub fn record_path(&self, service: &str) -> PathBuf {
        self.data_folder("effect").join(service).join("record.json")
    }

    pub fn record(&self, service: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.record_path(service)).ok()?).ok()
    }

    pub fn pid(&self, service: &str) -> i32 {
        i32::try_from(self.record(service).unwrap()["pid"].as_i64().unwrap()).unwrap()
    }

    /// The pids of all records.
    pub fn recorded(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir(self.data_folder("effect")) else { return Vec::new() };
        let records = entries.flatten().filter_map(|entry| fs::read(entry.path().join("record.json")).ok());
        let records = records.filter_map(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        records.map(|record| i32::try_from(record["pid"].as_i64().unwrap()).unwrap()).collect()
    }

    /// The pids of all servers that work in this checkout's data, children aside.
    pub fn servers(&self) -> Vec<i32> {
        let data = self.data_folder("effect");
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let at_work: Vec<i32> = pids
            .filter(|pid| {
                let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
                folder.starts_with(&data) && !is_zombie(*pid)
            })
            .collect();
        // What has ended since, as a child does with its work, counts no more.
        let is_child = |pid: &i32| {
            let stat = stat(*pid);
            stat.get(1).is_none_or(|parent| stat[0] == "Z" || at_work.iter().any(|pid| pid.to_string() == *parent))
        };
        at_work.iter().copied().filter(|pid| !is_child(pid)).collect()
    }

    /// Every server has a record: none is lost.
    #[track_caller]
    pub fn assert_all_recorded(&self) {
        // A process between fork and exec is none yet: the lock is held for it.
        let recorded = self.recorded();
        for pid in self.servers() {
            assert!(recorded.contains(&pid), "no record of {pid}: {}", command_line(pid));
        }
    }

    /// One statement by the owner's address and login, as `cargo xtask env` prints them.
    #[track_caller]
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let ran = self.run(&["psql", database, "-XAtc", statement]).ok();
        ran.out.trim().to_owned()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in ["learning", "redis", "pubsub", "user"] {
                let log = self.data_folder("effect").join(service).join("server.log");
                let text = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(15).collect();
                eprintln!("--- {service}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
        for stack in ["effect", "nanika"] {
            if !self.root.join(".xtask").join(stack).exists() {
                continue;
            }
            let ran = self.run(&["down", "--stack", stack, "--volumes", "--yes", "--discard", "--no-backup"]);
            if ran.code != Some(0) {
                eprintln!("down of {stack}: {}", ran.err);
            }
        }
        if let Some(project) = self.environment.get("COMPOSE_PROJECT_NAME") {
            // What a test left without its checkout's state.
            let down =
                Command::new("docker").args(["compose", "--project-name", project, "down", "--volumes"]).output();
            assert!(down.is_ok_and(|down| down.status.success()) || std::thread::panicking());
            // Those that an upgrade has put aside are no part of the project.
            let of_project = format!("name=^{project}_");
            let aside = Command::new("docker").args(["volume", "ls", "--quiet", "--filter", &of_project]).output();
            for volume in aside.iter().flat_map(|aside| std::str::from_utf8(&aside.stdout)).flat_map(str::lines) {
                let removed = Command::new("docker").args(["volume", "rm", volume]).output();
                assert!(removed.is_ok_and(|removed| removed.status.success()) || std::thread::panicking());
            }
        }
        // A test may have broken the configuration: no server outlives its test.
        for pid in self.servers() {
            signal(pid, "KILL");
        }
    }
}

pub fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A run that goes on, with what it wrote so far in files.
pub struct Watched {
    pub child: Child,
    out: tempfile::NamedTempFile,
    err: tempfile::NamedTempFile,
}

impl Watched {
    fn written(&self) -> [String; 2] {
        [&self.out, &self.err].map(|file| fs::read_to_string(file).unwrap())
    }

    /// Waits until it has said that; one that ends without is a failure.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        wait_until(&format!("it says {text:?}"), || {
            let has_ended = self.child.try_wait().unwrap().is_some();
            let [out, err] = self.written();
            let is_said = out.contains(text) || err.contains(text);
            assert!(is_said || !has_ended, "ended without {text:?}\n{out}\n{err}");
            is_said
        });
    }

    pub fn finish(mut self) -> Ran {
        let code = self.child.wait().unwrap().code();
        let [out, err] = self.written();
        Ran { code, out, err }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // One that a failed test waits for no more. Mostly it has ended.
        let _ended = self.child.kill();
    }
}

/// A client that says one thing after another in one session, which ends with it.
pub struct Session {
    psql: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    /// Returns once the server has answered.
    #[track_caller]
    pub fn say(&mut self, statements: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{statements}\n\\echo answered").unwrap();
        let mut answers = self.answers.by_ref().lines().map(Result::unwrap);
        assert!(answers.any(|line| line == "answered"), "psql ended at {statements}");
    }

    #[track_caller]
    pub fn end(mut self) {
        drop(self.psql.stdin.take());
        assert!(self.psql.wait().unwrap().success());
    }
}

/// Somebody else's process that listens on ports. The test's own listeners would be also those of each child that another
/// test is about to start.
pub struct Holder(Child);

impl Holder {
    #[track_caller]
    pub fn of(addresses: &[(&str, u16)]) -> Holder {
        let script = "import socket, sys; \
            both = dict(family=socket.AF_INET6, dualstack_ipv6=True); \
            pairs = [address.rsplit(' ', 1) for address in sys.argv[1:]]; \
            held = [socket.create_server((host, int(port)), **(both if ':' in host else {})) for host, port in pairs]; \
            print('held', flush=True); sys.stdin.read()";
        let addresses = addresses.iter().map(|(host, port)| format!("{host} {port}"));
        let mut python = Command::new("python3");
        let python = python.args(["-c", script]).args(addresses).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(python.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Holder(python)
    }

    /// As it is told of who holds a port.
    pub fn pid(&self) -> String {
        format!("pid {}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A port that nothing listens on, given to one test only. Below the ports that the system hands out by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 11_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs Docker's client, which must succeed; what it wrote to stdout.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(arguments);
    ran(command).ok().out
}

/// The images of these keys as `name:tag`, if the engine has them: a digest names only what came from a registry.
pub fn local_images(keys: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    let text = fs::read_to_string(repository().join("config/images.toml")).unwrap();
    let images: toml::Table = text.parse().unwrap();
    let image = |(key, variable): &(&str, &str)| {
        let reference = format!("{}:{}", images[*key]["name"].as_str()?, images[*key]["tag"].as_str()?);
        let inspected = Command::new("docker").args(["image", "inspect", &reference]).output().ok()?;
        inspected.status.success().then(|| ((*variable).to_owned(), reference))
    };
    keys.iter().map(image).collect()
}

/// Says that a test does nothing here; a failure where Docker is required.
pub fn skip_docker() {
    assert!(
        std::env::var_os("XTASK_REQUIRE_DOCKER").is_none(),
        "XTASK_REQUIRE_DOCKER is set, and there is no Compose v2, no engine, or no images"
    );
    eprintln!("skipped: no Compose v2, no engine, or no images");
}

/// Says why a test does nothing here; a failure where everything is required.
pub fn skip(why: &str) {
    assert!(std::env::var_os("XTASK_REQUIRE_ALL").is_none(), "skipped though XTASK_REQUIRE_ALL is set: {why}");
    eprintln!("skipped: {why}");
}

pub fn has_postgres_15() -> bool {
    let on_path = which::which_all("postgres").map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let says_15 = |program: &PathBuf| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("PostgreSQL) 15."))
    };
    Path::new("/usr/lib/postgresql/15/bin/postgres").exists() || on_path.iter().any(says_15)
}

pub fn has_emulator() -> bool {
    which::which("java").is_ok() && (which::which("gcloud").is_ok() || Path::new("/usr/lib/google-cloud-sdk").exists())
}

pub fn signal(pid: i32, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status();
    assert!(done.is_ok());
}

pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The fields of `/proc/<pid>/stat` behind the name: state, parent, group, session, …
pub fn stat(pid: i32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    behind.split_whitespace().map(str::to_owned).collect()
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).first().is_none_or(|state| state == "Z")
}

pub fn is_running(pid: i32) -> bool {
    !is_zombie(pid)
}

/// A number from a seed, so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

pub fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a folder in which a server is still at work: what it makes between the listing and the removal would fail once.
#[track_caller]
pub fn remove_under_servers(folder: &Path) {
    wait_until("the folder is gone", || match fs::remove_dir_all(folder) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => false,
        Err(error) => panic!("{}: {error}", folder.display()),
    });
}

/// A folder with fake programs, to go before or instead of `PATH`.
pub fn programs(checkout: &Checkout, scripts: &[(&str, &str)]) -> String {
    let folder = checkout.beside("programs");
    fs::create_dir_all(&folder).unwrap();
    for (name, script) in scripts {
        let mut text = tempfile::tempfile().unwrap();
        write!(text, "#!/bin/bash\n{script}\n").unwrap();
        text.rewind().unwrap();
        install(text, &folder.join(name));
    }
    folder.display().to_string()
}

/// Writes a program that is run at once. By another process: what this one has open for writing is so for a moment in each
/// child that another test starts, and the system runs no program that somebody may write.
#[track_caller]
pub fn install(program: fs::File, to: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(to).stdin(program);
    ran(install).ok();
}

/// A file system of a fixed size, which only root can have. Dropped, it is gone, whoever still works on it.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    #[track_caller]
    pub fn mount(folder: &Path, size: &str) -> SmallDisk {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "small-disk"]).arg(folder);
        ran(mount).ok();
        SmallDisk { folder: folder.to_owned() }
    }

    #[track_caller]
    pub fn grow(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.folder);
        ran(mount).ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        assert!(gone.is_ok_and(|gone| gone.success()) || std::thread::panicking());
    }
}
