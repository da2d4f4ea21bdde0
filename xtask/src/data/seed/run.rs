//! Runs the seeds of a set: all databases at once, each in one transaction, and no commit before all have succeeded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Row};

use super::files::{Kind, SeedFile};
use super::record::{self, Dying, Filled};
use super::trouble::{self, Remedy, Trouble};
use super::{Job, State, csv, files, indexes};
use crate::data::target::AtWork;
use crate::engine::postgres::{FIRST_OF_USERS, Lasting, uncompressed_pages, without_limits_of_waiting};
use crate::ui::{self, Exit, Failure, progress::Waiting, units};

/// Two seeds at once in one database take turns by this number, which means nothing to others: `xtaskseed`, shortened.
const LOCK: i64 = 0x7874_736b_7365_6564;
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a statement may wait for a table that somebody else holds.
const TABLE_PATIENCE: &str = "30s";

/// How much is to be done about rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    Keep,
    /// Empties what seeds filled, first.
    Empty,
}

#[derive(Debug)]
pub struct Outcome {
    pub files: Vec<Filled>,
    pub took: Duration,
    /// Another run was faster: the very same seeds were there when the lock was ours.
    pub was_done: bool,
}

impl Outcome {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }
}

/// What the line at the bottom says while it works.
struct Progress {
    waiting: Waiting,
    now: RefCell<BTreeMap<String, String>>,
}

impl Progress {
    fn say(&self, database: &str, what: Option<String>) {
        let mut now = self.now.borrow_mut();
        match what {
            Some(what) => drop(now.insert(database.to_owned(), what)),
            None => drop(now.remove(database)),
        }
        let line = now.iter().map(|(database, what)| format!("{database} {what}")).collect::<Vec<_>>().join(" · ");
        self.waiting.say(line);
    }
}

