//! What is to be done in one database: sources and history in, steps or faults out. Nothing is asked and nothing changed
//! here.

use serde::Serialize;

use super::fault::{self, Fault, FaultKind};
use super::history::{Applied, History};
use super::source::{Migration, Script, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Apply,
    Revert,
}

/// Whether a version that is older than what was applied may still be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    Refused,
    Filled,
}

/// How far to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    Steps(usize),
    /// Everything above a version.
    To(i64),
}

/// One migration that is applied or undone.
#[derive(Debug, Clone)]
pub struct Step<'s> {
    pub direction: Direction,
    /// Its history table.
    pub table: &'s str,
    pub migration: &'s Migration,
    pub script: &'s Script,
}

/// How one migration stands in one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Applied,
    Pending,
    Edited,
    Missing,
    Gap,
    Dirty,
}

/// A version that a file or the history knows.
#[derive(Debug, Clone)]
pub struct Standing<'s> {
    pub source: &'s Source,
    pub version: i64,
    pub state: State,
    pub migration: Option<&'s Migration>,
    pub applied: Option<&'s Applied>,
}

/// Every version of every source, in the order in which they are applied: source by source, version by version.
pub fn standings<'s>(sources: &'s [Source], history: &'s History) -> Vec<Standing<'s>> {
    let mut all = Vec::new();
    for (source, applied) in sources.iter().zip(&history.applied) {
        let last = applied.iter().map(|one| one.version).max().unwrap_or(i64::MIN);
        let from_files = source.migrations.iter().map(|migration| migration.version);
        let mut versions: Vec<i64> = from_files.chain(applied.iter().map(|one| one.version)).collect();
        versions.sort_unstable();
        versions.dedup();
        for version in versions {
            let migration = source.migrations.iter().find(|one| one.version == version);
            let applied = applied.iter().find(|one| one.version == version);
            let state = match (migration, applied) {
                (_, Some(applied)) if !applied.success => State::Dirty,
                (Some(migration), Some(applied)) if migration.up.checksum != applied.checksum => State::Edited,
                (Some(_), Some(_)) => State::Applied,
                (None, _) => State::Missing,
                (Some(_), None) if version < last => State::Gap,
                (Some(_), None) => State::Pending,
            };
            all.push(Standing { source, version, state, migration, applied });
        }
    }
    all
}

/// The migrations to apply, or everything that stands in their way. The diff of an edited file is added by whoever can ask
/// for the text that was applied.
pub fn pending<'s>(
    database: &str,
    sources: &'s [Source],
    history: &'s History,
    gaps: Gaps,
) -> Result<Vec<Step<'s>>, Vec<Fault>> {
    let (mut steps, mut faults) = (Vec::new(), Vec::new());
    for standing in standings(sources, history) {
        if let Some(fault) =
            found(database, &standing).filter(|fault| fault.kind != FaultKind::Gap || gaps == Gaps::Refused)
        {
            faults.push(fault);
        }
        if let (State::Pending | State::Gap, Some(migration)) = (standing.state, standing.migration) {
            faults.extend(fault::of_text(database, migration.version, &migration.up));
            let table = &standing.source.table;
            steps.push(Step { direction: Direction::Apply, table, migration, script: &migration.up });
        }
    }
    if faults.is_empty() { Ok(steps) } else { Err(faults) }
}

/// What is wrong with how a migration stands, if anything is.
pub fn found(database: &str, standing: &Standing<'_>) -> Option<Fault> {
    let version = standing.version;
    let when = standing.applied.map_or("", |applied| applied.installed_on.as_str());
    let file = standing.migration.map(|migration| migration.up.path.clone());
    let (kind, what, fix) = match standing.state {
        State::Applied | State::Pending => return None,
        State::Edited => (
            FaultKind::Edited,
            format!("was applied {when}, and has been edited since"),
            format!(
                "undo the edit and write a new migration, or `cargo xtask migrate repair {database}` if the \
                     database already is as the file says"
            ),
        ),
        State::Missing => (
            FaultKind::Missing,
            format!(
                "migration {version} `{}` was applied {when}, and its file is gone",
                standing.applied.map_or("", |applied| applied.description.as_str())
            ),
            format!("bring the file back: `git log --all -- '{}/{version}_*'`", standing.source.folder.display()),
        ),
        State::Gap => (
            FaultKind::Gap,
            "was not applied, though a later one was".to_owned(),
            "rename it to a version above all that were applied, or `--fill-gaps` to apply it all the same".into(),
        ),
        State::Dirty => (
            FaultKind::Dirty,
            format!("migration {version} is recorded as failed"),
            format!("mend the database by hand, then delete version {version} from `{}`", standing.source.table),
        ),
    };
    let files = vec![file.unwrap_or_else(|| standing.source.folder.clone())];
    Some(Fault { database: database.to_owned(), kind, version: Some(version), files, what, detail: String::new(), fix })
}

