//! Trying pending migrations on a copy of the real database: what each of them takes, locks, rewrites and touches, and the
//! rows that would make it fail. The copy goes away however this ends; what a killed run has left, the next one removes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sql::{identifier, literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::batch::{Outcome, StepError};
use super::execute::Job;
use super::failure::StepFailure;
use super::history::History;
use super::locks::Timeouts;
use super::plan::{self, Gaps, Segment, Step};
use super::script;
use super::{Member, source::Source};
use crate::data::side::{Purpose, Side};
use crate::data::target::Target;
use crate::engine::postgres::{self, Login, MAINTENANCE_DATABASE};
use crate::ui::{Exit, Failure};

/// How long our own connection may take to be gone, as the server sees it.
const LEAVING: Duration = Duration::from_secs(2);
/// Rows that an error shows.
const EXAMPLES: usize = 3;

/// What one migration did to the copy.
#[derive(Debug, Default, Serialize)]
pub struct StepReport {
    pub version: i64,
    pub description: String,
    pub seconds: f64,
    /// `table: ACCESS EXCLUSIVE`; held until the step is committed.
    pub locks: Vec<String>,
    /// Tables that were written anew, with their rows.
    pub rewritten: Vec<String>,
    /// Table to rows inserted, updated and deleted.
    pub rows: BTreeMap<String, u64>,
    pub no_transaction: bool,
}

#[derive(Debug)]
pub struct Report {
    pub database: String,
    pub steps: Vec<StepReport>,
    pub failure: Option<StepFailure>,
}

/// Rehearses one database. Its connection is given up, since a database can be copied only while nobody uses it.
pub async fn run(member: Member<'_>, gaps: Gaps, timeouts: Timeouts) -> Result<Report> {
    let Member { target, sources, history } = member;
    let database = target.name().to_owned();
    let steps = plan::pending(&database, &sources, &history, gaps).unwrap_or_default();
    if steps.is_empty() {
        return Ok(Report { database, steps: Vec::new(), failure: None });
    }
    let Target { service, postgres, door, login, connection } = target;
    connection.close().await?;
    let mut admin = postgres::open(&door, &login.user, MAINTENANCE_DATABASE).await?;
    wait_until_unused(&mut admin, &database, &login.database).await?;
    let copy = Side::make(&door, &login.user, Purpose::Rehearsal { of: &login.database })
        .await
        .with_context(|| format!("cannot copy `{}`", login.database))?;
    let connection = copy.connect().await?;
    let login = Login { database: copy.name.clone(), ..login };
    let mut target = Target { service, postgres, door, login, connection };
    let mut report = Report { database, steps: Vec::new(), failure: None };
    for step in steps {
        match one(&mut target, &sources, &step, timeouts).await? {
            Ok(done) => report.steps.push(done),
            Err(failure) => {
                report.failure = Some(failure);
                break;
            }
        }
    }
    target.connection.close().await?;
    copy.remove().await?;
    Ok(report)
}