/// Runs all, in the order given. An error has changed nothing, but for one between the commits, which says so.
pub async fn all(jobs: &mut [Job<'_>], rows: Rows, can_wait: bool, hint: &str) -> Result<Vec<Outcome>> {
    let progress = Progress { waiting: Waiting::new("seeding"), now: RefCell::default() };
    let count = jobs.len();
    let at_work = AtWork::new(count);
    let preparing = jobs.iter_mut().map(|job| prepare(job, rows, can_wait, count, &at_work, hint, &progress));
    // The first that fails ends the others: their connections are closed, and their servers roll back.
    let outcomes = try_join_all(preparing).await?;
    let committing = jobs.iter_mut().map(|job| sqlx::raw_sql("COMMIT").execute(&mut job.target.connection));
    let committed = join_all(committing).await;
    let names = |is_done: bool| {
        let those = jobs.iter().zip(&committed).filter(|(_, done)| done.is_ok() == is_done);
        those.map(|(job, _)| job.target.name()).collect::<Vec<_>>().join(", ")
    };
    if let Some(Err(error)) = committed.iter().find(|done| done.is_err()) {
        let done = names(true);
        let body = if done.is_empty() { String::new() } else { format!("  committed before: {done}") };
        bail!(
            Failure::new(Exit::Failed, format!("no answer to the commit of {}: {error}", names(false)))
                .body(body)
                .hint(format!("{hint} does what is missing"))
        );
    }
    Ok(outcomes)
}

/// Everything but the commit. The planner is told nothing of what was filled: autovacuum does that within a minute of the
/// commit, from a better sample than anybody would wait for.
async fn prepare(
    job: &mut Job<'_>,
    rows: Rows,
    can_wait: bool,
    count: usize,
    at_work: &AtWork,
    hint: &str,
    progress: &Progress,
) -> Result<Outcome> {
    let begun = Instant::now();
    let name = job.target.name().to_owned();
    let connection = &mut job.target.connection;
    // A server notices that its client is gone only when it is told to look: else a killed run's work goes on for minutes.
    // One that compiles queries takes ten times as long for what is run once.
    let begin = format!(
        "BEGIN; SET LOCAL lock_timeout = '{TABLE_PATIENCE}'; SET LOCAL client_connection_check_interval = '200ms'; \
         SET LOCAL jit = off; SET LOCAL xtask.scale = '{}'; SELECT {}, {}; {}; SELECT {}",
        job.scale,
        uncompressed_pages(Lasting::Transaction),
        without_limits_of_waiting(connection, Lasting::Transaction),
        try_lock(),
        record::question(),
    );
    let answers = sqlx::raw_sql(AssertSqlSafe(begin)).fetch_all(&mut *connection).await?;
    let now = match &answers[..] {
        // What was said after the lock was taken is what is there.
        [_, locked, recorded] if locked.try_get(0)? => {
            record::read_on(recorded, connection, Some(&job.recorded)).await?
        }
        _ => {
            lock(connection, &name, can_wait, progress).await?;
            record::read(connection).await?
        }
    };
    if now != job.recorded {
        let mut faults = Vec::new();
        job.files.iter_mut().try_for_each(|file| files::check(file, &mut faults))?;
        if rows == Rows::Keep && State::of(&job.files, &now, job.scale) == State::Same {
            return Ok(Outcome { files: Vec::new(), took: begun.elapsed(), was_done: true });
        }
        bail!(
            Failure::new(
                Exit::Failed,
                format!("`{name}` was seeded by somebody else in the meantime, nothing was changed")
            )
            .hint(format!("{hint} again"))
        );
    }
    let mut before = BTreeMap::new();
    if rows == Rows::Empty {
        progress.say(&name, Some("empties its tables".into()));
        let dying = record::dying(connection, &now, &csv_tables(&job.files)).await?;
        if let Some(truncate) = truncate(&dying) {
            sqlx::raw_sql(AssertSqlSafe(truncate)).execute(&mut *connection).await.map_err(|error| {
                failed(&name, "emptying its tables", count, of_server(&error), hint).unwrap_or_else(|| error.into())
            })?;
        }
        // A trigger of TRUNCATE may have put rows somewhere.
        before = inserted(connection).await?;
    }
    let mut filled = Vec::new();
    let files = job.files.len();
    for (index, file) in job.files.iter_mut().enumerate() {
        let place = format!("{} ({} of {files})", file.name, index + 1);
        progress.say(&name, Some(place.clone()));
        let done = one(connection, file, &mut before, |step| {
            let all = units::megabytes(file.bytes);
            progress.say(
                &name,
                Some(match step {
                    Step::Sent(bytes) => format!("{place}, {} of {all}", units::megabytes(bytes)),
                    Step::Indexes => format!("{place}, indexes"),
                }),
            );
        });
        let checksum = match done.await {
            Ok(checksum) => checksum,
            Err(Stopped { error, trouble }) => {
                let failure = failed(&name, &format!("`{}`", file.name), count, trouble, hint);
                return Err(failure.unwrap_or_else(|| error.context(format!("`{}` of `{name}` failed", file.name))));
            }
        };
        file.checksum = Some(checksum.clone());
        let after = inserted(connection).await?;
        let more = |(table, rows): (&u32, &u64)| {
            let more = rows.saturating_sub(before.get(table).copied().unwrap_or(0));
            (more > 0).then_some((*table, more))
        };
        let (tables, counts): (Vec<u32>, Vec<u64>) = after.iter().filter_map(more).unzip();
        filled.push(Filled { file: file.name.clone(), checksum, rows: counts.iter().sum(), tables });
        before = after;
    }
    // What is checked at the commit is checked while all can still roll back.
    sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *connection).await.map_err(|error| {
        let trouble = of_server(&error);
        failed(&name, "a deferred constraint", count, trouble, hint).unwrap_or_else(|| error.into())
    })?;
    record::write(connection, &now, job.scale, &filled, at_work).await.map_err(|error| {
        let trouble = of_server(&error);
        failed(&name, "the record of what ran", count, trouble, hint).unwrap_or_else(|| error.into())
    })?;
    progress.say(&name, None);
    Ok(Outcome { files: filled, took: begun.elapsed(), was_done: false })
}

