//! How long the docker engine takes, against plain `docker compose` in the same run.
//!
//! `cargo bench --bench docker` runs it: some minutes, on a machine that has nothing else to do, with a Docker engine and the
//! images (`.ci/docker-testbed` makes stand-ins). It prints goals and figures, and ends with exit code 1 if a goal is missed.
//! It works on projects and ports of its own, and removes them.
//!
//! What plain Compose is asked for: eight databases and Redis, on new volumes, until each database has answered `SELECT 1` as
//! the stack's user (asked by `psql` every 20 ms) and Redis `PING`; and the same with `--wait`, on the healthcheck of a file
//! without `start_interval`, as it was before this project. A round measures each once; the median counts.

#![expect(clippy::disallowed_methods, reason = "no part of the helper: this starts it, and Compose, from outside")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SERVICES: &str = "postgres-event-store postgres-learning postgres-vocabulary postgres-user postgres-progress \
    postgres-algorithm postgres-ai postgres-saga redis";
const PLAIN: &str = "compose up, to answers";
const WAIT: &str = "compose up --wait";
const NEW: &str = "up, new volumes";
const PS: &str = "compose ps";
const WARM: &str = "up, everything runs";
const START: &str = "compose start, to answers";
const STOPPED: &str = "up, stopped stack";
const ROUNDS: usize = 3;
/// How often a round measures what takes milliseconds.
const REPEATS: usize = 5;

/// `$1`: what Compose is to do. Ends when every server has answered.
const BY_HAND: &str = r#"
set -euo pipefail
docker compose $1 >/dev/null 2>&1
for database in $DATABASES; do
    until psql --no-psqlrc --quiet --host=127.0.0.1 --port="${database#*:}" --username=effect \
        --dbname="${database%:*}" --command='SELECT 1' >/dev/null 2>&1; do
        sleep 0.02
    done
done
until { printf 'PING\r\n' >&3 && read -r pong <&3 && [[ $pong == +PONG* ]]; } 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT"; do
    sleep 0.02
done 2>/dev/null
"#;

type Figures = BTreeMap<&'static str, Vec<f64>>;

