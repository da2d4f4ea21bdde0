//! Filling an empty database from a backup: definitions by pg_restore, rows by several connections at once, indexes and
//! constraints by pg_restore. The first error ends it.

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use archive::custom::{Entry, Head};
use archive::part::Seal;
use futures_util::future::try_join_all;
use sql::{identifier, literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::sync::{Mutex, mpsc};

use crate::data::backup::export;
use crate::data::backup::manifest::{Database, Manifest};
use crate::data::backup::store::Kept;
use crate::data::locale::OtherLocale;
use crate::data::side::Side;
use crate::engine::clients::{Clients, SHELL};
use crate::tools::{self, Piped};

/// What goes to the server at once, in bytes, and how much of it is decoded ahead.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;
/// A table above this, in bytes, is written frozen into a file of its own: no server has to touch its rows again.
const LARGE: u64 = 4 << 20;
/// The database may be lost until it is swapped, so its commits wait for no disk. The login is an instance's, a superuser's,
/// which may [write pages as they are](crate::engine::postgres::uncompressed_pages).
pub const OPTIONS: (&str, &str) = (
    "PGOPTIONS",
    "-c synchronous_commit=off -c maintenance_work_mem=128MB -c wal_compression=off -c statement_timeout=0 -c lock_timeout=0",
);
/// As pg_restore sets up its own connections.
const SESSION: &str = "SET synchronous_commit = off; SET wal_compression = off; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET standard_conforming_strings = on; SET search_path = ''; SET row_security = off; SET xmloption = content";
/// A database above this, in bytes, gets its indexes by two processes.
const INDEXES_AT_ONCE: u64 = 32 << 20;

/// A backup that is about to be restored.
#[derive(Clone)]
pub struct Source {
    pub kept: Kept,
    pub manifest: Arc<Manifest>,
    pub database: Arc<Database>,
    pub head: Arc<Head>,
    pub seal: Option<Arc<dyn Seal + Send + Sync>>,
}

impl Source {
    /// The roles that the backup needs: those that its server knew of, and owners, among which is that server's first role.
    fn roles(&self) -> BTreeSet<&str> {
        let owners = self.head.entries.iter().map(|entry| entry.owner.as_str()).filter(|owner| !owner.is_empty());
        owners.chain(self.database.roles.iter().map(String::as_str)).collect()
    }

    /// What the backup says of the database itself and not of its content, where `live` is its name.
    pub fn settings(&self, live: &str) -> String {
        if self.database.database != live {
            return String::new();
        }
        let own = self.head.entries.iter().filter(|entry| {
            entry.kind == "DATABASE PROPERTIES"
                || ["COMMENT", "ACL"].contains(&entry.kind.as_str()) && entry.tag.starts_with("DATABASE ")
        });
        own.map(|entry| entry.definition.as_str()).collect()
    }

    pub fn seal(&self) -> Option<&dyn Seal> {
        self.seal.as_deref().map(|seal| seal as &dyn Seal)
    }
}

/// What was not as the backup wants it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Roles that were made because something in the backup is theirs; nobody can log in as one of them.
    pub new_roles: Vec<String>,
    pub other_locale: Option<OtherLocale>,
}

/// Fills the database; `written` is raised by every byte of rows.
pub async fn fill(source: &Source, clients: &Clients, side: &Side, written: &AtomicU64) -> Result<Loaded> {
    let new_roles = provide_roles(side, &source.roles()).await?;
    definitions(source, clients, side).await?;
    rows(source, side, written).await?;
    indexes(source, clients, side).await?;
    Ok(Loaded { new_roles, other_locale: side.other_locale.clone() })
}