pub fn csv_tables(seeds: &[SeedFile]) -> Vec<String> {
    let tables = seeds.iter().filter_map(|file| match &file.kind {
        Kind::Csv(table) => Some(table.clone()),
        Kind::Sql => None,
    });
    tables.collect()
}

fn truncate(dying: &[Dying]) -> Option<String> {
    let tables: Vec<&str> = dying.iter().map(|dying| dying.table.as_str()).collect();
    (!tables.is_empty()).then(|| format!("TRUNCATE {} RESTART IDENTITY CASCADE", tables.join(", ")))
}

/// Why a file did not go through, and where in it.
struct Stopped {
    error: anyhow::Error,
    trouble: Option<Trouble>,
}

impl<E: Into<anyhow::Error>> From<E> for Stopped {
    fn from(error: E) -> Stopped {
        Stopped { error: error.into(), trouble: None }
    }
}

/// How far a file is.
enum Step {
    /// So many bytes went to the server.
    Sent(u64),
    /// Its rows are there, and the indexes of its table are made.
    Indexes,
}

/// Runs a file; gives its checksum.
async fn one(
    connection: &mut PgConnection,
    file: &SeedFile,
    before: &mut BTreeMap<u32, u64>,
    told: impl FnMut(Step),
) -> Result<String, Stopped> {
    let checksum = match &file.kind {
        Kind::Sql => {
            let text = files::text(file)?;
            let checksum = file.checksum.clone().context("it was not read")?;
            // Every statement that succeeds says so, which tells the one that does not.
            let mut done = 0;
            let mut results = sqlx::raw_sql(AssertSqlSafe(text)).fetch_many(&mut *connection);
            loop {
                match results.try_next().await {
                    Ok(Some(result)) => done += usize::from(result.is_left()),
                    Ok(None) => break,
                    Err(error) => {
                        let text = files::text(file)?;
                        let trouble = of_database(&error).map(|said| trouble::of_sql(&file.shown, &text, done, said));
                        return Err(Stopped { error: error.into(), trouble });
                    }
                }
            }
            checksum
        }
        Kind::Csv(table) => fill(connection, file, table, before, told).await?,
    };
    if file.has_changed() {
        return Err(anyhow::anyhow!("`{}` was changed while it was read", file.shown.display()).into());
    }
    Ok(checksum)
}

/// Fills a table from a CSV file, a large one without indexes at first. Should that not do, it is as if it had not been tried:
/// `before` is what was counted until then.
async fn fill(
    connection: &mut PgConnection,
    file: &SeedFile,
    table: &str,
    before: &mut BTreeMap<u32, u64>,
    mut told: impl FnMut(Step),
) -> Result<String, Stopped> {
    let columns = csv::header(&file.path)?.map_err(anyhow::Error::msg)?;
    let statement = csv::statement(table, &columns);
    let dropped = match file.bytes {
        indexes::WORTHWHILE.. => indexes::drop_from(connection, table, &columns).await?,
        _ => None,
    };
    let checksum = copy(connection, file, &statement, &mut told).await?;
    let Some(dropped) = dropped else { return Ok(checksum) };
    told(Step::Indexes);
    match dropped.make_again(connection).await {
        Ok(()) => Ok(checksum),
        Err(error) if of_database(&error).is_none() => Err(error.into()),
        Err(_) => {
            // The table as it was takes the rows after all, or says which line it does not.
            indexes::undo(connection).await?;
            // Rows that are gone again stay in the server's count.
            *before = inserted(connection).await?;
            copy(connection, file, &statement, told).await
        }
    }
}

