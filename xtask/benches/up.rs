//! How long `cargo xtask up` takes, against a shell script that does the same work by hand.
//!
//! `cargo bench --bench up` runs it: about a minute, on a machine that has nothing else to do. It prints goals and figures,
//! and ends with exit code 1 if a goal is missed. It starts an instance of its own, in a temporary folder and on ports of
//! its own, and removes it again, also when a step fails or on Ctrl-C. Only the toolbox is the machine user's.
//!
//! Why: people bring the stack up many times a day, and compare with what they would have typed. Starting eight databases
//! costs what PostgreSQL costs; the helper must not add to it.
//!
//! Against what: [`BY_HAND`], with the same programs, configuration and user: one `initdb`, a copy of it for each
//! database, all servers at once, each asked with `psql` until it answers, then password and database. It does less than
//! the helper: it looks for no conflicts, leaves no records, syncs no file of its own, and does not try the new login.
//!
//! How: a round measures each of [`goals`], one after the other, so that noise hits all alike; the median counts. What one
//! step wrote is on the disk before the next begins. Memory is the largest resident set (`VmHWM`) of the helper itself,
//! without `initdb` and the servers, read while it runs; a system without `/proc` does not tell it.
//!
//! The helper is measured as people run it: the workspace's bench profile mirrors the dev profile, and
//! `cargo bench --profile dev --bench up` takes the dev profile itself.

#![expect(clippy::disallowed_methods, reason = "no part of the helper: this starts it, and the script, from outside")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

const UP: [&str; 3] = ["up", "--without", "pubsub"];
const SCRIPT: &str = "the script";
const COLD: &str = "up, no template";
const TEMPLATE: &str = "up, template";
const WARM: &str = "up, everything runs";
const HELP: &str = "--help";
const MEMORY: &str = "memory, no template";
/// Odd, so that the median is a figure that was measured.
const ROUNDS: usize = 7;
/// How often a round measures what takes milliseconds.
const REPEATS: usize = 5;
/// The goals are about a stack of so many.
const DATABASES: usize = 8;

/// Says `ready`, and stops its servers when its standard input ends, for whatever reason that does.
const BY_HAND: &str = r#"
set -euo pipefail
stop() { kill $(jobs -p) 2>/dev/null || true; wait; }
trap stop EXIT
mkdir -m 700 run redis
"$REDIS" "$CONFIGURATION/redis/effect.conf" --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$PWD/redis" \
    --daemonize no >redis.log 2>&1 &
redis=$!
"$BIN/initdb" --no-sync --no-instructions --auth=trust --encoding=UTF8 --username="$SUPERUSER" --pgdata=template \
    --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 >initdb.log
printf '%s\n' 'local all all trust' 'host all all 127.0.0.1/32 scram-sha-256' >template/pg_hba.conf
copies=()
for database in $DATABASES; do
    cp -r template "data-${database%:*}" &
    copies+=($!)
