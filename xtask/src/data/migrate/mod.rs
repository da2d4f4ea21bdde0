//! Migrations: all databases of a stack are one set. Files and histories are read for all of them, everything that is wrong
//! is told at once, and only then is anything applied.
//!
//! Format and history are sqlx's, so a service's own `sqlx::migrate!` and `sqlx-cli` see the same; resolving, checking and
//! carrying out are done here, since sqlx does one database and one migration at a time.

pub mod batch;
pub mod catalog;
pub mod drift;
pub mod execute;
pub mod failure;
pub mod fault;
pub mod history;
pub mod locks;
pub mod plan;
pub mod rehearse;
pub mod script;
pub mod source;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use futures_util::future::join_all;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;

use super::target::Target;
use crate::render;
use crate::stack::Stack;
use crate::stack::model::Postgres;
use crate::ui::{self, Exit, Failure};
use drift::Drift;
use execute::{Ended, Job, Ran};
use fault::{Fault, FaultKind};
use history::{History, Keep};
use locks::Timeouts;
use plan::{Back, Gaps, State, Step};
use source::{Migration, Source};

/// How databases share a fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All or nothing.
    Shared,
    /// Each commits for itself.
    Own,
}

/// One database with its files and its history.
#[derive(Debug)]
pub struct Member<'a> {
    pub target: Target<'a>,
    pub sources: Vec<Source>,
    pub history: History,
}

/// The databases that a verb works on.
#[derive(Debug)]
pub struct Set<'a> {
    pub members: Vec<Member<'a>>,
    /// What is wrong with the files.
    pub faults: Vec<Fault>,
}

/// What a database is asked when it is opened.
pub fn question(postgres: &Postgres) -> String {
    History::question(&source::tables(&postgres.migrations))
}

/// What it answers.
pub async fn answer(row: PgRow, target: &mut Target<'_>) -> Result<History> {
    History::read_on(&row, &mut target.connection, &source::tables(&target.postgres.migrations)).await
}

/// Expressions for what the histories hold. An error where one is not there.
pub fn fingerprint(postgres: &Postgres) -> String {
    History::fingerprint(&source::tables(&postgres.migrations))
}

/// What they are, in a row that begins with them.
pub fn read_fingerprint(row: &PgRow, postgres: &Postgres) -> Result<String> {
    History::read_fingerprint(row, &source::tables(&postgres.migrations))
}

/// How often a plan is made anew because somebody else migrated meanwhile.
const ATTEMPTS: usize = 5;

