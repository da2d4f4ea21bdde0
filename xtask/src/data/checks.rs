//! What must hold in the databases of a stack and no constraint can say, as SQL that comes with the stack:
//! `config/<stack>/checks/<name>.<database>.sql`, one SELECT each.
//!
//! - One file of a name: it must give no rows. Each row that it gives is something wrong.
//! - Several files of a name: each runs on its own database, and they must give the same rows, in whatever order. Rows are
//!   compared as text, so both sides must choose the same types where these read differently.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::merge::{self, Rest};
use super::target::Target;
use crate::files;
use crate::stack::fault::{Fault, Faults};
use crate::ui::failure;

/// One name, and what each database is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub sides: Vec<Side>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    pub database: String,
    /// From the repository's root.
    pub file: PathBuf,
    sql: String,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub name: String,
    pub databases: Vec<String>,
    /// What was compared; 0 where there must be none.
    pub rows: u64,
    pub wrong: Vec<Wrong>,
    /// Why it could not be checked.
    pub problem: Option<String>,
}

/// Rows that should not be, or that only one of two databases has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    pub database: String,
    pub rows: u64,
    pub examples: Vec<String>,
}

impl Checked {
    pub fn holds(&self) -> bool {
        self.wrong.is_empty() && self.problem.is_none()
    }
}

/// The checks of a stack, by name; no folder is no checks.
pub fn list(root: &Path, stack: &str, databases: &[&str], faults: &mut Faults) -> Result<Vec<Check>> {
    let folder = Path::new("config").join(stack).join("checks");
    let entries = match std::fs::read_dir(root.join(&folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
    };
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    let mut names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    let mut checks: BTreeMap<String, Vec<Side>> = BTreeMap::new();
    for name in names {
        let file = folder.join(&name);
        let parts: Vec<&str> = name.split('.').collect();
        let fault = |key: &str, found: String, expected: String| Fault {
            file: file.clone(),
            line: None,
            key: key.to_owned(),
            found,
            expected,
            fix: None,
        };
        match parts[..] {
            [check, database, "sql"] if databases.contains(&database) => match files::read_text(&root.join(&file)) {
                Ok(sql) => {
                    let sql = sql.trim_end().trim_end_matches(';').to_owned();
                    let side = Side { database: database.to_owned(), file, sql };
                    checks.entry(check.to_owned()).or_default().push(side);
                }
                Err(unreadable) => faults.push(fault("text", unreadable.found, "SQL in UTF-8".into())),
            },
            [_, database, "sql"] => {
                let expected = format!("one of: {}", databases.join(", "));
                faults.push(fault("database", format!("`{database}`"), expected));
            }
            _ => faults.push(fault("name", "a file that is no check".into(), "`<name>.<database>.sql`".into())),
        }
    }
    Ok(checks.into_iter().map(|(name, sides)| Check { name, sides }).collect())
}

/// Runs one check; `targets` holds all of its databases.
pub async fn check(check: &Check, targets: &[Target<'_>]) -> Result<Checked> {
    let databases = check.sides.iter().map(|side| side.database.clone()).collect();
    let mut checked = Checked { name: check.name.clone(), databases, rows: 0, wrong: Vec::new(), problem: None };
    if let Err(error) = ask(check, targets, &mut checked).await {
        checked.problem = Some(failure::in_a_line(&error));
    }
    Ok(checked)
}

async fn ask(check: &Check, targets: &[Target<'_>], checked: &mut Checked) -> Result<()> {
    let Some((first, others)) = check.sides.split_first() else { return Ok(()) };
    let mut left = connect(first, targets).await?;
    if others.is_empty() {
        let found = merge::count(&mut left, &rows(&first.sql)).await.context(first.file.display().to_string())?;
        checked.note(first, found);
    }
    for other in others {
        let mut right = connect(other, targets).await?;
        let (here, there) = (sorted(&first.sql), sorted(&other.sql));
        let compared = merge::compare((&mut left, &here), (&mut right, &there), Rest::Counts).await;
        let compared = compared.with_context(|| format!("{} or {}", first.file.display(), other.file.display()))?;
        checked.rows = compared.left;
        checked.note(first, compared.only_left);
        checked.note(other, compared.only_right);
    }
    Ok(())
}

impl Checked {
    fn note(&mut self, side: &Side, found: merge::Found) {
        if found.count > 0 {
            let (rows, examples) = (found.count, found.examples);
            self.wrong.push(Wrong { database: side.database.clone(), rows, examples });
        }
    }
}

async fn connect(side: &Side, targets: &[Target<'_>]) -> Result<sqlx::PgConnection> {
    let Some(target) = targets.iter().find(|target| target.name() == side.database) else {
        bail!("`{}` is not open", side.database);
    };
    let mut connection = target.connect().await?;
    merge::prepare(&mut connection).await?;
    Ok(connection)
}

fn rows(sql: &str) -> String {
    format!("SELECT checked::text FROM (\n{sql}\n) AS checked")
}

fn sorted(sql: &str) -> String {
    format!("SELECT checked::text COLLATE \"C\" FROM (\n{sql}\n) AS checked ORDER BY 1")
}
