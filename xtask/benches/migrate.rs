//! How long `cargo xtask migrate` takes for eight databases with 50 small migrations each, against what people do by hand.
//!
//! `cargo bench --bench migrate` runs it: about two minutes, on a machine that has nothing else to do. It prints goals and
//! figures, and ends with exit code 1 if a goal is missed. It starts an instance of its own, in a temporary folder and on
//! ports of its own, and removes it again, also when a step fails.
//!
//! Why: migrations run with every `up` and in every pipeline, and mostly have nothing to do.
//!
//! Against what: the same files in the same eight servers, with `sqlx migrate run` for one database after another, as
//! scripts do it (by TCP, with the password), and with eight `psql -1` at once, by the Unix sockets. The first is left out
//! where no `sqlx` is on `PATH`: `cargo install sqlx-cli --locked --no-default-features --features postgres`. The second does
//! less than the helper: it keeps no history, takes no lock, and commits each database for itself.
//!
//! How: a round measures psql and the helper once, in empty databases, now one before and now the other; some rounds measure
//! the rest; the median counts, and that the helper is not slower than psql is judged round by round. What one step wrote is on
//! the disk before the next begins. For the latency, a proxy of this program takes the place of each server's Unix socket and
//! holds back what comes through for 10 ms each way: the helper finds it where it finds the server. Of sqlx, one database is
//! measured so, once.

#![expect(clippy::disallowed_methods, reason = "no part of the helper: this starts it, psql and sqlx, from outside")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use support::{DATABASES, Databases, Figures, Server, is_not_slower, median, report, run};

const MIGRATIONS: usize = 50;
const EMPTY: [&str; 5] =
    ["SET client_min_messages = error", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", "VACUUM", "CHECKPOINT"];
const SQLX: &str = "sqlx, in a loop";
const PSQL: &str = "psql -1, all at once";
const MIGRATE: &str = "migrate";
const AGAIN: &str = "migrate, nothing to do";
const HELP: &str = "--help";
const SQLX_FAR: &str = "sqlx, 20 ms, one of 8";
const MIGRATE_FAR: &str = "migrate, 20 ms";
const AGAIN_FAR: &str = "nothing to do, 20 ms";
/// Added to each way.
const LATENCY: Duration = Duration::from_millis(10);
/// Odd, so that the median is a figure that was measured.
const ROUNDS: usize = 31;
/// The loop of sqlx and what is far away are measured in one round of so many: there is no doubt about them.
const ROUNDS_PER_FAR: usize = 3;
/// How often a round measures what takes milliseconds.
const REPEATS: usize = 5;

fn main() -> Result<ExitCode> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: `cargo bench --bench migrate` does that");
        return Ok(ExitCode::SUCCESS);
    }
    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let sqlx = which::which("sqlx").ok();
    if sqlx.is_none() {
        println!("there is no `sqlx` on PATH: it is not measured");
    }
    let databases = Databases::start(write_migrations)?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        near(&databases, round, &mut figures).with_context(|| format!("round {round}"))?;
        if round % ROUNDS_PER_FAR == 1 {
            if let Some(sqlx) = &sqlx {
                in_a_loop(&databases, sqlx, &mut figures).context("sqlx")?;
            }
            let proxies = Proxies::start(&databases)?;
            far(&databases, sqlx.as_deref().filter(|_| round == 1), &mut figures).context("with latency")?;
            drop(proxies);
        }
    }
    drop(databases);
    let [sqlx, help] = [SQLX, HELP].map(|name| median(&figures, name));
    let mut is_met = report(
        &figures,
        &[
            (SQLX, "ms", None),
            (PSQL, "ms", None),
            (MIGRATE, "ms", sqlx.map(|sqlx| sqlx / 3.0)),
            (HELP, "ms", None),
            (AGAIN, "ms", help.map(|help| help + 30.0)),
            (SQLX_FAR, "ms", None),
            (MIGRATE_FAR, "ms", Some(500.0)),
            (AGAIN_FAR, "ms", None),
        ],
    );
    is_met &= is_not_slower(&figures, MIGRATE, PSQL);
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As scripts do it, one database after another.
fn in_a_loop(databases: &Databases, sqlx: &Path, figures: &mut Figures) -> Result<()> {
    empty(databases)?;
    let mut total = 0.0;
    for server in &databases.servers {
        let Server { port, user, password, database, .. } = server;
        let url = format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}");
        total += by_sqlx(sqlx, databases, server, &url)?;
    }
    figures.entry(SQLX).or_default().push(total);
    Ok(())
}

