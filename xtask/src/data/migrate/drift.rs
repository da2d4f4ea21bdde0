//! How a database's catalog differs from the one that the last run recorded.

use anyhow::Result;
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::catalog::{self, Catalog, HASHED};
use super::history::{History, IS_CATALOG, KEPT};

/// One object that is not as the migrations left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub object: String,
    /// `None`: the migrations made no such object.
    pub recorded: Option<String>,
    /// `None`: it is gone.
    pub present: Option<String>,
}

impl Drift {
    /// In words.
    pub fn describe(&self) -> String {
        let Drift { object, recorded, present } = self;
        let is_hash = |definition: &str| definition.starts_with(HASHED);
        let shown = |definition: &str| if is_hash(definition) { String::new() } else { format!(": {definition}") };
        match (recorded, present) {
            (None, Some(present)) => format!("{object} was added{}", shown(present)),
            (Some(_), None) => format!("{object} was dropped"),
            (Some(recorded), Some(present)) if is_hash(recorded) || is_hash(present) => format!("{object} was changed"),
            (Some(recorded), Some(present)) => format!("{object} was changed: {recorded} → {present}"),
            (None, None) => object.clone(),
        }
    }
}

/// The catalog as the last run recorded it.
pub async fn recorded(connection: &mut PgConnection, history: &History) -> Result<Catalog> {
    let sql = format!("SELECT text FROM {} WHERE {IS_CATALOG}", history.table(KEPT));
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?;
    catalog::kept(row.try_get(0)?)
}

/// What differs.
pub fn differences(recorded: &Catalog, present: &Catalog) -> Vec<Drift> {
    let mut objects: Vec<&String> = recorded.keys().chain(present.keys()).collect();
    objects.sort();
    objects.dedup();
    let drifts = objects.into_iter().map(|object| Drift {
        object: object.clone(),
        recorded: recorded.get(object).cloned(),
        present: present.get(object).cloned(),
    });
    drifts.filter(|drift| drift.recorded != drift.present).collect()
}

/// What is to be recorded after a run: what it made. What differed before it and was left alone stays a difference.
pub fn carried(recorded: &Catalog, before: &Catalog, after: &Catalog) -> Catalog {
    let mut catalog = after.clone();
    for drift in differences(recorded, before) {
        if before.get(&drift.object) == after.get(&drift.object) {
            match drift.recorded {
                Some(definition) => drop(catalog.insert(drift.object, definition)),
                None => drop(catalog.remove(&drift.object)),
            }
        }
    }
    catalog
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(objects: &[(&str, &str)]) -> Catalog {
        objects.iter().map(|(object, definition)| ((*object).to_owned(), (*definition).to_owned())).collect()
    }

    #[test]
    fn a_run_does_not_hide_what_somebody_altered_by_hand() {
        let recorded = catalog(&[("table a", "1"), ("table b", "1"), ("table c", "1")]);
        let before = catalog(&[("table a", "2"), ("table b", "2"), ("table x", "1")]);
        let after = catalog(&[("table a", "2"), ("table b", "3"), ("table x", "1"), ("table n", "1")]);
        let carried = carried(&recorded, &before, &after);
        assert_eq!(carried, catalog(&[("table a", "1"), ("table b", "3"), ("table c", "1"), ("table n", "1")]));
        let names: Vec<String> = differences(&carried, &after).iter().map(Drift::describe).collect();
        assert_eq!(names, ["table a was changed: 1 → 2", "table c was dropped", "table x was added: 1"]);
    }
}
