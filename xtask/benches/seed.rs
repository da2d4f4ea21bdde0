//! How long `cargo xtask seed` takes for a million rows, against what people do by hand with psql.
//!
//! `cargo bench --bench seed` runs it: about two minutes, on a machine that has nothing else to do. It prints goals and
//! figures, and ends with exit code 1 if a goal is missed. It starts an instance of its own, in a temporary folder and on
//! ports of its own, and removes it again, also when a step fails.
//!
//! Why: seeds that take minutes are seeds that nobody runs.
//!
//! Against what: the same rows in the same tables of the same eight servers, by their Unix sockets, with the psql beside
//! the servers: `psql -f` of INSERTs of 1,000 rows each, one database after another as scripts do it, and `\copy` of the
//! same CSV files, all databases at once. Both do less than the helper, which computes checksums, records what ran, commits
//! all or none, and analyses the tables.
//!
//! How: a round measures each once, in empty tables; the median counts. What one step wrote is on the disk before the next
//! begins. Memory is the largest resident set (`VmHWM`) of the helper, read while it runs.

#![expect(clippy::disallowed_methods, reason = "no part of the helper: this starts it, and psql, from outside")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const DATABASES: [&str; 8] = ["event-store", "learning", "vocabulary", "user", "progress", "algorithm", "ai", "saga"];
/// In each database: a million over the set.
const ROWS: usize = 125_000;
const BATCH: usize = 1_000;
const TABLE: &str =
    "CREATE TABLE measured (id integer PRIMARY KEY, name text NOT NULL, amount integer, at timestamptz NOT NULL)";
const EMPTY: &str = "TRUNCATE measured; SET client_min_messages = error; DROP TABLE IF EXISTS _xtask_seeds; CHECKPOINT";
const INSERT: &str = "psql -f, INSERT";
const COPY: &str = "psql, \\copy";
const SEED: &str = "seed";
const AGAIN: &str = "seed, unchanged";
const MEMORY: &str = "memory of seed";
/// Odd, so that the median is a figure that was measured.
const ROUNDS: usize = 5;

/// What was measured, by name.
type Figures = BTreeMap<&'static str, Vec<f64>>;

