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
//! same CSV files, all databases at once. Both do less than the helper, which computes checksums, records what ran, and
//! commits all or none; and both keep the primary key up to date row by row, which the helper makes after the rows.
//!
//! How: a round measures each once, INSERTs less often, in empty tables, now `\copy` before `seed` and now after it; the median
//! counts, and that `seed` is not slower than `\copy` is judged round by round. What one step wrote is on the disk before the
//! next begins. Memory is the largest resident set (`VmHWM`) of the helper, read while it runs.

#![expect(clippy::disallowed_methods, reason = "no part of the helper: this starts it, and psql, from outside")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod support;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result};

use support::{DATABASES, Databases, Figures, finished, is_not_slower, median, report, run, run_watched};

/// In each database: a million over the set.
const ROWS: usize = 125_000;
const BATCH: usize = 1_000;
/// Without autovacuum, which would take the processor from one or the other once a minute.
const TABLE: &str = "CREATE TABLE measured (id integer PRIMARY KEY, name text NOT NULL, amount integer, \
    at timestamptz NOT NULL) WITH (autovacuum_enabled = off)";
const EMPTY: [&str; 4] =
    ["TRUNCATE measured", "SET client_min_messages = error", "DROP TABLE IF EXISTS _xtask_seeds", "CHECKPOINT"];
const INSERT: &str = "psql -f, INSERT";
const COPY: &str = "psql, \\copy";
const SEED: &str = "seed";
const AGAIN: &str = "seed, unchanged";
const HELP: &str = "--help";
const MEMORY: &str = "memory of seed";
/// Odd, so that the median is a figure that was measured.
const ROUNDS: usize = 21;
/// INSERTs take as long as all the rest, and are measured in one round of so many.
const ROUNDS_PER_INSERT: usize = 3;
/// How often a round measures what takes milliseconds.
const REPEATS: usize = 5;

fn main() -> Result<ExitCode> {
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: `cargo bench --bench seed` does that");
        return Ok(ExitCode::SUCCESS);
    }
    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let databases = Databases::start(write_rows)?;
    databases.say(&[TABLE])?;
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        measure(&databases, round, &mut figures).with_context(|| format!("round {round}"))?;
    }
    drop(databases);
    let [insert, help] = [INSERT, HELP].map(|name| median(&figures, name));
    let mut is_met = report(
        &figures,
        &[
            (INSERT, "ms", None),
            (COPY, "ms", None),
            (SEED, "ms", insert.map(|insert| insert / 5.0)),
            (HELP, "ms", None),
            (AGAIN, "ms", help.map(|help| help + 30.0)),
            (MEMORY, "MB", Some(64.0)),
        ],
    );
    is_met &= is_not_slower(&figures, SEED, COPY);
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(databases: &Databases, round: usize, figures: &mut Figures) -> Result<()> {
    let mut note = |name, figure| figures.entry(name).or_default().push(figure);
    let empty = || -> Result<()> {
        databases.say(&EMPTY)?;
        rustix::fs::sync();
        Ok(())
    };
    if round % ROUNDS_PER_INSERT == 1 {
        empty()?;
        let begun = Instant::now();
        for server in &databases.servers {
            finished(databases.psql_of(server, &["-f".to_owned(), "rows.sql".to_owned()])?)?;
        }
        note(INSERT, begun.elapsed().as_secs_f64() * 1e3);
    }
    let copy = || -> Result<f64> {
        empty()?;
        databases.psql_each(|server| {
            vec!["-c".into(), format!("\\copy measured from '{}' csv header", seed_of(server.name))]
        })
    };
    let afresh = || -> Result<Command> {
        empty()?;
        // As for files that were never read: their checksums are part of it.
        let known = databases.path(".xtask/effect/seeds.json");
        if known.exists() {
            fs::remove_file(known)?;
        }
        let mut seed = databases.helper();
        seed.arg("seed");
        Ok(seed)
    };
    let seed = || run(&mut afresh()?);
    if round.is_multiple_of(2) {
        note(SEED, seed()?);
        note(COPY, copy()?);
    } else {
        note(COPY, copy()?);
        note(SEED, seed()?);
    }
    let (_, memory) = run_watched(&mut afresh()?)?;
    memory.into_iter().for_each(|memory| note(MEMORY, memory));
    for _ in 0..REPEATS {
        note(AGAIN, run(databases.helper().arg("seed"))?);
        note(HELP, run(databases.helper().arg("--help"))?);
    }
    Ok(())
}

/// The same rows as the only seed of each database, in CSV, and as INSERTs.
fn write_rows(folder: &Path) -> Result<()> {
    let mut csv = Vec::new();
    let mut sql = BufWriter::new(fs::File::create(folder.join("rows.sql"))?);
    writeln!(csv, "id,name,amount,at")?;
    for id in 0..ROWS {
        let (name, at) = (format!("person {id} of the bench, 単語"), "2026-01-05 09:00:00+00");
        writeln!(csv, "{id},\"{name}\",{},{at}", id % 997)?;
        let begin = if id % BATCH == 0 { "INSERT INTO measured (id, name, amount, at) VALUES\n" } else { "" };
        let end = if id % BATCH == BATCH - 1 { ";" } else { "," };
        writeln!(sql, "{begin}({id}, '{name}', {}, '{at}'){end}", id % 997)?;
    }
    sql.flush()?;
    for database in DATABASES {
        let seed = folder.join(seed_of(database));
        let seeds = seed.parent().context("a seed is in a folder")?;
        fs::remove_dir_all(seeds)?;
        fs::create_dir_all(seeds)?;
        fs::write(seed, &csv)?;
    }
    Ok(())
}

/// The only seed of a database, from the repository's root.
fn seed_of(database: &str) -> String {
    format!("config/effect/{database}/seeds/0001_measured.csv")
}
