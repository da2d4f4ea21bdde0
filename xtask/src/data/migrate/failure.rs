//! A failed migration as a person sees it: which, where in its file, and what is now in the databases.

use std::path::PathBuf;

use super::batch::StepError;
use crate::ui::{Exit, Failure};

#[derive(Debug, Clone)]
pub struct StepFailure {
    pub database: String,
    pub version: i64,
    /// Relative to the repository's root.
    pub path: PathBuf,
    pub text: String,
    pub error: StepError,
}

/// What has been committed before, by database.
pub type Kept = [(String, Vec<i64>)];

/// All failed steps of a set in one error.
pub fn of_steps(failures: &[StepFailure], databases: usize, kept: &Kept) -> Failure {
    let unchanged = match (kept.is_empty(), databases) {
        (false, _) => "see below for what was applied before it".to_owned(),
        (true, 1) => "nothing was changed".into(),
        (true, count) => format!("nothing was changed in any of the {count} databases"),
    };
    let title = match failures {
        [one] => format!("migration {} of `{}` failed, {unchanged}", one.version, one.database),
        _ => format!("{} migrations failed, {unchanged}", failures.len()),
    };
    let places: Vec<String> = failures.iter().map(StepFailure::rendered).collect();
    let body = format!("{}{}", places.join("\n"), rendered_kept(kept));
    let hint = match failures.iter().any(|failure| failure.error.code == "55P04") {
        // A new value of an enum cannot be used by the transaction that added it.
        true => {
            "let the migration that adds the value begin with `-- no-transaction`, and run `cargo xtask migrate` again"
        }
        false => "mend the file and run `cargo xtask migrate` again",
    };
    Failure::new(Exit::Failed, title).body(body).hint(hint)
}

/// An error that belongs to no step.
pub fn nameless(database: &str, error: &StepError, kept: &Kept) -> anyhow::Error {
    let notes: String = error.notes.iter().map(|note| format!("  {note}\n")).collect();
    let title = format!("`{database}` cannot be migrated: {}", error.message);
    Failure::new(Exit::Failed, title).body(format!("{notes}{}", rendered_kept(kept))).into()
}

/// A connection that ended.
pub fn lost(database: &str, error: anyhow::Error, kept: &Kept) -> anyhow::Error {
    let failure = Failure::new(Exit::Failed, format!("`{database}` went away while it was being migrated"))
        .body(rendered_kept(kept))
        .hint("`cargo xtask status` shows what runs; `cargo xtask migrate` goes on where this ended");
    error.context(failure)
}

fn rendered_kept(kept: &Kept) -> String {
    let mut text = String::new();
    for (database, versions) in kept {
        let versions = versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("  applied and kept in `{database}`: {versions}\n"));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

impl StepFailure {
    pub fn rendered(&self) -> String {
        let StepError { offset, length, message, notes, .. } = &self.error;
        let mut text = match offset {
            None => format!("  {}\n    {message}\n", self.path.display()),
            Some(offset) => {
                let (line, column) = sql::place(&self.text, *offset);
                let shown = self.text.lines().nth(line - 1).unwrap_or_default();
                let number = line.to_string();
                let blank = " ".repeat(number.len());
                // Tabs stay tabs, so that the mark stands below what it marks.
                let indent: String =
                    shown.chars().take(column - 1).map(|one| if one == '\t' { '\t' } else { ' ' }).collect();
                let width = self.text[*offset..].chars().take((*length).max(1)).take_while(|one| *one != '\n').count();
                format!(
                    "  {}:{line}:{column}\n    {number} | {shown}\n    {blank} | {indent}{} {message}\n",
                    self.path.display(),
                    "^".repeat(width.clamp(1, 60)),
                )
            }
        };
        for note in notes {
            text.push_str(&format!("    {note}\n"));
        }
        text
    }
}
