//! What stands in the way of migrating, told for all databases at once, before anything runs.

use std::path::PathBuf;

use serde::Serialize;

use crate::ui::{Exit, Failure, units};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A file in the folder that is none.
    NotAMigration,
    Unreadable,
    /// Two files, or two sources, with one version.
    Duplicate,
    /// The file says something else than what was applied.
    Edited,
    /// Applied, and its file is gone.
    Missing,
    /// Not applied, though a later one was.
    Gap,
    /// Recorded as failed.
    Dirty,
    /// It holds what cannot be run here.
    Refused,
    /// It cannot be undone.
    Irreversible,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub database: String,
    pub kind: FaultKind,
    pub version: Option<i64>,
    /// Relative to the repository's root; with the line where it is known.
    pub files: Vec<PathBuf>,
    pub what: String,
    /// Lines that show it; may be empty.
    pub detail: String,
    /// What to do.
    pub fix: String,
}

/// As a person reads them.
pub fn rendered(faults: &[Fault]) -> String {
    let mut text = String::new();
    for (index, fault) in faults.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for (index, file) in fault.files.iter().enumerate() {
            let name = if index == 0 { fault.database.as_str() } else { "" };
            let width = fault.database.len();
            text.push_str(&format!("  {name:width$}  {}\n", file.display()));
        }
        text.push_str(&format!("    {}\n", fault.what));
        for line in fault.detail.lines() {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&format!("    fix: {}\n", fault.fix));
    }
    text
}

/// All of them in one error.
pub fn failure(faults: &[Fault]) -> Failure {
    let count = units::plural(faults.len(), "fault");
    let failure = Failure::new(Exit::Failed, format!("{count} in the migrations, nothing was changed in any database"));
    failure.body(rendered(faults))
}

/// The faults of a text, one for each place.
pub fn of_text(database: &str, version: i64, script: &super::source::Script) -> Vec<Fault> {
    let flaws = script.reading().flaws.iter();
    flaws
        .map(|flaw| {
            let (line, column) = sql::place(&script.text, flaw.offset);
            Fault {
                database: database.to_owned(),
                kind: FaultKind::Refused,
                version: Some(version),
                files: vec![PathBuf::from(format!("{}:{line}:{column}", script.path.display()))],
                what: flaw.what.clone(),
                detail: script.text.lines().nth(line - 1).map(|text| format!("{line} | {text}")).unwrap_or_default(),
                fix: "mend the file and run `cargo xtask migrate` again".into(),
            }
        })
        .collect()
}
