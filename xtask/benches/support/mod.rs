//! What benches share: running to the end with a watch on memory, the table of figures, and for those about databases a
//! checkout whose eight databases run, with psql on all of them.

#![allow(dead_code, reason = "each bench uses what it needs")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
pub const DATABASES: [&str; 8] =
    ["event-store", "learning", "vocabulary", "user", "progress", "algorithm", "ai", "saga"];

/// What was measured, by name.
pub type Figures = BTreeMap<&'static str, Vec<f64>>;

/// A checkout whose databases run, without tables. Dropped, it is down, and gone.
pub struct Databases {
    folder: TempDir,
    pub servers: Vec<Server>,
}

/// How clients reach one database.
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
    /// The folder of its Unix socket.
    pub sockets: PathBuf,
    /// The one beside the server's program.
    psql: PathBuf,
}

impl Server {
    /// A program beside the server's, which finds the database by its socket.
    pub fn client(&self, program: &str) -> Command {
        let mut client = Command::new(self.psql.with_file_name(program));
        client.env("PGHOST", &self.sockets).env("PGPORT", self.port.to_string());
        client.env("PGUSER", &self.user).env("PGDATABASE", &self.database);
        client
    }
}

impl Databases {
    /// `prepare` writes what the folder is to hold before the databases start.
    pub fn start(prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Databases> {
        // Root's servers run as somebody else, who must get through.
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
        prepare(folder.path())?;
        let mut databases = Databases { folder, servers: Vec::new() };
        run(databases.helper().args(["up", "--no-migrate"]).args(DATABASES))?;
        let state = databases.path(".xtask/effect");
        let instance = read_json(&state.join("instance.json"))?;
        let data = instance["data_elsewhere"].as_str().map_or(state, PathBuf::from);
        for name in DATABASES {
            let record = read_json(&data.join(name).join("record.json"))?;
            let text = |value: &Value| value.as_str().map(str::to_owned).context("a record lacks what psql needs");
            databases.servers.push(Server {
                name,
                port: record["port"].as_u64().context("a record lacks its port")?.try_into()?,
                user: text(&record["login"]["user"])?,
                password: text(&record["login"]["password"])?,
                database: text(&record["login"]["database"])?,
                sockets: text(&record["sockets"])?.into(),
                psql: Path::new(&text(&record["program"])?).with_file_name("psql"),
            });
        }
        Ok(databases)
    }

    /// A path in the checkout.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn helper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for name in ["XTASK_STACK", "XTASK_ROOT", "XTASK_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("XTASK_STATE_DIR", self.path("state")).env("XTASK_ENGINE", "native");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// psql on all databases at once, with the arguments that each server gets; gives milliseconds.
    pub fn psql_each(&self, arguments: impl Fn(&Server) -> Vec<String>) -> Result<f64> {
        let begun = Instant::now();
        let started = self.servers.iter().map(|server| self.psql_of(server, &arguments(server)));
        for child in started.collect::<Vec<_>>() {
            finished(child?)?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    /// Statements on all databases at once, each by itself.
    pub fn say(&self, statements: &[&str]) -> Result<()> {
        let commands = || statements.iter().flat_map(|one| ["-c".to_owned(), (*one).to_owned()]).collect::<Vec<_>>();
        self.psql_each(|_| commands()).map(drop)
    }

    pub fn psql_of(&self, server: &Server, arguments: &[String]) -> Result<Child> {
        let mut psql = server.client("psql");
        psql.args(["-Xqv", "ON_ERROR_STOP=1"]).args(arguments).current_dir(self.folder.path());
        psql.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start psql")
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        if let Err(error) = run(self.helper().args(["down", "--volumes", "--yes", "--discard", "--no-backup"])) {
            println!("servers of the bench may be left: {error:#}");
        }
    }
}

pub fn finished(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "psql failed ({status})");
    Ok(())
}

/// Runs to the end, which must be a good one; gives milliseconds.
pub fn run(command: &mut Command) -> Result<f64> {
    output(command, |_| ()).map(|(took, (), _)| took)
}

/// As [`run`], and megabytes of memory. It looks at the process again and again, which costs that some percent.
pub fn run_watched(command: &mut Command) -> Result<(f64, Option<f64>)> {
    output(command, watch).map(|(took, memory, _)| (took, memory))
}

/// As [`run_watched`], and what it wrote as JSON.
pub fn ask(command: &mut Command) -> Result<(f64, Option<f64>, Value)> {
    let (took, memory, written) = output(command, watch)?;
    Ok((took, memory, serde_json::from_slice(&written)?))
}

fn output<T: Send + 'static>(
    command: &mut Command,
    meanwhile: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> Result<(f64, T, Vec<u8>)> {
    let begun = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let meanwhile = thread::spawn(move || meanwhile(status));
    let output = child.wait_with_output()?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    let seen = meanwhile.join().map_err(|_| anyhow::anyhow!("the thread beside it ended in a panic"))?;
    Ok((took, seen, output.stdout))
}

/// The most memory that the process had until its end.
fn watch(status: PathBuf) -> Option<f64> {
    let mut largest = None;
    while let Some(now) = high_water(&status) {
        largest = Some(now);
        thread::sleep(Duration::from_millis(4));
    }
    largest
}

/// The largest resident set so far, in megabytes; `None` once the process has ended.
fn high_water(status: &Path) -> Option<f64> {
    let text = fs::read_to_string(status).ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?;
    Some(kibibytes.parse::<f64>().ok()? * 1024.0 / 1e6)
}

pub fn read_json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?)?)
}