fn main() -> Result<ExitCode> {
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: `cargo bench --bench seed` does that");
        return Ok(ExitCode::SUCCESS);
    }
    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let bench = Bench::new()?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        bench.round(&mut figures).with_context(|| format!("round {round}"))?;
    }
    drop(bench);
    Ok(if report(figures) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A checkout whose databases run. Dropped, it is down, and gone.
struct Bench {
    folder: TempDir,
    /// How psql reaches each database.
    servers: Vec<Server>,
}

struct Server {
    psql: PathBuf,
    arguments: Vec<String>,
}

impl Bench {
    fn new() -> Result<Bench> {
        let mode = fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("xtask-bench-").permissions(mode).tempdir()?;
        run(Command::new("cp").args(["-r", "config", "docker"]).arg(folder.path()).current_dir(REPOSITORY))?;
        let example = fs::read_to_string(Path::new(REPOSITORY).join(".env.example"))?;
        let candidates = 20_000 + std::process::id() as u16 % 6_000..32_000;
        let free = candidates.filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
        let names = example.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name));
        let ports = names.filter(|name| name.ends_with("_PORT")).zip(free);
        fs::write(
            folder.path().join(".env"),
            ports.map(|(name, port)| format!("{name}={port}\n")).collect::<String>(),
        )?;
        write_rows(folder.path())?;
        for database in DATABASES {
            let seeds = folder.path().join(format!("config/effect/{database}/seeds"));
            fs::remove_dir_all(&seeds)?;
            fs::create_dir_all(&seeds)?;
            fs::copy(folder.path().join("rows.csv"), seeds.join("0001_measured.csv"))?;
        }
        let mut bench = Bench { folder, servers: Vec::new() };
        run(bench.helper().arg("up").args(DATABASES))?;
        let state = bench.folder.path().join(".xtask/effect");
        let instance = read_json(&state.join("instance.json"))?;
        let data = instance["data_elsewhere"].as_str().map_or(state, PathBuf::from);
        for database in DATABASES {
            let record = read_json(&data.join(database).join("record.json"))?;
            let text = |value: &Value| value.as_str().map(str::to_owned).context("a record lacks what psql needs");
            let arguments = vec![
                "-Xqv".to_owned(),
                "ON_ERROR_STOP=1".to_owned(),
                format!("--host={}", text(&record["sockets"])?),
                format!("--port={}", record["port"]),
                format!("--username={}", text(&record["login"]["user"])?),
                format!("--dbname={}", text(&record["login"]["database"])?),
            ];
            bench
                .servers
                .push(Server { psql: Path::new(&text(&record["program"])?).with_file_name("psql"), arguments });
        }
        bench.psql(&["-c".to_owned(), TABLE.to_owned()])?;
        Ok(bench)
    }

    fn helper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for name in ["XTASK_STACK", "XTASK_ROOT", "XTASK_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("XTASK_STATE_DIR", self.folder.path().join("state")).env("XTASK_ENGINE", "native");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// psql with these arguments on all databases at once; gives milliseconds.
    fn psql(&self, arguments: &[String]) -> Result<f64> {
        let begun = Instant::now();
        let started = self.servers.iter().map(|server| self.start(server, arguments)).collect::<Vec<_>>();
        for child in started {
            finished(child?, arguments)?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    /// The same, one database after another.
    fn psql_in_turn(&self, arguments: &[String]) -> Result<f64> {
        let begun = Instant::now();
        for server in &self.servers {
            finished(self.start(server, arguments)?, arguments)?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    fn start(&self, server: &Server, arguments: &[String]) -> Result<Child> {
        let mut psql = Command::new(&server.psql);
        psql.args(&server.arguments).args(arguments).current_dir(self.folder.path());
        psql.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start psql")
    }

    fn round(&self, figures: &mut Figures) -> Result<()> {
        let mut note = |name, figure| figures.entry(name).or_default().push(figure);
        let empty = || -> Result<()> {
            let commands = EMPTY.split("; ").flat_map(|one| ["-c".to_owned(), one.to_owned()]).collect::<Vec<_>>();
            self.psql(&commands)?;
            rustix::fs::sync();
            Ok(())
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        empty()?;
        note(INSERT, self.psql_in_turn(&words(&["-f", "rows.sql"]))?);
        empty()?;
        note(COPY, self.psql(&words(&["-c", "\\copy measured from 'rows.csv' csv header"]))?);
        empty()?;
        let (took, memory) = run(self.helper().arg("seed"))?;
        note(SEED, took);
        memory.into_iter().for_each(|memory| note(MEMORY, memory));
        note(AGAIN, run(self.helper().arg("seed"))?.0);
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = run(self.helper().args(["down", "--volumes", "--yes", "--discard"])) {
            println!("servers of the bench may be left: {error:#}");
        }
    }
}

fn finished(mut child: Child, arguments: &[String]) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "psql {arguments:?} failed ({status})");
    Ok(())
}

/// The same rows as CSV and as INSERTs.
fn write_rows(folder: &Path) -> Result<()> {
    let mut csv = BufWriter::new(fs::File::create(folder.join("rows.csv"))?);
    let mut sql = BufWriter::new(fs::File::create(folder.join("rows.sql"))?);
    writeln!(csv, "id,name,amount,at")?;
    for id in 0..ROWS {
        let (name, at) = (format!("person {id} of the bench, 単語"), "2026-01-05 09:00:00+00");
        writeln!(csv, "{id},\"{name}\",{},{at}", id % 997)?;
        let begin = if id % BATCH == 0 { "INSERT INTO measured (id, name, amount, at) VALUES\n" } else { "" };
        let end = if id % BATCH == BATCH - 1 { ";" } else { "," };
        writeln!(sql, "{begin}({id}, '{name}', {}, '{at}'){end}", id % 997)?;
    }
    csv.flush()?;
    Ok(sql.flush()?)
}

/// Runs to the end, which must be a good one; gives milliseconds, and megabytes of memory.
fn run(command: &mut Command) -> Result<(f64, Option<f64>)> {
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
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    Ok((took, watch.join().unwrap_or(None)))
}

/// The largest resident set so far, in megabytes; `None` once the process has ended.
fn high_water(status: &Path) -> Option<f64> {
    let text = fs::read_to_string(status).ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?;
    Some(kibibytes.parse::<f64>().ok()? * 1024.0 / 1e6)
}

fn read_json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?)?)
}

/// Prints the table, and tells whether every goal is met.
fn report(mut figures: Figures) -> bool {
    figures.values_mut().for_each(|figures| figures.sort_by(f64::total_cmp));
    let median = |name: &str| figures.get(name).and_then(|sorted| sorted.get(sorted.len() / 2)).copied();
    let least = |goals: [Option<f64>; 2]| goals.into_iter().flatten().reduce(f64::min);
    let goals = [
        (INSERT, "ms", None),
        (COPY, "ms", None),
        (SEED, "ms", least([median(INSERT).map(|insert| insert / 5.0), median(COPY)])),
        (AGAIN, "ms", None),
        (MEMORY, "MB", Some(64.0)),
    ];
    let mut is_met = true;
    println!("\n{:20} {:>11} {:>11} {:>11} {:>11}  runs", "", "goal", "median", "least", "most");
    for (name, unit, goal) in goals {
        let verdict = goal.zip(median(name)).map(|(goal, median)| if median > goal { "missed" } else { "met" });
        is_met &= verdict != Some("missed");
        let sorted = figures.get(name).map_or(&[][..], Vec::as_slice);
        let cells = [goal, median(name), sorted.first().copied(), sorted.last().copied()]
            .map(|figure| format!("{:>11}", figure.map_or("-".to_owned(), |figure| format!("{figure:.1} {unit}"))));
        println!("{name:20} {} {:>5}  {}", cells.join(" "), sorted.len(), verdict.unwrap_or_default());
    }
    is_met
}