/// Roles belong to the server, so a dump does not have them.
async fn provide_roles(side: &Side, wanted: &BTreeSet<&str>) -> Result<Vec<String>> {
    let mut connection = side.connect().await?;
    let rows = sqlx::raw_sql("SELECT rolname::text FROM pg_roles").fetch_all(&mut connection).await?;
    let present: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let missing = wanted.iter().filter(|role| !present.iter().any(|one| one == *role)).map(|role| (*role).to_owned());
    let missing: Vec<String> = missing.collect();
    for role in &missing {
        let make = format!("CREATE ROLE {} NOLOGIN", identifier(role));
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(missing)
}

/// Everything that rows need, sequences and large objects.
async fn definitions(source: &Source, clients: &Clients, side: &Side) -> Result<()> {
    let mut command = clients.command("pg_restore", &side.name, &[OPTIONS]);
    command.args(["--exit-on-error", "--section=pre-data", "--section=data", "--no-password"]);
    command.arg(format!("--dbname={}", side.name));
    let source = source.clone();
    tokio::task::spawn_blocking(move || {
        feed(command, |input| {
            let wanted = |entry: &Entry| !entry.is_rows();
            input.write_all(&source.head.with(wanted))?;
            export::blocks(&source.kept, &source.database, &source.head, source.seal(), &wanted, input)
        })
    })
    .await?
    .context("cannot restore the definitions")
}

/// Runs pg_restore and writes an archive to it. Where both fail, its own words say why.
fn feed(command: std::process::Command, write: impl FnOnce(&mut ChildStdin) -> Result<()>) -> Result<()> {
    let (mut process, output) = tools::pipe(command, Stdio::piped())?;
    drop(output);
    let Some(mut input) = process.stdin() else { bail!("pg_restore takes no input") };
    let written = write(&mut input);
    drop(input);
    finish(process)?;
    written
}

fn finish(process: Piped) -> Result<()> {
    process.finish().map(drop)
}

/// The largest tables first, on as many connections as there are processors.
async fn rows(source: &Source, side: &Side, written: &AtomicU64) -> Result<()> {
    let mut tables: Vec<(u64, i64, &str)> = Vec::new();
    for table in source.database.tables.iter().filter(|table| table.evidence.rows > 0) {
        tables.push((source.manifest.part(&table.part)?.raw_bytes, table.dump_id, &table.part));
    }
    tables.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4).min(tables.len());
    let queue = Mutex::new(VecDeque::from(tables));
    let queue = &queue;
    try_join_all((0..workers).map(async |_| {
        let mut connection = side.connect().await?;
        let encoding = format!("{SESSION}; SET client_encoding = {}", literal(&source.database.encoding));
        sqlx::raw_sql(AssertSqlSafe(encoding)).execute(&mut connection).await?;
        loop {
            let next = queue.lock().await.pop_front();
            let Some((bytes, dump_id, file)) = next else { break };
            let entry = source.head.entry(dump_id).with_context(|| format!("the dump does not list `{file}`"))?;
            let copied = table(&mut connection, source, entry, file, bytes, written).await;
            copied.with_context(|| format!("cannot restore the rows of `{}.{}`", entry.schema, entry.tag))?;
        }
        Ok::<_, anyhow::Error>(connection.close().await?)
    }))
    .await?;
    Ok(())
}