impl<'a> Set<'a> {
    /// Reads files and histories of the databases of those short names. The files are read while `opening` opens the
    /// databases with the [`question`] and reads the [`answer`]: there may be hundreds.
    pub async fn read(
        root: &Path,
        stack: &'a Stack,
        names: &[String],
        opening: impl Future<Output = Result<Vec<(Target<'a>, History)>>>,
    ) -> Result<Set<'a>> {
        let wanted = stack.databases().filter(|(service, _)| names.contains(&service.short_name));
        let wanted: Vec<(String, Vec<PathBuf>)> =
            wanted.map(|(service, postgres)| (service.short_name.clone(), postgres.migrations.clone())).collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let reading = wanted.chunks(wanted.len().div_ceil(threads).max(1)).map(|part| {
            let (root, part) = (root.to_owned(), part.to_vec());
            let read = move |(name, folders): &(String, Vec<PathBuf>)| source::read(&root, name, folders);
            tokio::task::spawn_blocking(move || part.iter().map(read).collect::<Vec<_>>())
        });
        // The servers begin first: what they do for a connection takes longer.
        let (opened, read) = tokio::join!(opening, async { join_all(reading).await });
        let opened = opened?;
        let mut faults = Vec::new();
        let mut files = Vec::new();
        for (sources, found) in read.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
            faults.extend(found);
            files.push(sources);
        }
        let members = opened.into_iter().zip(files);
        let members = members.map(|((target, history), sources)| Member { target, sources, history }).collect();
        Ok(Set { members, faults })
    }

    /// Reads the histories again.
    async fn refresh(&mut self) -> Result<()> {
        let reading = self.members.iter_mut().map(async |member| {
            member.history = History::read(&mut member.target.connection, &member.sources).await?;
            Ok::<_, anyhow::Error>(())
        });
        join_all(reading).await.into_iter().collect()
    }

    /// An error with all faults of all databases, if there are any.
    pub async fn check(&mut self, gaps: Gaps) -> Result<()> {
        let found = self.members.iter().filter_map(|member| member.pending(gaps).err()).flatten();
        let mut faults: Vec<Fault> = self.faults.iter().cloned().chain(found).collect();
        if !faults.is_empty() {
            self.explain(&mut faults).await?;
            bail!(fault::failure(&faults));
        }
        Ok(())
    }

    /// The pending steps by database, or all faults of all databases.
    pub async fn pending(&mut self, gaps: Gaps) -> Result<Vec<(&str, Vec<Step<'_>>)>> {
        self.check(gaps).await?;
        let steps = self.members.iter().map(|member| (member.target.name(), member.pending(gaps).unwrap_or_default()));
        Ok(steps.collect())
    }

    /// The steps back by database, or all faults of all databases.
    pub fn revertible(&self, back: Back) -> Result<Vec<(&str, Vec<Step<'_>>)>> {
        let found = self.members.iter().filter_map(|member| member.revertible(back).err()).flatten();
        let faults: Vec<Fault> = self.faults.iter().cloned().chain(found).collect();
        if !faults.is_empty() {
            bail!(fault::failure(&faults));
        }
        let steps =
            self.members.iter().map(|member| (member.target.name(), member.revertible(back).unwrap_or_default()));
        Ok(steps.collect())
    }

    /// Adds to each edited file what was edited.
    pub async fn explain(&mut self, faults: &mut [Fault]) -> Result<()> {
        for fault in faults.iter_mut().filter(|fault| fault.kind == FaultKind::Edited) {
            let Some(member) = self.members.iter_mut().find(|member| member.target.name() == fault.database) else {
                continue;
            };
            let Member { target, sources, history } = member;
            let version = fault.version.unwrap_or_default();
            let edited = sources.iter().find_map(|source| {
                let migration = source.migrations.iter().find(|one| one.version == version);
                migration.filter(|one| fault.files.contains(&one.up.path)).map(|one| (source, one))
            });
            let Some((source, migration)) = edited else { continue };
            let kept = history::kept_text(&mut target.connection, history, &source.table, version).await?;
            let Some(kept) =
                kept.filter(|kept| source::Script::new("".into(), kept.clone()).checksum != migration.up.checksum)
            else {
                fault.detail = "what was applied was not kept, since this helper did not apply it".into();
                continue;
            };
            let is_same = script::essence(&kept).is_some_and(|kept| script::essence(&migration.up.text) == Some(kept));
            if is_same {
                fault.what.push_str("; only white space or comments changed");
                fault.fix = format!("`cargo xtask migrate repair {}` records it", fault.database);
            }
            fault.detail = render::difference("applied (-) and now (+)", &kept, &migration.up.text);
        }
        Ok(())
    }

    /// By database, what its [`fingerprint`] is.
    pub async fn fingerprints(&mut self) -> Result<Vec<(&str, String)>> {
        let asking = self.members.iter_mut().map(async |member| {
            let sql = format!("SELECT {}", fingerprint(member.target.postgres));
            let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut member.target.connection).await?;
            Ok((member.target.name(), read_fingerprint(&row, member.target.postgres)?))
        });
        join_all(asking).await.into_iter().collect()
    }

    /// Applies everything that is pending.
    pub async fn apply(&mut self, gaps: Gaps, fate: Fate, timeouts: Timeouts) -> Result<Vec<Ran>> {
        let mut all = Vec::new();
        for _ in 0..ATTEMPTS {
            self.check(gaps).await?;
            self.adopt(gaps).await?;
            let databases = self.members.len();
            let jobs = self.members.iter_mut().filter_map(|member| {
                let Member { target, sources, history } = member;
                let steps = plan::pending(&target.service.short_name, sources, history, gaps).unwrap_or_default();
                let segments = plan::segments(steps);
                (!segments.is_empty()).then(|| Job::new(target, sources, history.clone(), segments))
            });
            let (ran, ended) = carry_out(jobs.collect(), fate, timeouts, databases).await?;
            all.extend(ran);
            match ended {
                Ended::Done => return Ok(all),
                Ended::Changed => self.refresh().await?,
            }
        }
        bail!("somebody else keeps migrating; run `cargo xtask migrate` again")
    }

    /// Goes back.
    pub async fn revert(&mut self, back: Back, timeouts: Timeouts) -> Result<Vec<Ran>> {
        self.revertible(back)?;
        let databases = self.members.len();
        let jobs = self.members.iter_mut().filter_map(|member| {
            let Member { target, sources, history } = member;
            let steps = plan::revertible(&target.service.short_name, sources, history, back).unwrap_or_default();
            let segments = plan::segments(steps);
            (!segments.is_empty()).then(|| Job::new(target, sources, history.clone(), segments))
        });
        match carry_out(jobs.collect(), Fate::Shared, timeouts, databases).await? {
            (ran, Ended::Done) => Ok(ran),
            (_, Ended::Changed) => bail!("somebody else migrated meanwhile, nothing was changed; look again"),
        }
    }

    /// Where somebody else has brought a database to where it is, its text and catalog are kept from now on.
    async fn adopt(&mut self, gaps: Gaps) -> Result<()> {
        let adopting = self.members.iter_mut().map(async |member| {
            let is_known = member.history.recorded.as_deref() == Some(member.history.versions().as_str());
            let has_steps = || member.pending(gaps).is_ok_and(|steps| !steps.is_empty());
            match is_known || member.history.count() == 0 || has_steps() {
                true => Ok(()),
                false => member.record().await,
            }
        });
        join_all(adopting).await.into_iter().collect()
    }
}