done
for copy in "${copies[@]}"; do wait "$copy"; done
answers=()
for database in $DATABASES; do
    name=${database%:*} port=${database#*:} data=$PWD/data-${database%:*}
    "$BIN/postgres" -D "$data" -c config_file="$CONFIGURATION/postgres/effect.conf" \
        -c hba_file="$data/pg_hba.conf" -c ident_file="$data/pg_ident.conf" -c listen_addresses=127.0.0.1 -c port="$port" \
        -c unix_socket_directories="$PWD/run" >"$data.log" 2>&1 &
    server=$!
    ask=("$BIN/psql" --no-psqlrc --quiet --host="$PWD/run" --port="$port" --username="$SUPERUSER" --dbname=postgres)
    {
        until "${ask[@]}" --command='SELECT 1' >/dev/null 2>&1; do
            kill -0 "$server"
            sleep 0.01
        done
        "${ask[@]}" --command="ALTER ROLE $SUPERUSER PASSWORD '$PASSWORD'" \
            --command="CREATE DATABASE $name OWNER $SUPERUSER"
    } &
    answers+=($!)
done
until { printf 'PING\r\n' >&3 && read -r pong <&3 && [[ $pong == +PONG* ]]; } 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT"; do
    kill -0 "$redis"
    sleep 0.01
done 2>/dev/null
for answer in "${answers[@]}"; do wait "$answer"; done
echo ready
read -r _ || true
"#;

fn main() -> Result<ExitCode> {
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: `cargo bench --bench up` does that");
        return Ok(ExitCode::SUCCESS);
    }
    // Ctrl-C reaches the step that runs as well: it fails, which ends the bench as any failure does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let _interrupted = signal(SignalKind::interrupt())?;

    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.split(' ').next().unwrap_or_default());
    let bench = Bench::new()?;
    let script = bench.prepare()?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        bench.round(&script, &mut figures).with_context(|| format!("round {round}"))?;
    }
    drop(bench);
    Ok(if report(figures) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was measured, by the names of [`goals`].
type Figures = BTreeMap<&'static str, Vec<f64>>;

/// One run of the helper: milliseconds, and megabytes.
struct Run {
    took: f64,
    memory: Option<f64>,
}

/// The script's environment, and its user if that is not who runs the bench.
struct Script {
    environment: Vec<(&'static str, String)>,
    user: Option<(u32, u32)>,
}

/// A checkout with state, cache and ports of its own. Dropped, it leaves nothing behind.
struct Bench {
    folder: TempDir,
    /// What the stack reads from the environment: nothing of it may come from outside.
    variables: Vec<String>,
}

impl Bench {
    fn new() -> Result<Bench> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package lies in no workspace")?;
        let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
        // Root's servers run as somebody else, who has to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let checkout = folder.path().join("checkout");
        fs::create_dir(&checkout)?;
        run(Command::new("cp").arg("-r").args(["config", "docker"].map(|name| repository.join(name))).arg(&checkout))?;

        let example = fs::read_to_string(repository.join(".env.example"))?;
        let names = example.lines().filter_map(|line| Some(line.split_once('=')?.0)).filter(|name| !name.contains('#'));
        let variables: Vec<String> =
            names.chain(["XTASK_ROOT", "XTASK_STACK", "XTASK_OFFLINE"]).map(str::to_owned).collect();
        // Below the ports that systems give to outgoing connections; another bench begins elsewhere.
        let candidates = 20_000 + std::process::id() as u16 % 6_000..32_000;
        let free = candidates.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
        let ports = variables.iter().filter(|name| name.ends_with("_PORT")).zip(free);
        let lines: String = ports.map(|(variable, port)| format!("{variable}={port}\n")).collect();
        fs::write(checkout.join(".env"), lines)?;
        Ok(Bench { folder, variables })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn helper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for variable in &self.variables {
            command.env_remove(variable);
        }
        command.current_dir(self.path("checkout")).stdin(Stdio::null()).env("XTASK_STATE_DIR", self.path("state"));
        command
    }

    /// A first `up`, with the cache that people have: it fetches the servers if need be, reads everything once, and tells
    /// what the script has to start.
    fn prepare(&self) -> Result<Script> {
        println!("preparing");
        run(self.helper().args(UP))?;
        let folder = self.path("checkout/.xtask/effect");
        let instance = read_json(&folder.join("instance.json"))?;
        let data = instance["data_elsewhere"].as_str().map_or(folder, PathBuf::from);
        let records: Vec<Value> = fs::read_dir(&data)?
            .filter_map(|entry| Some(entry.ok()?.path().join("record.json")).filter(|path| path.is_file()))
            .map(|path| read_json(&path))
            .collect::<Result<_>>()?;
        let (databases, others): (Vec<&Value>, Vec<&Value>) =
            records.iter().partition(|record| record["login"].is_object());
        let ([first, ..], [redis]) = (&databases[..], &others[..]) else { bail!("not the services of the stack") };
        ensure!(databases.len() == DATABASES, "{} databases, where goals are about {DATABASES}", databases.len());
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a record lacks what the script needs");
        let postgres = PathBuf::from(text(&first["program"])?);
        let bin = postgres.parent().context("PostgreSQL lies in no folder")?;
        // The toolbox of that cache; its templates are made anew in every round.
        fs::create_dir(self.path("cache"))?;
        if let Some(toolbox) = postgres.ancestors().find(|folder| folder.ends_with("toolbox")) {
            symlink(toolbox, self.path("cache/toolbox"))?;
        }
        self.down()?;

        let names = databases.iter().map(|one| Ok(format!("{}:{}", text(&one["login"]["database"])?, one["port"])));
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let server_user = &instance["server_user"];
        let script = Script {
            environment: vec![
                ("PATH", env::var("PATH")?),
                ("LC_ALL", "C".to_owned()),
                ("TZ", "UTC".to_owned()),
                ("BIN", bin.display().to_string()),
                ("CONFIGURATION", self.path("checkout/docker").display().to_string()),
                ("SUPERUSER", text(&first["login"]["user"])?),
                ("PASSWORD", text(&first["login"]["password"])?),
                ("DATABASES", names.collect::<Result<Vec<String>>>()?.join(" ")),
                ("REDIS", text(&redis["program"])?),
                ("REDIS_PORT", redis["port"].to_string()),
            ],
            user: number(&server_user["uid"]).zip(number(&server_user["gid"])),
        };
        self.by_hand(&script)?;
        Ok(script)
    }

    fn round(&self, script: &Script, figures: &mut Figures) -> Result<()> {
        let mut note = |name, figure| figures.entry(name).or_default().push(figure);
        let mut helper = self.helper();
        helper.env("XTASK_CACHE_DIR", self.path("cache"));
        rustix::fs::sync();
        note(SCRIPT, self.by_hand(script)?);

        rustix::fs::sync();
        let cold = run(helper.args(UP))?;
        note(COLD, cold.took);
        cold.memory.into_iter().for_each(|memory| note(MEMORY, memory));
        self.down()?;

        rustix::fs::sync();
        note(TEMPLATE, run(&mut helper)?.took);
        rustix::fs::sync();
        for _ in 0..REPEATS {
            note(WARM, run(&mut helper)?.took);
            note(HELP, run(self.helper().arg("--help"))?.took);
        }
        self.down()?;
        Ok(fs::remove_dir_all(self.path("cache/templates"))?)
    }

    fn by_hand(&self, script: &Script) -> Result<f64> {
        let folder = self.path("by-hand");
        fs::create_dir(&folder)?;
        let mut command = Command::new("bash");
        command.args(["-c", BY_HAND]).env_clear().envs(script.environment.clone());
        command.current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some((uid, gid)) = script.user {
            chown(&folder, Some(uid), Some(gid))?;
            command.uid(uid).gid(gid);
        }
        let begun = Instant::now();
        let mut child = command.spawn().context("cannot start bash")?;
        let mut line = String::new();
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
        let took = milliseconds(begun);
        // Waiting closes its standard input: it stops its servers, and is gone after them.
        let status = child.wait()?;
        said.transpose()?;
        ensure!(line == "ready\n", "the script by hand failed ({status})");
        fs::remove_dir_all(&folder)?;
        Ok(took)
    }

    fn down(&self) -> Result<()> {
        run(self.helper().args(["down", "--volumes", "--yes", "--discard"])).map(drop)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            println!("servers of the bench may be left: {error:#}");
        }
    }
}