/// Only a database that nobody uses can be copied; who does is told.
async fn wait_until_unused(admin: &mut PgConnection, database: &str, name: &str) -> Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let sql = format!(
            "SELECT concat(coalesce(nullif(application_name, ''), 'a client without a name'), ' (pid ', pid, ', since ', \
             to_char(backend_start, 'HH24:MI:SS'), ')') FROM pg_stat_activity \
             WHERE datname = {} AND backend_type = 'client backend'",
            literal(name)
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *admin).await?;
        if rows.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > LEAVING {
            let users = rows.iter().map(|row| Ok(format!("  {}\n", row.try_get::<String, _>(0)?)));
            let users: String = users.collect::<Result<_, sqlx::Error>>()?;
            bail!(
                Failure::new(Exit::Failed, format!("`{database}` is in use, and cannot be copied while it is"))
                    .body(users)
                    .hint("end these connections, then rehearse again")
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One step on the copy, committed there.
async fn one(
    target: &mut Target<'_>,
    sources: &[Source],
    step: &Step<'_>,
    timeouts: Timeouts,
) -> Result<Result<StepReport, StepFailure>> {
    let history = History::read(&mut target.connection, sources).await?;
    let before = files(&mut target.connection).await?;
    let mut report = StepReport {
        version: step.migration.version,
        description: step.migration.description.clone(),
        no_transaction: step.script.no_transaction,
        ..StepReport::default()
    };
    let segment = match step.script.no_transaction {
        true => Segment::Alone(step.clone()),
        false => Segment::Together(vec![step.clone()]),
    };
    let mut job = Job::new(target, sources, history, vec![segment]);
    if step.script.no_transaction {
        let done = match job.alone(step, timeouts).await? {
            Ok(done) => done,
            Err(failure) => return Ok(Err(failure)),
        };
        report.seconds = done.took.as_secs_f64();
    } else {
        let batch = job.batch(std::slice::from_ref(step), false, timeouts);
        match job.send(&batch, timeouts).await? {
            Outcome::Done(done) => report.seconds = done.nanoseconds.first().map_or(0.0, |took| *took as f64 / 1e9),
            Outcome::Failed(error) => {
                job.say("ROLLBACK".into()).await?;
                let mut failure = job.failure(step, *error);
                let notes = culprits(&mut target.connection, &failure).await.unwrap_or_default();
                failure.error.notes.extend(notes);
                return Ok(Err(failure));
            }
            Outcome::Lost(error) => return Err(error),
            Outcome::Locked | Outcome::Changed => bail!("the copy is used by somebody else"),
        }
        report.locks = locks(&mut target.connection, &before).await?;
        report.rows = rows(&mut target.connection).await?;
    }
    let after = files(&mut target.connection).await?;
    let rewritten = before.iter().filter(|(table, file)| after.get(*table).is_some_and(|now| now.0 != file.0));
    report.rewritten = rewritten.map(|(table, _)| table.clone()).collect();
    if !step.script.no_transaction {
        sqlx::raw_sql("COMMIT").execute(&mut target.connection).await?;
    }
    Ok(Ok(report))
}

/// The file of each table of people's own.
async fn files(connection: &mut PgConnection) -> Result<BTreeMap<String, (String, i64)>> {
    let sql = "SELECT oid::regclass::text, coalesce(pg_relation_filenode(oid), 0)::text, oid::bigint FROM pg_class \
               WHERE relkind IN ('r', 'm') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)' \
                 AND relname !~ '^_(sqlx|xtask)_'";
    let rows = sqlx::raw_sql(sql).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

/// What the open transaction holds of the tables that were there before it, beyond what a reader holds.
async fn locks(connection: &mut PgConnection, before: &BTreeMap<String, (String, i64)>) -> Result<Vec<String>> {
    let sql = "SELECT relation::bigint, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' \
               AND mode <> 'AccessShareLock' ORDER BY 1, 2";
    let mut locks = Vec::new();
    for row in sqlx::raw_sql(sql).fetch_all(connection).await? {
        let (oid, mode): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        if let Some((table, _)) = before.iter().find(|(_, (_, table))| *table == oid) {
            locks.push(format!("{table}: {}", words(&mode)));
        }
    }
    Ok(locks)
}

/// `AccessExclusiveLock` as the documentation writes it.
fn words(mode: &str) -> String {
    let mut words = String::new();
    for character in mode.trim_end_matches("Lock").chars() {
        if character.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(character.to_uppercase());
    }
    words
}

async fn rows(connection: &mut PgConnection) -> Result<BTreeMap<String, u64>> {
    let sql = "SELECT relid::regclass::text, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables \
               WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND relname !~ '^_(sqlx|xtask)_'";
    let rows = sqlx::raw_sql(sql).fetch_all(connection).await?;
    let counts = rows.iter().map(|row| Ok((row.try_get(0)?, u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0))));
    counts.collect()
}

/// The rows that an error is about, where it does not name them itself.
async fn culprits(connection: &mut PgConnection, failure: &StepFailure) -> Result<Vec<String>> {
    let StepError { code, table, column, constraint, offset, .. } = &failure.error;
    let Some(table) = table else { return Ok(Vec::new()) };
    let is_failing = match (code.as_str(), column, constraint) {
        ("23502", Some(column), _) => format!("{} IS NULL", identifier(column)),
        ("23514", _, Some(constraint)) => {
            let text = &failure.text[offset.unwrap_or(0)..];
            let named = text.find(constraint.as_str()).map_or(text, |at| &text[at..]);
            match script::parenthesised(named, "CHECK") {
                Some(expression) => format!("NOT ({expression})"),
                None => return Ok(Vec::new()),
            }
        }
        _ => return Ok(Vec::new()),
    };
    let table = identifier(table);
    let sql = format!(
        "SELECT (SELECT count(*) FROM {table} WHERE {is_failing})::bigint, failing::text FROM {table} AS failing \
         WHERE {is_failing} LIMIT {EXAMPLES}"
    );
    let mut notes = Vec::new();
    for row in sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await? {
        if notes.is_empty() {
            notes.push(format!("rows of {table} that it fails for: {}, such as", row.try_get::<i64, _>(0)?));
        }
        notes.push(format!("  {}", row.try_get::<String, _>(1)?));
    }
    Ok(notes)
}
