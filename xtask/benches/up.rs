//! How long `cargo xtask up` takes, against a shell script that does the same work by hand.
//!
//! `cargo bench --bench up` runs it: about a minute, on a machine that has nothing else to do. It prints goals and figures,
//! and ends with exit code 1 if a goal is missed. It starts an instance of its own, in a temporary folder and on ports of
//! its own, and removes it again, also when a step fails or on Ctrl-C. Only the toolbox is that of the machine's user.
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

mod support;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use support::{Figures, median, read_json, report, run, run_watched};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
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

/// Says `ready`, and stops its servers when its standard input ends, for whatever reason that does.
const BY_HAND: &str = r#"
set -euo pipefail
stop() { kill $(jobs -p) 2>/dev/null || true; wait; }
trap stop EXIT
BIN=${POSTGRES%/*}
mkdir -m 700 run redis
"$REDIS" "$PWD/docker/redis/effect.conf" --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$PWD/redis" \
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
    "$BIN/postgres" -D "$data" -c config_file="$PWD/docker/postgres/effect.conf" \
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
    let _interrupted = runtime.block_on(async { signal(SignalKind::interrupt()) })?;

    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let bench = Bench::new()?;
    let script = bench.prepare()?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        bench.round(&script, &mut figures).with_context(|| format!("round {round}"))?;
    }
    drop(bench);
    Ok(if report(&figures, &goals(median(&figures, SCRIPT))) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The script's environment, its user if that is not who runs the bench, and where its programs come from if that is a
/// toolbox: other caches of the bench share it.
struct Script {
    toolbox: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
    user: Option<(u64, u64)>,
}

struct Bench {
    folder: TempDir,
    /// What the stack reads from the environment: nothing of it may come from outside.
    variables: Vec<String>,
    /// The text of each checkout's `.env`: ports that are free.
    ports: String,
}

/// A new checkout. Dropped, it is down, and gone.
struct Checkout<'a> {
    folder: TempDir,
    bench: &'a Bench,
}

impl Bench {
    fn new() -> Result<Bench> {
        let folder = empty_folder(&env::temp_dir())?;
        // Ext4 without a journal uses no inode again for minutes, and looks ten times longer for others after each step. This
        // puts the folder of each step into a region of its own; other file systems do not know it.
        let _other_file_system = Command::new("chattr").arg("+T").arg(folder.path()).stderr(Stdio::null()).status();
        let example = fs::read_to_string(Path::new(REPOSITORY).join(".env.example"))?;
        let names = example.lines().filter_map(|line| Some(line.split_once('=')?.0)).filter(|name| !name.contains('#'));
        let variables: Vec<String> =
            names.chain(["XTASK_ROOT", "XTASK_STACK", "XTASK_OFFLINE"]).map(str::to_owned).collect();
        // Below the ports that systems give to outgoing connections; another bench begins elsewhere.
        let candidates = 20_000 + std::process::id() as u16 % 6_000..32_000;
        let free = candidates.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
        let ports = variables.iter().filter(|name| name.ends_with("_PORT")).zip(free);
        let ports = ports.map(|(variable, port)| format!("{variable}={port}\n")).collect();
        Ok(Bench { folder, variables, ports })
    }

    fn checkout(&self) -> Result<Checkout<'_>> {
        let folder = empty_folder(self.folder.path())?;
        let files = ["-r", "config", "docker"];
        run(Command::new("cp").args(files).arg(folder.path()).current_dir(REPOSITORY))?;
        fs::write(folder.path().join(".env"), &self.ports)?;
        Ok(Checkout { folder, bench: self })
    }

    /// A first `up`, with the cache that people have: it fetches the servers if need be, reads everything once, and tells
    /// what the script has to start.
    fn prepare(&self) -> Result<Script> {
        let checkout = self.checkout()?;
        run(checkout.helper().args(UP))?;
        let folder = checkout.folder.path().join(".xtask/effect");
        let instance = read_json(&folder.join("instance.json"))?;
        let data = instance["data_elsewhere"].as_str().map_or(folder, PathBuf::from);
        let records: Vec<Value> = fs::read_dir(&data)?
            .filter_map(|entry| Some(entry.ok()?.path().join("record.json")).filter(|path| path.is_file()))
            .map(|path| read_json(&path))
            .collect::<Result<_>>()?;
        drop(checkout);
        let (databases, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record["login"].is_object());
        let ([first, ..], [redis], 8) = (&databases[..], &others[..], databases.len()) else {
            bail!("the goals are about eight databases and Redis, and these are others: {records:?}");
        };

        let text = |value: &Value| value.as_str().map(str::to_owned).context("a record lacks what the script needs");
        let names = databases.iter().map(|one| Ok(format!("{}:{}", text(&one["login"]["database"])?, one["port"])));
        let (program, server_user) = (text(&first["program"])?, &instance["server_user"]);
        let toolbox = Path::new(&program).ancestors().find(|folder| folder.ends_with("toolbox"));
        let script = Script {
            toolbox: toolbox.map(Path::to_owned),
            environment: vec![
                ("PATH", env::var("PATH")?),
                ("LC_ALL", "C".to_owned()),
                ("TZ", "UTC".to_owned()),
                ("POSTGRES", program),
                ("SUPERUSER", text(&first["login"]["user"])?),
                ("PASSWORD", text(&first["login"]["password"])?),
                ("DATABASES", names.collect::<Result<Vec<String>>>()?.join(" ")),
                ("REDIS", text(&redis["program"])?),
                ("REDIS_PORT", redis["port"].to_string()),
            ],
            user: server_user["uid"].as_u64().zip(server_user["gid"].as_u64()),
        };
        self.by_hand(&script)?;
        Ok(script)
    }

    fn round(&self, script: &Script, figures: &mut Figures) -> Result<()> {
        let mut note = |name, figure| figures.entry(name).or_default().push(figure);
        note(SCRIPT, self.by_hand(script)?);

        let cache = empty_folder(self.folder.path())?;
        if let Some(toolbox) = &script.toolbox {
            symlink(toolbox, cache.path().join("toolbox"))?;
        }
        let checkout = self.checkout()?;
        rustix::fs::sync();
        let (cold, memory) = run_watched(checkout.helper().env("XTASK_CACHE_DIR", cache.path()).args(UP))?;
        note(COLD, cold);
        memory.into_iter().for_each(|memory| note(MEMORY, memory));
        drop(checkout);

        ensure!(cache.path().join("templates").is_dir(), "the cold `up` left no template");
        let checkout = self.checkout()?;
        let mut up = checkout.helper();
        up.env("XTASK_CACHE_DIR", cache.path()).args(UP);
        rustix::fs::sync();
        note(TEMPLATE, run(&mut up)?);
        rustix::fs::sync();
        for _ in 0..REPEATS {
            note(WARM, run(&mut up)?);
            note(HELP, run(checkout.helper().arg("--help"))?);
        }
        Ok(())
    }

    fn by_hand(&self, script: &Script) -> Result<f64> {
        let checkout = self.checkout()?;
        let folder = checkout.folder.path();
        let mut command = Command::new("bash");
        command.args(["-c", BY_HAND]).env_clear().envs(script.environment.clone());
        command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some((uid, gid)) = script.user {
            command.uid(uid.try_into()?).gid(gid.try_into()?);
            chown(folder, Some(uid.try_into()?), Some(gid.try_into()?))?;
        }
        rustix::fs::sync();
        let begun = Instant::now();
        let mut child = command.spawn().context("cannot start bash")?;
        let mut line = String::new();
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line)).transpose();
        let took = begun.elapsed().as_secs_f64() * 1e3;
        // Waiting closes its standard input: it stops its servers, and is gone after them.
        let status = child.wait()?;
        said?;
        ensure!(line == "ready\n", "the script by hand failed ({status})");
        Ok(took)
    }
}

impl Checkout<'_> {
    fn helper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for variable in &self.bench.variables {
            command.env_remove(variable);
        }
        command.env("XTASK_STATE_DIR", self.bench.folder.path().join("state")).env("XTASK_ENGINE", "native");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(self.helper().args(["down", "--volumes", "--yes", "--discard", "--no-backup"])) {
            println!("servers of the bench may be left: {error:#}");
        }
    }
}

/// A folder that the servers' user can get through.
fn empty_folder(parent: &Path) -> Result<TempDir> {
    let mode = fs::Permissions::from_mode(0o755);
    Ok(tempfile::Builder::new().prefix("xtask-bench-").permissions(mode).tempdir_in(parent)?)
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