/// Runs the helper to its end, which must be a good one.
fn run(command: &mut Command) -> Result<Run> {
    let begun = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let watch = thread::spawn(move || {
        let mut largest = None;
        while let Some(now) = high_water(&status) {
            largest = Some(now);
            thread::sleep(Duration::from_millis(4));
        }
        largest
    });
    let output = child.wait_with_output()?;
    let took = milliseconds(begun);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    Ok(Run { took, memory: watch.join().unwrap_or(None) })
}

/// The largest resident set so far, in megabytes; `None` once the process has ended.
fn high_water(status: &Path) -> Option<f64> {
    let text = fs::read_to_string(status).ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?;
    Some(kibibytes.parse::<f64>().ok()? * 1024.0 / 1e6)
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn read_json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?)?)
}

/// What is measured, its unit, and the most that its median may be.
fn goals(script: Option<f64>) -> [(&'static str, &'static str, Option<f64>); 6] {
    [
        (SCRIPT, "ms", None),
        (COLD, "ms", script.map(|script| 1.3 * script)),
        (TEMPLATE, "ms", script),
        (WARM, "ms", Some(60.0)),
        (HELP, "ms", Some(10.0)),
        (MEMORY, "MB", Some(50.0)),
    ]
}

/// Prints the table, and tells whether every goal is met. What could not be measured is not missed.
fn report(mut figures: Figures) -> bool {
    figures.values_mut().for_each(|figures| figures.sort_by(f64::total_cmp));
    let median = |name: &str| figures.get(name).and_then(|sorted| sorted.get(sorted.len() / 2)).copied();
    let mut is_met = true;
    println!("\n{:20} {:>11} {:>11} {:>11} {:>11}  runs", "", "goal", "median", "least", "most");
    for (name, unit, goal) in goals(median(SCRIPT)) {
        let verdict = goal.zip(median(name)).map(|(goal, median)| if median > goal { "missed" } else { "met" });
        is_met &= verdict != Some("missed");
        let sorted = figures.get(name).map_or(&[][..], Vec::as_slice);
        let cells = [goal, median(name), sorted.first().copied(), sorted.last().copied()]
            .map(|figure| format!("{:>11}", figure.map_or("-".to_owned(), |figure| format!("{figure:.1} {unit}"))));
        println!("{name:20} {} {:>5}  {}", cells.join(" "), sorted.len(), verdict.unwrap_or_default());
    }
    is_met
}
