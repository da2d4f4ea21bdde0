//! Carrying out what was planned: one connection a database, all at once, COMMIT withheld until every database has come
//! through. Where a step must not run in a transaction, the set goes on in rounds: what is transactional runs first and
//! stays open, then the steps that stand alone, then those databases commit that have something left to do. What is a
//! database's last stays open until the last round.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use sql::literal;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use super::batch::{self, Batch, Outcome, StepError};
use super::catalog::{self, Catalog};
use super::drift;
use super::failure::{self, StepFailure};
use super::history::{self, History, Keep};
use super::locks::{self, Patience, Timeouts};
use super::plan::{Direction, Segment, Step};
use super::source::{Migration, Source};
use crate::data::target::{AtWork, Target};
use crate::engine::postgres::{Lasting, uncompressed_pages, without_limits_of_waiting};

/// Once one database has failed, the others have this long to say whether they fail as well.
const GRACE: Duration = Duration::from_secs(1);

/// One database's part.
#[derive(Debug)]
pub struct Job<'j, 'a> {
    pub target: &'j mut Target<'a>,
    pub sources: &'j [Source],
    pub history: History,
    pub segments: Vec<Segment<'j>>,
    done: Vec<StepDone>,
    /// As recorded, and as it was, where somebody had altered it.
    altered: Option<(Catalog, Catalog)>,
    begun: Instant,
    /// Steps whose transaction is open, recorded and all: only COMMIT is left to say.
    open: Option<Vec<StepDone>>,
}

#[derive(Debug, Clone)]
pub struct StepDone {
    pub version: i64,
    pub description: String,
    pub took: Duration,
}

/// What was done in one database.
#[derive(Debug, Clone)]
pub struct Ran {
    pub database: String,
    pub steps: Vec<StepDone>,
    pub took: Duration,
}

/// How a set ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Somebody else has migrated since the plan was made; nothing was done.
    Changed,
}

impl<'j, 'a> Job<'j, 'a> {
    pub fn new(
        target: &'j mut Target<'a>,
        sources: &'j [Source],
        history: History,
        segments: Vec<Segment<'j>>,
    ) -> Job<'j, 'a> {
        let begun = Instant::now();
        Job { target, sources, history, segments, done: Vec::new(), altered: None, begun, open: None }
    }

