//! How long backups and restores take that prove themselves, against PostgreSQL's own tools, which do not.
//!
//! `cargo bench --bench backup` runs it: about five minutes, on a machine that has nothing else to do. It prints goals and
//! figures, and ends with exit code 1 if a goal is missed. It starts an instance of its own, in a temporary folder and on
//! ports of its own, and removes it again, also when a step fails.
//!
//! Why: a backup that is slow is not taken before something is tried, and a restore that is slow is not tried at all.
//!
//! Against what: the same databases by their Unix sockets, with the `pg_dump` and `pg_restore` beside the servers. For one
//! database, `pg_dump -Fc` as it is (gzip) and with `--compress=zstd:1`; a build without zstd pipes `pg_dump -Fc -Z0` into
//! `zstd -1`. For eight, the loop that people write. For a restore, `pg_restore -j2` of the gzip dump into a new database,
//! which neither analyses nor compares; the helper says how much of its time that took, so both figures are told.
//!
//! An incremental backup has no like among those tools; it is measured against a full one: once where a row of a small table
//! has changed beside the large ones, once where nothing has.
//!
//! How: text, JSONB, numbers and times as applications have them, not zeros. A round measures each once; the median counts.
//! What one step wrote is on the disk before the next begins. Memory is the largest resident set (`VmHWM`) of the helper, read
//! while it runs.

#![expect(clippy::disallowed_methods, reason = "no part of the helper: this starts it, and clients, from outside")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod support;

use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use serde_json::Value;

use support::{DATABASES, Databases, Figures, Server, ask, median, report, run, run_watched};

/// Rows of each table in the large database, and in each of the others.
const ROWS: usize = 300_000;
const ROWS_OF_OTHERS: usize = 60_000;
/// The large one.
const LARGE: &str = "learning";

const GZIP: &str = "pg_dump -Fc";
const ZSTD: &str = "pg_dump, zstd:1";
const BACKUP: &str = "backup";
const CHANGED: &str = "incremental, 1 row changed";
const SAME: &str = "incremental, nothing changed";
const LOOP: &str = "pg_dump -Fc, 8 in turn";
const SET: &str = "backup, 8 in one cut";
const PG_RESTORE: &str = "pg_restore -j2";
const FILLED: &str = "restore but for the proof";
const RESTORE: &str = "restore";
const SWAP: &str = "swap";
const UNDO: &str = "undo";
const VERIFY: &str = "verify";
const MEMORY_OF_BACKUP: &str = "memory of backup";
const MEMORY_OF_RESTORE: &str = "memory of restore";
/// Odd, so that the median is a figure that was measured.
const ROUNDS: usize = 3;