impl Member<'_> {
    pub fn pending(&self, gaps: Gaps) -> Result<Vec<Step<'_>>, Vec<Fault>> {
        plan::pending(self.target.name(), &self.sources, &self.history, gaps)
    }

    fn revertible(&self, back: Back) -> Result<Vec<Step<'_>>, Vec<Fault>> {
        plan::revertible(self.target.name(), &self.sources, &self.history, back)
    }

    /// The texts of the files, by history table, where migrations stand like that.
    fn texts(&self, state: State) -> BTreeMap<&str, Vec<&Migration>> {
        let mut texts: BTreeMap<&str, Vec<&Migration>> = BTreeMap::new();
        for standing in plan::standings(&self.sources, &self.history).into_iter().filter(|one| one.state == state) {
            if let Some(migration) = standing.migration {
                texts.entry(&standing.source.table).or_default().push(migration);
            }
        }
        texts
    }

    /// Keeps the text of what is applied as its file says it, and records the catalog as it is.
    pub async fn record(&mut self) -> Result<()> {
        let (make, history) = history::provide_ours(&self.history);
        let mut keep = Keep::default();
        for (table, migrations) in self.texts(State::Applied) {
            keep.texts(table, &migrations);
        }
        keep.catalog(&history.versions(), catalog::expression());
        let sql = format!("BEGIN;\n{make}{}COMMIT", keep.sql(&history));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.target.connection).await?;
        Ok(())
    }

    /// Takes the edited files for what was applied.
    pub async fn repair(&mut self) -> Result<Vec<i64>> {
        let mut repaired = Vec::new();
        let (make, history) = history::provide_ours(&self.history);
        let (mut sql, mut keep) = (format!("BEGIN;\n{make}"), Keep::default());
        for (table, migrations) in self.texts(State::Edited) {
            for Migration { version, up, .. } in &migrations {
                sql.push_str(&format!(
                    "UPDATE {} SET checksum = '\\x{}' WHERE version = {version};\n",
                    history.table(table),
                    up.checksum,
                ));
                repaired.push(*version);
            }
            keep.texts(table, &migrations);
        }
        if !repaired.is_empty() {
            let sql = format!("{sql}{}COMMIT", keep.sql(&history));
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.target.connection).await?;
        }
        Ok(repaired)
    }

    /// What differs from the catalog that the last run recorded; `None` if it belongs to another history, or to none.
    pub async fn drift(&mut self) -> Result<Option<Vec<Drift>>> {
        if self.history.recorded.as_deref() != Some(self.history.versions().as_str()) {
            return Ok(None);
        }
        let recorded = drift::recorded(&mut self.target.connection, &self.history).await?;
        let present = catalog::present(&mut self.target.connection).await?;
        Ok(Some(drift::differences(&recorded, &present)))
    }
}

async fn carry_out(
    mut jobs: Vec<Job<'_, '_>>,
    fate: Fate,
    timeouts: Timeouts,
    databases: usize,
) -> Result<(Vec<Ran>, Ended)> {
    if fate == Fate::Shared {
        return execute::run(&mut jobs, timeouts, databases).await;
    }
    let each = jobs.iter_mut().map(|job| execute::run(std::slice::from_mut(job), timeouts, 1));
    let (mut all, mut end, mut failures) = (Vec::new(), Ended::Done, Vec::new());
    for ended in join_all(each).await {
        match ended {
            Ok((ran, ended)) => {
                all.extend(ran);
                end = if ended == Ended::Changed { ended } else { end };
            }
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() {
        return Ok((all, end));
    }
    let migrated: Vec<&str> = all.iter().map(|ran| ran.database.as_str()).collect();
    let others = if migrated.is_empty() { "none".to_owned() } else { migrated.join(", ") };
    let title = format!("{} of {databases} databases failed; migrated: {others}", failures.len());
    let body: String = failures.iter().map(|error| format!("{}\n", ui::failure::rendered(error))).collect();
    bail!(Failure::new(Exit::Failed, title).body(body))
}