/// Sends a CSV file.
async fn copy(
    connection: &mut PgConnection,
    file: &SeedFile,
    statement: &str,
    mut told: impl FnMut(Step),
) -> Result<String, Stopped> {
    csv::copy(connection, file, statement, |bytes| told(Step::Sent(bytes))).await.map_err(|error| {
        let said = error.downcast_ref::<sqlx::Error>().and_then(of_database);
        let trouble = said.map(|said| trouble::of_csv(&file.shown, said));
        Stopped { error, trouble }
    })
}

fn of_database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
}

fn of_server(error: &sqlx::Error) -> Option<Trouble> {
    of_database(error).map(|said| Trouble { body: format!("  {}", said.message()), ..Trouble::default() })
}

fn failed(name: &str, what: &str, count: usize, trouble: Option<Trouble>, hint: &str) -> Option<anyhow::Error> {
    let trouble = trouble?;
    let nothing = match count {
        1 => "nothing was changed".to_owned(),
        _ => format!("nothing was changed in any of the {count} databases"),
    };
    let hint = match trouble.remedy {
        Some(Remedy::Migrate) => {
            format!("`cargo xtask migrate` makes tables, if it is one of a migration; then {hint}")
        }
        Some(Remedy::Again) => format!("where rows are in the way that the seeds did not make: {hint} with `--again`"),
        Some(Remedy::Unlock) => format!("somebody holds a table of `{name}`: end it, and run {hint} again"),
        None => format!("mend the file and run {hint} again"),
    };
    let failure = Failure::new(Exit::Failed, format!("{what} of `{name}` failed, {nothing}")).body(trouble.body);
    Some(failure.hint(hint).into())
}

/// The rows that this transaction put into each table. Asked after every file, so not of the view for it, which counts
/// twelve things more.
async fn inserted(connection: &mut PgConnection) -> Result<BTreeMap<u32, u64>> {
    let sql = format!(
        "SELECT oid, pg_stat_get_xact_tuples_inserted(oid) FROM pg_class WHERE oid >= '{FIRST_OF_USERS}' \
         AND relkind IN ('r', 'm') AND relpersistence <> 't' AND relname <> '_xtask_seeds'"
    );
    let mut tables = BTreeMap::new();
    for row in sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await? {
        let (Oid(table), rows) = (row.try_get(0)?, u64::try_from(row.try_get::<i64, _>(1)?)?);
        if rows > 0 {
            tables.insert(table, rows);
        }
    }
    Ok(tables)
}

fn try_lock() -> String {
    format!("SELECT pg_try_advisory_xact_lock({LOCK})")
}

/// Waits until no other seed works on the database, and says for whom.
async fn lock(connection: &mut PgConnection, name: &str, can_wait: bool, progress: &Progress) -> Result<()> {
    let mut told = false;
    loop {
        if sqlx::raw_sql(AssertSqlSafe(try_lock())).fetch_one(&mut *connection).await?.try_get(0)? {
            return Ok(());
        }
        if !told || !can_wait {
            let holder = holder(connection).await.context("cannot ask who holds the lock")?;
            let Some(holder) = holder else { continue };
            let held = format!("another seed works on `{name}`: {holder}");
            if !can_wait {
                bail!(Failure::new(Exit::Failed, held).hint("wait for it, or run this without `--no-wait`"));
            }
            ui::tell(format!("waiting: {held}"));
            progress.say(name, Some(format!("waits for {holder}")));
            told = true;
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

async fn holder(connection: &mut PgConnection) -> Result<Option<String>> {
    let sql = "SELECT pid, application_name, to_char(xact_start, 'HH24:MI:SS') || ' UTC' \
        FROM pg_locks JOIN pg_stat_activity USING (pid) \
        WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid::bigint = $1 >> 32 \
        AND objid::bigint = $1 & 4294967295 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut rows = sqlx::query(sql).bind(LOCK).fetch(connection);
    let Some(row) = rows.next().await.transpose()? else { return Ok(None) };
    let (pid, application): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let since = row.try_get::<Option<String>, _>(2)?.map_or_else(String::new, |since| format!(", since {since}"));
    Ok(Some(format!("`{application}`, server process {pid}{since}")))
}