/// Without latency.
fn near(databases: &Databases, round: usize, figures: &mut Figures) -> Result<()> {
    let mut note = |name, figure| figures.entry(name).or_default().push(figure);
    let files = |server: &Server| {
        let migrations = (0..MIGRATIONS).map(|number| file(Path::new(""), server.name, number).display().to_string());
        let files = migrations.flat_map(|file| ["-f".to_owned(), file]);
        ["-1".to_owned()].into_iter().chain(files).collect()
    };
    let psql = || -> Result<f64> {
        empty(databases)?;
        databases.psql_each(files)
    };
    let migrate = || -> Result<f64> {
        empty(databases)?;
        run(databases.helper().arg("migrate"))
    };
    if round.is_multiple_of(2) {
        note(MIGRATE, migrate()?);
        note(PSQL, psql()?);
        // So that nothing is to do next.
        migrate()?;
    } else {
        note(PSQL, psql()?);
        note(MIGRATE, migrate()?);
    }
    for _ in 0..REPEATS {
        note(AGAIN, run(databases.helper().arg("migrate"))?);
        note(HELP, run(databases.helper().arg("--help"))?);
    }
    Ok(())
}

/// With proxies in front of the servers.
fn far(databases: &Databases, sqlx: Option<&Path>, figures: &mut Figures) -> Result<()> {
    let mut note = |name, figure| figures.entry(name).or_default().push(figure);
    if let (Some(sqlx), Some(server)) = (sqlx, databases.servers.first()) {
        empty(databases)?;
        let Server { port, user, password, database, sockets, .. } = server;
        let url = format!("postgres://{user}:{password}@localhost:{port}/{database}?host={}", sockets.display());
        note(SQLX_FAR, by_sqlx(sqlx, databases, server, &url)?);
    }
    empty(databases)?;
    note(MIGRATE_FAR, run(databases.helper().arg("migrate"))?);
    note(AGAIN_FAR, run(databases.helper().arg("migrate"))?);
    Ok(())
}

/// As before the first run: what was found migrated is forgotten as well.
fn empty(databases: &Databases) -> Result<()> {
    databases.say(&EMPTY)?;
    let known = databases.path(".xtask/effect/known.json");
    if known.exists() {
        fs::remove_file(known)?;
    }
    rustix::fs::sync();
    Ok(())
}

fn by_sqlx(sqlx: &Path, databases: &Databases, server: &Server, url: &str) -> Result<f64> {
    let mut command = Command::new(sqlx);
    command.args(["migrate", "run", "--source"]).arg(databases.path(&folder(server.name)));
    run(command.env("DATABASE_URL", url).current_dir(databases.path("")).stdin(Stdio::null()))
}

fn folder(database: &str) -> String {
    format!("config/effect/{database}/migrations")
}

fn file(root: &Path, database: &str, number: usize) -> PathBuf {
    root.join(folder(database)).join(format!("{:04}_step.sql", number + 1))
}

/// What a service grows by from week to week: a table, then a column, an index, a check and a comment.
fn write_migrations(root: &Path) -> Result<()> {
    for database in DATABASES {
        fs::remove_dir_all(root.join(folder(database)))?;
        fs::create_dir_all(root.join(folder(database)))?;
        for number in 0..MIGRATIONS {
            let table = format!("things_{}", number / 5);
            let text = match number % 5 {
                0 => format!(
                    "CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, \
                     created_at timestamptz NOT NULL DEFAULT now());\n"
                ),
                1 => format!("ALTER TABLE {table} ADD COLUMN amount integer NOT NULL DEFAULT 0;\n"),
                2 => format!("CREATE INDEX {table}_by_name ON {table} (name);\n"),
                3 => format!("ALTER TABLE {table} ADD CONSTRAINT {table}_amount CHECK (amount >= 0);\n"),
                _ => format!("COMMENT ON TABLE {table} IS 'what people own, the {number}th time';\n"),
            };
            fs::write(file(root, database, number), text)?;
        }
    }
    Ok(())
}

/// In front of every server's Unix socket. Dropped, the sockets are where they were.
struct Proxies {
    /// Where each socket belongs, and where it is meanwhile.
    moved: Vec<(PathBuf, PathBuf)>,
    /// Dropped to end them.
    _end: oneshot::Sender<()>,
}

impl Proxies {
    fn start(databases: &Databases) -> Result<Proxies> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let mut proxies = Proxies { moved: Vec::new(), _end: end };
        for server in &databases.servers {
            let socket = server.sockets.join(format!(".s.PGSQL.{}", server.port));
            let behind = server.sockets.join(format!("behind.{}", server.port));
            fs::rename(&socket, &behind)?;
            proxies.moved.push((socket.clone(), behind.clone()));
            let _inside = runtime.enter();
            runtime.spawn(serve(UnixListener::bind(&socket)?, behind));
        }
        std::thread::spawn(move || runtime.block_on(ended));
        Ok(proxies)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for (socket, behind) in &self.moved {
            if let Err(error) = fs::rename(behind, socket) {
                println!("`{}` is not where it was: {error}", socket.display());
            }
        }
    }
}

async fn serve(listener: UnixListener, behind: PathBuf) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = UnixStream::connect(&behind).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::spawn(delayed(from_client, to_server));
        tokio::spawn(delayed(from_server, to_client));
    }
}

/// Passes on what comes, each piece [`LATENCY`] after it came.
async fn delayed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin + Send + 'static) {
    let (sender, mut pieces) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let writing = tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if sender.send((Instant::now() + LATENCY, piece[..length].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    // An end that the other side has already is no error.
    drop(writing.await);
}