async fn table(
    connection: &mut PgConnection,
    source: &Source,
    entry: &Entry,
    file: &str,
    bytes: u64,
    written: &AtomicU64,
) -> Result<()> {
    let copy = entry.copy.trim().trim_end_matches(';');
    // An extension has put rows of its own into the tables that it brings: those stay.
    let is_of_an_extension = !source
        .head
        .entries
        .iter()
        .any(|one| one.kind == "TABLE" && one.schema == entry.schema && one.tag == entry.tag);
    if bytes < LARGE || entry.partition_root().is_some() || is_of_an_extension {
        return stream(connection, source, file, copy, written).await.map(drop);
    }
    // Rows that are frozen as they come need a table that this very transaction has emptied.
    let name = format!("{}.{}", identifier(&entry.schema), identifier(&entry.tag));
    let begin = format!("BEGIN; TRUNCATE ONLY {name}");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    stream(connection, source, file, &format!("{copy} WITH (FREEZE)"), written).await?;
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

/// Sends the rows of a part with a COPY statement.
pub async fn stream(
    connection: &mut PgConnection,
    source: &Source,
    file: &str,
    statement: &str,
    written: &AtomicU64,
) -> Result<u64> {
    let mut copy = connection.copy_in_raw(statement).await?;
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let (kept, file_there, seal) = (source.kept.clone(), file.to_owned(), source.seal.clone());
    let reading = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut reader = kept.read(&file_there, seal.as_deref().map(|seal| seal as &dyn Seal))?;
        loop {
            let mut piece = vec![0; PIECE];
            let mut length = 0;
            // A decoder gives little at once, and every message costs both sides something.
            while length < PIECE {
                match reader.read(&mut piece[length..])? {
                    0 => break,
                    read => length += read,
                }
            }
            piece.truncate(length);
            if length == 0 || sender.blocking_send(piece).is_err() {
                return Ok(());
            }
        }
    });
    while let Some(piece) = pieces.recv().await {
        let length = piece.len() as u64;
        copy.send(piece).await?;
        written.fetch_add(length, Ordering::Relaxed);
    }
    if let Err(error) = reading.await? {
        copy.abort("the backup could not be read").await?;
        return Err(error).with_context(|| format!("cannot read `{file}`"));
    }
    Ok(copy.finish().await?)
}

/// Indexes, constraints, triggers, materialised views: what is quicker, or possible at all, once the rows are there.
async fn indexes(source: &Source, clients: &Clients, side: &Side) -> Result<()> {
    let is_large = source.database.size_bytes > INDEXES_AT_ONCE;
    let options = ["--exit-on-error", "--section=post-data", "--no-password"].map(str::to_owned);
    let mut options = Vec::from(options);
    options.push(format!("--dbname={}", side.name));
    let command = match is_large {
        // Several at once need a file to read again and again.
        true => {
            options.push("--jobs=2".to_owned());
            let mut command = clients.command(SHELL, &side.name, &[OPTIONS]);
            let pg_restore = clients.path_of("pg_restore");
            let script = "file=$(mktemp) && cat >\"$file\" && \"$@\" \"$file\"; code=$?; rm -f \"$file\"; exit $code";
            command.args(["-c", script, "sh"]).arg(pg_restore).args(options);
            command
        }
        false => {
            let mut command = clients.command("pg_restore", &side.name, &[OPTIONS]);
            command.args(options);
            command
        }
    };
    let source = source.clone();
    tokio::task::spawn_blocking(move || {
        feed(command, |input| Ok(input.write_all(&source.head.with(|entry| !entry.is_rows() && !entry.has_data))?))
    })
    .await?
    .context("cannot restore indexes and constraints")
}

/// Lets the server look at every table, on two connections at once: plans are good from the first query on.
pub async fn analyze(side: &Side) -> Result<()> {
    let mut connection = side.connect().await?;
    // Whoever looks at a table looks at its partitions and children, and foreign ones may be out of reach.
    let sql = format!(
        "WITH RECURSIVE foreign_below AS (SELECT inhparent FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'f' \
         UNION SELECT pg_inherits.inhparent FROM pg_inherits JOIN foreign_below ON inhrelid = foreign_below.inhparent) \
         SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
         WHERE relkind IN ('r', 'p', 'm') AND nspname <> 'information_schema' AND NOT starts_with(nspname, {}) \
         AND pg_class.oid NOT IN (SELECT inhparent FROM foreign_below) ORDER BY relpages DESC",
        literal("pg_")
    );
    let tables = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
    let tables: VecDeque<String> = tables.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let workers = tables.len().min(2);
    let queue = Mutex::new(tables);
    let queue = &queue;
    connection.close().await?;
    try_join_all((0..workers).map(async |_| {
        let mut connection = side.connect().await?;
        loop {
            let next = queue.lock().await.pop_front();
            let Some(table) = next else { break };
            sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE {table}"))).execute(&mut connection).await?;
        }
        Ok::<_, anyhow::Error>(connection.close().await?)
    }))
    .await
    .context("cannot analyze the restored tables")?;
    Ok(())
}