    fn tables(&self) -> Vec<&'j str> {
        self.sources.iter().map(|source| source.table.as_str()).collect()
    }

    fn key(&self) -> i64 {
        locks::key(&self.history.database)
    }

    /// Whether the lock must outlive a transaction.
    fn is_split(&self) -> bool {
        self.segments.len() > 1 || self.segments.iter().any(|segment| matches!(segment, Segment::Alone(_)))
    }

    pub fn failure(&self, step: &Step<'_>, error: StepError) -> StepFailure {
        StepFailure {
            database: self.target.name().to_owned(),
            version: step.migration.version,
            path: step.script.path.clone(),
            text: step.script.text.clone(),
            error,
        }
    }

    pub async fn say(&mut self, sql: String) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.target.connection).await?;
        Ok(())
    }

    /// Holds the lock for all rounds, and looks whether the plan still holds.
    async fn hold(&mut self, timeouts: Timeouts) -> Result<bool> {
        let key = self.key();
        let connection = &mut self.target.connection;
        locks::take(connection, &self.target.service.short_name, key, timeouts.lock).await?;
        let waits = without_limits_of_waiting(connection, Lasting::Session);
        self.say(format!("SELECT {waits}")).await?;
        let now = History::read(&mut self.target.connection, self.sources).await?;
        Ok(now.has_table == self.history.has_table
            && (0..self.sources.len()).all(|index| now.state(index) == self.history.state(index)))
    }

    /// What the record says, and what is there: what differs is not this run's doing.
    async fn look_at_catalog(&mut self) -> Result<()> {
        if self.history.recorded.is_some() {
            let recorded = drift::recorded(&mut self.target.connection, &self.history).await?;
            let present = catalog::present(&mut self.target.connection).await?;
            self.altered = (recorded != present).then_some((recorded, present));
        }
        Ok(())
    }

    /// The message with the steps of one transaction.
    pub fn batch(&self, steps: &[Step<'j>], is_last: bool, timeouts: Timeouts) -> Batch<'j> {
        let mut keep = texts(steps);
        if is_last && self.altered.is_none() {
            keep.catalog(&self.versions(), catalog::expression());
        }
        let mut end = keep.sql(&self.history);
        if is_last && self.altered.is_some() {
            // What is to be recorded is not what is there.
            end.push_str(&format!("SELECT {} AS {};\n", catalog::expression(), batch::CATALOG));
        }
        let begin = [
            uncompressed_pages(Lasting::Transaction),
            without_limits_of_waiting(&self.target.connection, Lasting::Transaction),
        ];
        Batch::new(&self.history, &self.tables(), steps, timeouts, self.key(), &begin.join(", "), &end)
    }

    /// Sends a [`batch`](Self::batch), as often as another migrating client holds the lock. Leaves its transaction open.
    pub async fn send(&mut self, batch: &Batch<'_>, timeouts: Timeouts) -> Result<Outcome> {
        let mut patience = Patience::new(self.target.name(), self.key(), timeouts.lock);
        loop {
            match batch.send(&mut self.target.connection).await {
                Outcome::Locked => {
                    self.say("ROLLBACK".into()).await?;
                    patience.pause(&mut self.target.connection).await?;
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// [Sends](Self::send) a round's batch and records what it did, while others are still at work. What only COMMIT is left
    /// for cannot fail for a reason of this database alone.
    async fn carry_out(
        &mut self,
        batch: &Batch<'_>,
        round: usize,
        timeouts: Timeouts,
        at_work: &AtWork,
    ) -> Result<Outcome> {
        let outcome = self.send(batch, timeouts).await?;
        let Outcome::Done(done) = &outcome else { return Ok(outcome) };
        let planned = self.segments[round].steps();
        let steps = planned.iter().zip(&done.nanoseconds).map(|(step, nanoseconds)| StepDone {
            version: step.migration.version,
            description: step.migration.description.clone(),
            took: Duration::from_nanos(u64::try_from(*nanoseconds).unwrap_or(0)),
        });
        let steps: Vec<StepDone> = steps.collect();
        let mut records = records(&self.history, planned, &done.nanoseconds);
        if done.catalog.is_some() {
            records.push_str(&self.catalog_record(done.catalog.as_ref())?);
        }
        records.push_str(at_work.flush_log(&self.target.connection));
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(records)).execute(&mut self.target.connection).await {
            return Ok(Outcome::of(error));
        }
        self.open = Some(steps);
        Ok(outcome)
    }

    /// Ends the open transaction with nothing done. A connection that cannot say so is gone, and its transaction with it.
    async fn roll_back(&mut self) {
        self.open = None;
        drop(self.say("ROLLBACK".into()).await);
    }

    /// Runs a step statement by statement, outside of any transaction, and records it.
    pub async fn alone(&mut self, step: &Step<'j>, timeouts: Timeouts) -> Result<Result<StepDone, StepFailure>> {
        let begun = Instant::now();
        let tables = self.tables();
        let missing = tables.iter().zip(&self.history.has_table).filter(|(_, has)| !**has);
        let mut make: String = missing.map(|(table, _)| history::create_history(&self.history, table)).collect();
        make.push_str(&history::create_ours(&self.history));
        if !make.is_empty() {
            self.say(make).await?;
            self.history.has_table.fill(true);
            self.history.has_ours = true;
        }
        batch::set_session(&mut self.target.connection, timeouts).await?;
        let text = &step.script.text;
        let statements = sql::statements(text).map_err(|flaw| anyhow!("{}", flaw.what))?;
        for (index, statement) in statements.iter().enumerate() {
            let sql = &text[statement.start..statement.end];
            let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.target.connection).await;
            let error = match ran {
                Ok(_) => continue,
                Err(sqlx::Error::Database(error)) => error,
                Err(error) => return Err(error.into()),
            };
            let Ok(error) = error.try_downcast::<PgDatabaseError>() else { return Err(anyhow!("a strange error")) };
            let mut found = StepError::of(&error);
            match error.position() {
                Some(PgErrorPosition::Original(position)) => {
                    let at = sql.char_indices().nth(position.saturating_sub(1)).map_or(sql.len(), |(at, _)| at);
                    found.point(0, text, statement.start + at);
                }
                _ => found.point(0, text, statement.start),
            }
            if index > 0 {
                found.notes.push(format!("its first {} statements were done before, and stay", index));
            }
            if sql.to_uppercase().contains("INDEX CONCURRENTLY") {
                found.notes.push("an index that was begun is left invalid: drop it before the next run".into());
            }
            return Ok(Err(self.failure(step, found)));
        }
        let took = begun.elapsed();
        let nanoseconds = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
        let step_alone = std::slice::from_ref(step);
        let record = records(&self.history, step_alone, &[nanoseconds]);
        let text = texts(step_alone).sql(&self.history);
        let waits = without_limits_of_waiting(&self.target.connection, Lasting::Session);
        self.say(format!("RESET ALL; RESET ROLE; SELECT {waits}; {record}{text}")).await?;
        let (version, description) = (step.migration.version, step.migration.description.clone());
        Ok(Ok(StepDone { version, description, took }))
    }

    /// The versions that are applied after the run, as [`History::versions`].
    fn versions(&self) -> String {
        let mut versions: Vec<Vec<i64>> =
            self.history.applied.iter().map(|applied| applied.iter().map(|one| one.version).collect()).collect();
        for step in self.segments.iter().flat_map(Segment::steps) {
            let Some(source) = self.sources.iter().position(|source| source.table == step.table) else { continue };
            versions[source].retain(|version| *version != step.migration.version);
            if step.direction == Direction::Apply {
                versions[source].push(step.migration.version);
            }
            versions[source].sort_unstable();
        }
        let line = |versions: &Vec<i64>| versions.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        versions.iter().map(line).collect::<Vec<_>>().join(";")
    }

    /// The record of what the run has made: what is there `after` it, but that what somebody had altered before it stays a
    /// difference.
    fn catalog_record(&self, after: Option<&Catalog>) -> Result<String> {
        let catalog = match (&self.altered, after) {
            (Some((recorded, before)), Some(after)) => {
                literal(&serde_json::to_string(&drift::carried(recorded, before, after))?)
            }
            _ => catalog::expression().to_owned(),
        };
        let mut keep = Keep::default();
        keep.catalog(&self.versions(), &catalog);
        Ok(keep.sql(&self.history))
    }
}

/// What makes sqlx's tables say that those steps were done.
fn records(history: &History, steps: &[Step<'_>], nanoseconds: &[i64]) -> String {
    let of_table = |OfTable { table, applied, reverted }: OfTable<'_>| {
        let mut sql = String::new();
        if !applied.is_empty() {
            let applied: Vec<_> = applied.into_iter().map(|(index, one)| (one, nanoseconds[index])).collect();
            sql.push_str(&history::record(history, table, &applied));
        }
        if !reverted.is_empty() {
            sql.push_str(&history::forget(history, table, &reverted));
        }
        sql
    };
    by_table(steps).into_iter().map(of_table).collect()
}

/// The texts that our own table holds after those steps.
fn texts(steps: &[Step<'_>]) -> Keep {
    let mut keep = Keep::default();
    for OfTable { table, applied, reverted } in by_table(steps) {
        if !applied.is_empty() {
            let applied: Vec<_> = applied.into_iter().map(|(_, one)| one).collect();
            keep.texts(table, &applied);
        }
        if !reverted.is_empty() {
            keep.no_texts(table, reverted.into_iter());
        }
    }
    keep
}

/// What is applied, with its place among all steps, and which versions are reverted, of one history table.
struct OfTable<'s> {
    table: &'s str,
    applied: Vec<(usize, &'s Migration)>,
    reverted: Vec<i64>,
}

fn by_table<'s>(steps: &[Step<'s>]) -> Vec<OfTable<'s>> {
    let mut all: Vec<OfTable<'s>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let at = all.iter().position(|one| one.table == step.table).unwrap_or_else(|| {
            all.push(OfTable { table: step.table, applied: Vec::new(), reverted: Vec::new() });
            all.len() - 1
        });
        match step.direction {
            Direction::Apply => all[at].applied.push((index, step.migration)),
            Direction::Revert => all[at].reverted.push(step.migration.version),
        }
    }
    all
}