pub fn median(figures: &Figures, name: &str) -> Option<f64> {
    let mut sorted = figures.get(name)?.clone();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Prints how one figure stands to another, round by round, each of which has measured both once; tells whether the median of
/// the ratios is at most 1. The same thing, measured twice, differs by some percent, so the ratio comes with the bounds that it
/// lies between in 19 of 20 cases: order statistics by the binomial distribution, as of the sign test.
pub fn is_not_slower(figures: &Figures, name: &str, than: &str) -> bool {
    let (Some(own), Some(others)) = (figures.get(name), figures.get(than)) else { return true };
    let mut ratios: Vec<f64> = own.iter().zip(others).map(|(one, other)| one / other).collect();
    ratios.sort_by(f64::total_cmp);
    let below = outside(ratios.len());
    let (low, high) = (ratios[below], ratios[ratios.len() - 1 - below]);
    let ratio = ratios[ratios.len() / 2];
    let is_met = ratio <= 1.0;
    println!(
        "{name} against {than}, round by round: {ratio:.3}x, 19 times of 20 between {low:.3}x and {high:.3}x  {}",
        if is_met { "met" } else { "missed" },
    );
    is_met
}

/// How many of so many sorted values lie on either side of the bounds for their median.
fn outside(values: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(values).unwrap_or(i32::MAX));
    let mut up_to_here = probability;
    for below in 0..values / 2 {
        probability *= (values - below) as f64 / (below + 1) as f64;
        up_to_here += probability;
        if up_to_here > 0.025 {
            return below;
        }
    }
    0
}

/// Prints a line for each name, with its unit and the most that its median may be; tells whether every goal is met. What
/// could not be measured is not missed.
pub fn report(figures: &Figures, goals: &[(&str, &str, Option<f64>)]) -> bool {
    let mut is_met = true;
    println!("\n{:26} {:>11} {:>11} {:>11} {:>11}  runs", "", "goal", "median", "least", "most");
    for (name, unit, goal) in goals {
        let median = median(figures, name);
        let verdict = goal.zip(median).map(|(goal, median)| if median > goal { "missed" } else { "met" });
        is_met &= verdict != Some("missed");
        let all = figures.get(name).map_or(&[][..], Vec::as_slice);
        let ends = [all.iter().copied().reduce(f64::min), all.iter().copied().reduce(f64::max)];
        let cells = [*goal, median, ends[0], ends[1]]
            .map(|figure| format!("{:>11}", figure.map_or("-".to_owned(), |figure| format!("{figure:.1} {unit}"))));
        println!("{name:26} {} {:>5}  {}", cells.join(" "), all.len(), verdict.unwrap_or_default());
    }
    is_met
}
