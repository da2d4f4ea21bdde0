//! References across databases: no server can enforce them, so they are checked. Each side's values come sorted from its
//! own server and are merged, whatever their number.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use sql::identifier;
use sqlx::Row;

use super::merge::{self, Rest};
use super::target::Target;
use crate::stack::fault::nearest;
use crate::stack::model::Reference;

/// What came of one declared reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// `learning.learning_sessions.user_id`.
    pub from: String,
    /// `user.users.id`.
    pub to: String,
    /// Different values that are not NULL.
    pub values: u64,
    /// Those that are not on the other side.
    pub orphans: u64,
    pub examples: Vec<String>,
    /// Why it could not be checked.
    pub problem: Option<String>,
}

impl Checked {
    pub fn holds(&self) -> bool {
        self.orphans == 0 && self.problem.is_none()
    }
}

/// The columns of each table of a database.
pub type Tables = BTreeMap<String, Vec<String>>;

pub async fn tables(target: &mut Target<'_>) -> Result<Tables> {
    let sql = "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid \
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND attnum > 0 AND NOT attisdropped AND pg_table_is_visible(pg_class.oid) \
        AND relnamespace <> 'pg_catalog'::regnamespace ORDER BY 1, attnum";
    let mut tables = Tables::new();
    for row in sqlx::query(sql).fetch_all(&mut target.connection).await? {
        tables.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
    }
    Ok(tables)
}

/// Checks one reference of `from`; `to` is the database that it leads to. Each comes with its tables.
pub async fn check(reference: &Reference, from: (&Target<'_>, &Tables), to: (&Target<'_>, &Tables)) -> Result<Checked> {
    let mut checked = Checked {
        from: format!("{}.{}.{}", from.0.name(), reference.table, reference.column),
        to: format!("{}.{}.{}", reference.to_database, reference.to_table, reference.to_column),
        values: 0,
        orphans: 0,
        examples: Vec::new(),
        problem: None,
    };
    let missing = [
        missing(from.0.name(), from.1, &reference.table, &reference.column),
        missing(to.0.name(), to.1, &reference.to_table, &reference.to_column),
    ];
    if missing.iter().any(Option::is_some) {
        checked.problem = Some(missing.into_iter().flatten().collect::<Vec<_>>().join("; "));
        return Ok(checked);
    }
    let mut left = from.0.connect().await?;
    let mut right = to.0.connect().await?;
    merge::prepare(&mut left).await?;
    merge::prepare(&mut right).await?;
    let here = values(&reference.table, &reference.column);
    let there = values(&reference.to_table, &reference.to_column);
    let compared = merge::compare((&mut left, &here), (&mut right, &there), Rest::IsNoMatter).await;
    let compared = compared.with_context(|| format!("cannot compare `{}` with `{}`", checked.from, checked.to))?;
    checked.values = compared.left;
    checked.orphans = compared.only_left.count;
    checked.examples = compared.only_left.examples;
    Ok(checked)
}

fn values(table: &str, column: &str) -> String {
    let (table, column) = (identifier(table), identifier(column));
    // Equal values are put together before they become text, which is what sorting costs.
    format!(
        "SELECT value::text COLLATE \"C\" FROM (SELECT DISTINCT {column} AS value FROM {table} WHERE {column} IS NOT NULL) \
         AS here ORDER BY 1"
    )
}

/// What is not there, with the nearest that is.
fn missing(database: &str, tables: &Tables, table: &str, column: &str) -> Option<String> {
    let (what, known): (String, Vec<&str>) = match tables.get(table) {
        None => (format!("`{database}` has no table `{table}`"), tables.keys().map(String::as_str).collect()),
        Some(columns) if columns.iter().all(|known| known != column) => {
            (format!("`{database}.{table}` has no column `{column}`"), columns.iter().map(String::as_str).collect())
        }
        Some(_) => return None,
    };
    let written = if tables.contains_key(table) { column } else { table };
    Some(match (nearest(written, known.iter().copied()), known.is_empty()) {
        (Some(nearest), _) => format!("{what}; did you mean `{nearest}`?"),
        (None, true) => format!("{what}, nor any other: `cargo xtask migrate` makes them"),
        (None, false) => format!("{what}; there are: {}", known.join(", ")),
    })
}