fn main() -> Result<ExitCode> {
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: `cargo bench --bench backup` does that");
        return Ok(ExitCode::SUCCESS);
    }
    println!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim_end());
    let databases = Databases::start(|_| Ok(()))?;
    databases.psql_each(|server| {
        let rows = if server.name == LARGE { ROWS } else { ROWS_OF_OTHERS };
        vec!["-c".into(), tables(rows)]
    })?;
    let large = databases.servers.iter().find(|server| server.name == LARGE).context("the large database")?;
    let has_zstd = run(large.client("pg_dump").args(["-Fc", "-s", "--compress=zstd:1", "-f", "/dev/null"])).is_ok();
    let has_program = run(Command::new("zstd").arg("--version")).is_ok();
    println!("pg_dump has zstd: {has_zstd}; `zstd` is here: {has_program}");
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        let mut round_of = Round { databases: &databases, large, figures: &mut figures };
        round_of.backups(has_zstd, has_program).with_context(|| format!("round {round}"))?;
        round_of.restores().with_context(|| format!("round {round}"))?;
    }
    drop(databases);
    let times = |name, times: f64| median(&figures, name).map(|median| median * times);
    let least = [times(GZIP, 1.0 / 2.5), times(ZSTD, 1.15)].into_iter().flatten().reduce(f64::min);
    let is_met = report(
        &figures,
        &[
            (GZIP, "ms", None),
            (ZSTD, "ms", None),
            (BACKUP, "ms", least),
            (CHANGED, "ms", times(BACKUP, 0.25)),
            (SAME, "ms", times(BACKUP, 0.25)),
            (LOOP, "ms", None),
            (SET, "ms", times(LOOP, 1.0 / 1.6)),
            (PG_RESTORE, "ms", None),
            (FILLED, "ms", times(PG_RESTORE, 1.1)),
            (RESTORE, "ms", times(PG_RESTORE, 1.5)),
            (SWAP, "ms", Some(50.0)),
            (UNDO, "ms", Some(50.0)),
            (VERIFY, "ms", None),
            (MEMORY_OF_BACKUP, "MB", Some(128.0)),
            (MEMORY_OF_RESTORE, "MB", Some(128.0)),
        ],
    );
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Answers of learners and events about them: texts, JSONB, numbers, times, with what an application has of indexes.
fn tables(rows: usize) -> String {
    format!(
        "SET synchronous_commit = off;
        CREATE FUNCTION pg_temp.word(n integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT (ARRAY['the', 'of', 'and',
            'to', 'learn', 'memory', 'forget', 'repeat', 'interval', 'answer', 'question', 'harvest', 'river', 'mountain',
            'quickly', 'slowly', 'carefully', 'yesterday', 'tomorrow', 'however', 'although', 'because', 'between', 'during',
            'thorough', 'through', 'thought', 'though', 'language', 'grammar', 'vocabulary', 'sentence', '単語', '言葉',
            'pronounce', 'listen', 'write', 'read', 'speak', 'understand'])[1 + abs(hashint4(n)) % 40] $$;
        CREATE TABLE answers (id bigint PRIMARY KEY, session uuid NOT NULL, learner integer NOT NULL, sentence text NOT NULL,
            is_right boolean, score numeric(6, 3), weight double precision, answered timestamptz NOT NULL);
        INSERT INTO answers SELECT id, md5((id / 20)::text)::uuid, abs(hashint4(id)) % 20000, (SELECT string_agg(
            pg_temp.word(id * 31 + n), ' ') FROM generate_series(1, 6 + id % 15) AS n), id % 3 > 0, abs(hashint4(id)) % 1000000 /
            1000.0, sqrt(id), timestamptz '2026-01-05 09:00+00' + id * interval '17.31 seconds'
            FROM generate_series(1, {rows}) AS id;
        CREATE TABLE events (id bigint PRIMARY KEY, kind text NOT NULL, payload jsonb NOT NULL, at timestamptz NOT NULL);
        INSERT INTO events SELECT id, 'item.' || pg_temp.word(id % 12), jsonb_build_object('learner', abs(hashint4(id)) % 20000,
            'word', pg_temp.word(id), 'elapsed_ms', abs(hashint4(id * 7)) % 9000, 'tags', jsonb_build_array(pg_temp.word(id * 3),
            pg_temp.word(id * 5)), 'next', timestamptz '2026-01-05 09:00+00' + id * interval '3 minutes', 'trace',
            md5(id::text)), timestamptz '2026-01-05 09:00+00' + id * interval '9.07 seconds'
            FROM generate_series(1, {rows}) AS id;
        CREATE TABLE visits (day date PRIMARY KEY, count integer NOT NULL);
        INSERT INTO visits VALUES ('2026-01-05', 0);
        CREATE INDEX ON answers (learner, answered);
        CREATE INDEX ON events (kind, at);
        ANALYZE"
    )
}

struct Round<'a> {
    databases: &'a Databases,
    large: &'a Server,
    figures: &'a mut Figures,
}