/// Carries out a set: all of it or nothing, as far as its steps let it.
pub async fn run(jobs: &mut [Job<'_, '_>], timeouts: Timeouts, databases: usize) -> Result<(Vec<Ran>, Ended)> {
    let rounds = jobs.iter().map(|job| job.segments.len()).max().unwrap_or(0);
    let looked = join_all(jobs.iter_mut().map(async |job| {
        job.look_at_catalog().await?;
        if job.is_split() { job.hold(timeouts).await } else { Ok(true) }
    }));
    if looked.await.into_iter().collect::<Result<Vec<bool>>>()?.contains(&false) {
        let_go(jobs).await?;
        return Ok((Vec::new(), Ended::Changed));
    }
    for round in 0..rounds {
        if !together(jobs, round, timeouts, databases).await? {
            let_go(jobs).await?;
            return Ok((Vec::new(), Ended::Changed));
        }
        alone(jobs, round, timeouts, databases).await?;
        commit(jobs, round, rounds).await?;
    }
    let recording = jobs.iter_mut().map(async |job| {
        if matches!(job.segments.last(), Some(Segment::Alone(_))) {
            let present = match job.altered {
                Some(_) => Some(catalog::present(&mut job.target.connection).await?),
                None => None,
            };
            let record = job.catalog_record(present.as_ref())?;
            job.say(record).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    join_all(recording).await.into_iter().collect::<Result<()>>()?;
    let_go(jobs).await?;
    let ran = jobs.iter_mut().map(|job| Ran {
        database: job.target.name().to_owned(),
        steps: std::mem::take(&mut job.done),
        took: job.begun.elapsed(),
    });
    Ok((ran.collect(), Ended::Done))
}

/// Gives back the locks that outlive transactions.
async fn let_go(jobs: &mut [Job<'_, '_>]) -> Result<()> {
    let holding = jobs.iter_mut().filter(|job| job.is_split());
    let releasing = holding.map(async |job| {
        let key = job.key();
        locks::release(&mut job.target.connection, key).await
    });
    join_all(releasing).await.into_iter().collect()
}

/// The transactional part of a round. `false`: a plan does not hold any more, and nothing is open.
async fn together(jobs: &mut [Job<'_, '_>], round: usize, timeouts: Timeouts, databases: usize) -> Result<bool> {
    let mut outcomes: Vec<Option<Result<Outcome>>> = jobs.iter().map(|_| None).collect();
    let asked;
    {
        // All messages are there before the first is sent: servers at work leave the helper little time to write the next, and
        // the last of them to begin would end long after the others.
        let part = jobs.iter_mut().enumerate().filter_map(|(index, job)| match job.segments.get(round) {
            Some(Segment::Together(steps)) => {
                let batch = job.batch(steps, round + 1 == job.segments.len(), timeouts);
                Some((index, job, batch))
            }
            _ => None,
        });
        let part: Vec<_> = part.collect();
        asked = part.len();
        let at_work = &AtWork::new(asked);
        let sending = part
            .into_iter()
            .map(async |(index, job, batch)| (index, job.carry_out(&batch, round, timeouts, at_work).await));
        let mut running: FuturesUnordered<_> = sending.collect();
        // A database that fails ends the wait for the others, a moment later.
        let mut deadline = None;
        loop {
            let next = match deadline {
                None => running.next().await,
                Some(deadline) => tokio::time::timeout_at(deadline, running.next()).await.ok().flatten(),
            };
            let Some((index, outcome)) = next else { break };
            if matches!(outcome, Err(_) | Ok(Outcome::Failed(_) | Outcome::Lost(_))) {
                deadline = deadline.or(Some(tokio::time::Instant::now() + GRACE));
            }
            outcomes[index] = Some(outcome);
        }
    }
    let answered = outcomes.iter().flatten().count();
    let is_good = |outcome: &Option<Result<Outcome>>| matches!(outcome, None | Some(Ok(Outcome::Done(_))));
    if answered == asked && outcomes.iter().all(is_good) {
        return Ok(true);
    }
    // Those that answered are rolled back; what is still at work loses its connection, and with it its transaction.
    let answered: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Some(Ok(_)))).collect();
    let rolling = jobs.iter_mut().zip(answered).filter(|(job, answered)| *answered || job.open.is_some());
    join_all(rolling.map(|(job, _)| job.roll_back())).await;
    let mut failures = Vec::new();
    for (job, outcome) in jobs.iter().zip(outcomes) {
        match outcome {
            Some(Ok(Outcome::Failed(error))) => {
                let steps = job.segments[round].steps();
                match error.step.and_then(|step| steps.get(step)) {
                    Some(step) => failures.push(job.failure(step, *error)),
                    None => return Err(failure::nameless(job.target.name(), &error, &kept(jobs))),
                }
            }
            Some(Ok(Outcome::Lost(error))) => {
                return Err(failure::lost(job.target.name(), error, &kept(jobs)));
            }
            Some(Err(error)) => return Err(error),
            _ => {}
        }
    }
    match failures.is_empty() {
        true if round == 0 => Ok(false),
        true => Err(anyhow!("the history was changed by somebody else meanwhile; run `cargo xtask migrate` again")),
        false => Err(failure::of_steps(&failures, databases, &kept(jobs)).into()),
    }
}

/// The steps of a round that stand alone. When one fails, what is open is rolled back.
async fn alone(jobs: &mut [Job<'_, '_>], round: usize, timeouts: Timeouts, databases: usize) -> Result<()> {
    let running = jobs.iter_mut().map(async |job| {
        let Some(Segment::Alone(step)) = job.segments.get(round).cloned() else { return Ok(None) };
        match job.alone(&step, timeouts).await? {
            Ok(done) => {
                job.done.push(done);
                job.history = History::read(&mut job.target.connection, job.sources).await?;
                Ok(None)
            }
            Err(failure) => Ok(Some(failure)),
        }
    });
    let ran: Vec<Result<Option<StepFailure>>> = join_all(running).await;
    if ran.iter().all(|ran| matches!(ran, Ok(None))) {
        return Ok(());
    }
    let open = jobs.iter_mut().filter(|job| job.open.is_some());
    join_all(open.map(Job::roll_back)).await;
    let mut failures = Vec::new();
    for ran in ran {
        failures.extend(ran?);
    }
    Err(failure::of_steps(&failures, databases, &kept(jobs)).into())
}

/// Commits what is open, everywhere at once. Before the last round only those commit that have something left to do: the
/// others can still be rolled back with it.
async fn commit(jobs: &mut [Job<'_, '_>], round: usize, rounds: usize) -> Result<()> {
    let committing = jobs.iter_mut().map(async |job| {
        if round + 1 < rounds && round + 1 >= job.segments.len() {
            return Ok(());
        }
        let Some(steps) = job.open.take() else { return Ok(()) };
        job.say("COMMIT".into()).await?;
        job.done.extend(steps);
        if round + 1 < job.segments.len() {
            job.history = History::read(&mut job.target.connection, job.sources).await?;
        }
        Ok(())
    });
    let committed: Vec<Result<()>> = join_all(committing).await;
    let failed = committed.into_iter().zip(jobs.iter()).find_map(|(committed, job)| Some((job, committed.err()?)));
    match failed {
        None => Ok(()),
        Some((job, error)) => Err(failure::lost(job.target.name(), error, &kept(jobs))),
    }
}

/// What is committed and stays, by database.
fn kept(jobs: &[Job<'_, '_>]) -> Vec<(String, Vec<i64>)> {
    let done = jobs.iter().filter(|job| !job.done.is_empty());
    done.map(|job| (job.target.name().to_owned(), job.done.iter().map(|step| step.version).collect())).collect()
}