/// The migrations to undo, latest first. One that has no way back stops all.
pub fn revertible<'s>(
    database: &str,
    sources: &'s [Source],
    history: &'s History,
    back: Back,
) -> Result<Vec<Step<'s>>, Vec<Fault>> {
    let mut applied: Vec<Standing<'s>> =
        standings(sources, history).into_iter().filter(|standing| standing.applied.is_some()).collect();
    applied.reverse();
    match back {
        Back::Steps(count) => applied.truncate(count),
        Back::To(version) => applied.retain(|standing| standing.version > version),
    }
    let (mut steps, mut faults) = (Vec::new(), Vec::new());
    for standing in applied {
        match standing.migration.map(|migration| (migration, migration.down.as_ref())) {
            Some((migration, Some(down))) => {
                faults.extend(fault::of_text(database, migration.version, down));
                let table = &standing.source.table;
                steps.push(Step { direction: Direction::Revert, table, migration, script: down });
            }
            other => {
                let file = other.map_or_else(|| standing.source.folder.clone(), |(one, _)| one.up.path.clone());
                faults.push(Fault {
                    database: database.to_owned(),
                    kind: FaultKind::Irreversible,
                    version: Some(standing.version),
                    files: vec![file],
                    what: format!("migration {} has no `.down.sql` file", standing.version),
                    detail: String::new(),
                    fix: "write one, or go back less far with `--steps` or `--to`".into(),
                });
            }
        }
    }
    if faults.is_empty() { Ok(steps) } else { Err(faults) }
}

/// What is sent together: a run of transactional steps, or a single step that must not be in a transaction.
#[derive(Debug, Clone)]
pub enum Segment<'s> {
    Together(Vec<Step<'s>>),
    Alone(Step<'s>),
}

impl<'s> Segment<'s> {
    pub fn steps(&self) -> &[Step<'s>] {
        match self {
            Segment::Together(steps) => steps,
            Segment::Alone(step) => std::slice::from_ref(step),
        }
    }
}

/// Splits steps where one must not run in a transaction.
pub fn segments(steps: Vec<Step<'_>>) -> Vec<Segment<'_>> {
    let mut segments: Vec<Segment<'_>> = Vec::new();
    for step in steps {
        match (step.script.no_transaction, segments.last_mut()) {
            (true, _) => segments.push(Segment::Alone(step)),
            (false, Some(Segment::Together(steps))) => steps.push(step),
            (false, _) => segments.push(Segment::Together(vec![step])),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn script(text: &str) -> Script {
        Script::new(PathBuf::from("m/x.sql"), text.into())
    }

    fn migration(version: i64, text: &str, down: Option<&str>) -> Migration {
        Migration { version, description: "x".into(), up: script(text), down: down.map(script) }
    }

    fn applied(migration: &Migration) -> Applied {
        Applied {
            version: migration.version,
            description: "x".into(),
            installed_on: "2026-01-01".into(),
            success: true,
            checksum: migration.up.checksum.clone(),
            nanoseconds: 1,
        }
    }

    fn sources(migrations: Vec<Migration>) -> Vec<Source> {
        vec![Source { folder: "m".into(), table: "_sqlx_migrations".into(), migrations }]
    }

    fn history(applied: Vec<Applied>) -> History {
        History {
            server_version: 180_000,
            database: "d".into(),
            schema: "public".into(),
            search_path: "public".into(),
            applied: vec![applied],
            has_table: vec![true],
            has_ours: true,
            recorded: None,
        }
    }

    #[test]
    fn everything_in_the_way_is_found_at_once() {
        let present = vec![migration(1, "A", None), migration(2, "B", None), migration(4, "COPY t FROM stdin", None)];
        let mut edited = applied(&present[0]);
        edited.checksum = "00".into();
        let gone = applied(&migration(3, "C", None));
        let (sources, history) = (sources(present), history(vec![edited, gone]));
        let faults = pending("d", &sources, &history, Gaps::Refused).unwrap_err();
        let kinds: Vec<FaultKind> = faults.iter().map(|fault| fault.kind).collect();
        assert_eq!(kinds, [FaultKind::Edited, FaultKind::Gap, FaultKind::Missing, FaultKind::Refused]);
    }

    #[test]
    fn a_step_outside_of_transactions_splits_what_is_sent() {
        let present = vec![
            migration(1, "A", None),
            migration(2, "B", None),
            migration(3, "-- no-transaction\nC", None),
            migration(4, "D", None),
        ];
        let (sources, history) = (sources(present), history(Vec::new()));
        let steps = pending("d", &sources, &history, Gaps::Refused).unwrap();
        let sizes: Vec<usize> = segments(steps)
            .iter()
            .map(|segment| match segment {
                Segment::Together(steps) => steps.len(),
                Segment::Alone(_) => 0,
            })
            .collect();
        assert_eq!(sizes, [2, 0, 1]);
    }

    #[test]
    fn going_back_needs_a_way_back() {
        let present = vec![migration(1, "A", None), migration(2, "B", Some("b")), migration(3, "C", Some("c"))];
        let history = history(present.iter().map(applied).collect());
        let sources = sources(present);
        let versions = |back| {
            let steps = revertible("d", &sources, &history, back);
            steps.map(|steps| steps.iter().map(|step| step.migration.version).collect::<Vec<_>>())
        };
        assert_eq!(versions(Back::Steps(2)).unwrap(), [3, 2]);
        assert_eq!(versions(Back::To(2)).unwrap(), [3]);
        assert_eq!(versions(Back::To(0)).unwrap_err()[0].kind, FaultKind::Irreversible);
    }
}