impl Round<'_> {
    fn note(&mut self, name: &'static str, figure: f64) {
        self.figures.entry(name).or_default().push(figure);
    }

    /// A folder that is new, with everything before it on the disk.
    fn calm(&self) -> Result<std::path::PathBuf> {
        let folder = self.databases.path("dumps");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        self.databases.say(&["CHECKPOINT"])?;
        rustix::fs::sync();
        Ok(folder)
    }

    fn backups(&mut self, has_zstd: bool, has_program: bool) -> Result<()> {
        let dump = |server: &Server, file: &std::path::Path, more: &[&str]| {
            run(server.client("pg_dump").arg("-Fc").args(more).arg("-f").arg(file))
        };
        let folder = self.calm()?;
        if has_zstd {
            let took = dump(self.large, &folder.join("zstd"), &["--compress=zstd:1"])?;
            self.note(ZSTD, took);
        } else if has_program {
            let pg_dump = self.large.client("pg_dump");
            let mut pipe = Command::new("sh");
            pipe.args(["-c", "\"$0\" -Fc -Z0 | zstd -q -1 -o \"$1\" && sync \"$1\""]);
            pipe.arg(pg_dump.get_program()).arg(folder.join("zstd"));
            pipe.envs(pg_dump.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let took = run(&mut pipe)?;
            self.note(ZSTD, took);
        }
        self.calm()?;
        let (took, memory) = run_watched(self.databases.helper().args(["backup", LARGE]))?;
        self.note(BACKUP, took);
        memory.into_iter().for_each(|memory| self.note(MEMORY_OF_BACKUP, memory));
        let took = run(self.databases.helper().args(["backup", "verify", LARGE]))?;
        self.note(VERIFY, took);
        self.databases.say(&["UPDATE visits SET count = count + 1"])?;
        for name in [CHANGED, SAME] {
            // A backup has its second for a name, and waits for one of its own.
            std::thread::sleep(Duration::from_secs(1));
            let took = run(self.databases.helper().args(["backup", LARGE, "--incremental"]))?;
            self.note(name, took);
        }
        self.calm()?;
        let took = run(self.databases.helper().arg("backup").args(DATABASES))?;
        self.note(SET, took);
        let folder = self.calm()?;
        let mut all = 0.0;
        for server in &self.databases.servers {
            let took = dump(server, &folder.join(server.name), &[])?;
            if server.name == LARGE {
                self.note(GZIP, took);
            }
            all += took;
        }
        self.note(LOOP, all);
        Ok(())
    }

    /// The dumps of all databases are there.
    fn restores(&mut self) -> Result<()> {
        let dump = self.databases.path("dumps").join(LARGE);
        self.databases.say(&["CHECKPOINT"])?;
        rustix::fs::sync();
        run(self.large.client("createdb").args(["--template=template0", "restored"]))?;
        let took = run(self.large.client("pg_restore").args(["-j2", "--dbname=restored"]).arg(dump))?;
        self.note(PG_RESTORE, took);
        run(self.large.client("dropdb").args(["--force", "restored"]))?;
        self.calm()?;
        let restore = |more: &[&str]| ask(self.databases.helper().args(["restore", LARGE, "--json"]).args(more));
        let (took, memory, said) = restore(&[])?;
        let (_, _, undone) = restore(&["--undo"])?;
        let millis =
            |said: &Value| said.as_f64().map(|seconds| seconds * 1e3).context("a restore says how long it took");
        let restored = &said["restored"][0];
        self.note(RESTORE, took);
        self.note(FILLED, took - millis(&restored["proving_seconds"])?);
        self.note(SWAP, millis(&restored["swap_seconds"])?);
        self.note(UNDO, millis(&undone["undone"][0]["swap_seconds"])?);
        memory.into_iter().for_each(|memory| self.note(MEMORY_OF_RESTORE, memory));
        run(self.databases.helper().args(["restore", LARGE, "--drop-old", "--yes"]))?;
        Ok(())
    }
}