fn main() -> Result<ExitCode> {
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: `cargo bench --bench docker` does that");
        return Ok(ExitCode::SUCCESS);
    }
    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let bench = Bench::new()?;
    let mut figures = Figures::new();
    // The first one makes the template, and reads everything once.
    bench.helper(&["up", "--without", "pubsub"])?;
    bench.helper(&["down", "--volumes", "--yes"])?;
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        bench.round(&mut figures).with_context(|| format!("round {round}"))?;
    }
    Ok(if report(figures) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A checkout with a project of its own. Dropped, both are gone.
struct Bench {
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

impl Bench {
    fn new() -> Result<Bench> {
        let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
        run(Command::new("cp").args(["-r", "config", "docker"]).arg(folder.path()).current_dir(REPOSITORY))?;
        let mut environment = BTreeMap::from([
            ("XTASK_ENGINE".to_owned(), "docker".to_owned()),
            ("XTASK_STATE_DIR".to_owned(), folder.path().join("state").display().to_string()),
            ("COMPOSE_PROJECT_NAME".to_owned(), format!("xtask-bench-{}", std::process::id())),
            ("PGPASSWORD".to_owned(), "effect_password".to_owned()),
        ]);
        environment.extend(local_images()?);
        let example = fs::read_to_string(Path::new(REPOSITORY).join(".env.example"))?;
        let names =
            example.lines().filter_map(|line| Some(line.split_once('=')?.0)).filter(|name| name.ends_with("_PORT"));
        let free = (20_000..32_000).filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
        environment.extend(names.zip(free).map(|(name, port)| (name.to_owned(), port.to_string())));
        let databases = environment.iter().filter_map(|(name, port)| {
            let database = name.strip_prefix("POSTGRES_")?.strip_suffix("_PORT")?.to_lowercase();
            Some(format!("{database}_db:{port}"))
        });
        let databases = databases.collect::<Vec<_>>().join(" ");
        environment.insert("DATABASES".to_owned(), databases);
        // The healthcheck as it was written before: no interval of its own for the start.
        let file = folder.path().join("docker/effect/compose.yaml");
        let lines = fs::read_to_string(&file)?;
        let plain: String =
            lines.lines().filter(|line| !line.contains("start_interval:")).map(|line| format!("{line}\n")).collect();
        fs::write(folder.path().join("docker/effect/waiting.yaml"), plain)?;
        Ok(Bench { folder, environment })
    }

    fn round(&self, figures: &mut Figures) -> Result<()> {
        let mut note = |name, figure| figures.entry(name).or_default().push(figure);
        note(PLAIN, self.by_hand("compose.yaml", &format!("up --detach {SERVICES}"))?);
        self.compose_down()?;
        note(WAIT, self.by_hand("waiting.yaml", &format!("up --detach --wait {SERVICES}"))?);
        self.compose_down()?;
        note(NEW, self.helper(&["up", "--without", "pubsub"])?);
        for _ in 0..REPEATS {
            let mut ps = Command::new("docker");
            ps.args(["compose", "ps"]).envs(&self.environment).env("COMPOSE_FILE", self.file("compose.yaml"));
            note(PS, run(&mut ps)?);
            note(WARM, self.helper(&["up", "--without", "pubsub"])?);
        }
        self.helper(&["stop"])?;
        note(START, self.by_hand("compose.yaml", &format!("start {SERVICES}"))?);
        self.helper(&["stop"])?;
        note(STOPPED, self.helper(&["up", "--without", "pubsub"])?);
        self.helper(&["down", "--volumes", "--yes"])?;
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("docker/effect").join(name)
    }

    fn by_hand(&self, file: &str, what: &str) -> Result<f64> {
        rustix::fs::sync();
        let mut command = Command::new("bash");
        command.args(["-c", BY_HAND, "by-hand", what]).envs(&self.environment).env("COMPOSE_FILE", self.file(file));
        run(&mut command)
    }

    fn compose_down(&self) -> Result<()> {
        let mut command = Command::new("docker");
        command.args(["compose", "down", "--volumes"]).envs(&self.environment);
        run(command.env("COMPOSE_FILE", self.file("compose.yaml"))).map(drop)
    }

    fn helper(&self, arguments: &[&str]) -> Result<f64> {
        rustix::fs::sync();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        run(command.args(arguments).current_dir(self.folder.path()).envs(&self.environment))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.compose_down() {
            println!("containers of the bench may be left: {error:#}");
        }
    }
}

/// The pinned images as `name:tag`, which is how an engine knows stand-ins.
fn local_images() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(Path::new(REPOSITORY).join("config/images.toml"))?;
    let images: toml::Table = text.parse()?;
    ["postgres-18", "redis-8", "google-cloud-cli"]
        .iter()
        .map(|key| {
            let text = |field: &str| images[*key][field].as_str().map(str::to_owned).context("config/images.toml");
            Ok((text("variable")?, format!("{}:{}", text("name")?, text("tag")?)))
        })
        .collect()
}

/// Runs to the end, which must be a good one; gives milliseconds.
fn run(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    Ok(took)
}

/// Prints the table, and tells whether every goal is met.
fn report(mut figures: Figures) -> bool {
    figures.values_mut().for_each(|figures| figures.sort_by(f64::total_cmp));
    let median = |name: &str| figures[name][figures[name].len() / 2];
    let goals = [
        (PLAIN, None),
        (WAIT, None),
        (NEW, Some((median(PLAIN) / 2.0).min(median(WAIT) / 3.0))),
        (PS, None),
        (WARM, Some(1.5 * median(PS))),
        (START, None),
        (STOPPED, Some(1.2 * median(START))),
    ];
    let mut is_met = true;
    println!("\n{:26} {:>10} {:>10} {:>10} {:>10}  runs", "", "goal", "median", "least", "most");
    for (name, goal) in goals {
        let verdict = goal.map_or("", |goal| if median(name) > goal { "missed" } else { "met" });
        is_met &= verdict != "missed";
        let sorted = &figures[name];
        let cells = [goal, Some(median(name)), sorted.first().copied(), sorted.last().copied()]
            .map(|figure| format!("{:>10}", figure.map_or("-".to_owned(), |figure| format!("{figure:.0} ms"))));
        println!("{name:26} {} {:>5}  {verdict}", cells.join(" "), sorted.len());
    }
    is_met
}
