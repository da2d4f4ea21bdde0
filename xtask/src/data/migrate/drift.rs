//! The catalog of a database as text, an object a line, so that an alteration by hand is seen and named. It holds no OIDs
//! and not the name of the schema that is worked in, so the same migrations give the same text everywhere.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::history::{self, History, IS_CATALOG, KEPT};
use crate::engine::postgres::FIRST_OF_USERS;

/// Object to definition: `column learning_sessions.mood` to `text not null`.
pub type Catalog = BTreeMap<String, String>;

/// Our own tables, and those of sqlx.
const OURS: &str = "^_(sqlx_migrations|xtask_)";

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
        let shown =
            |definition: &str| if definition.starts_with("md5:") { String::new() } else { format!(": {definition}") };
        match (recorded, present) {
            (None, Some(present)) => format!("{object} was added{}", shown(present)),
            (Some(_), None) => format!("{object} was dropped"),
            (Some(recorded), Some(present)) if recorded.starts_with("md5:") || present.starts_with("md5:") => {
                format!("{object} was changed")
            }
            (Some(recorded), Some(present)) => format!("{object} was changed: {recorded} → {present}"),
            (None, None) => object.clone(),
        }
    }
}

/// The rows `xtask_object, definition` of the catalog. Names are as short as the search path lets them be. It is a good part
/// of what a run costs its server, so it reads no row of the system's own objects, and comments by a join: the functions
/// for them are SQL that is planned anew for each object.
pub fn query() -> String {
    format!(
        r"WITH members AS MATERIALIZED (
  SELECT classid, objid FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_extension'::regclass AND deptype = 'e'
), spaces AS MATERIALIZED (
  SELECT oid, CASE WHEN nspname = current_schema() THEN '' ELSE nspname || '.' END AS prefix
  FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), rels AS MATERIALIZED (
  SELECT c.oid, c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity, spaces.prefix || c.relname AS name
  FROM pg_catalog.pg_class c JOIN spaces ON spaces.oid = c.relnamespace
  WHERE c.oid >= {FIRST_OF_USERS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relname !~ '{OURS}'
    AND c.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_catalog.pg_class'::regclass)
), constraints AS MATERIALIZED (
  SELECT oid, conrelid, conindid, conname, contype, convalidated FROM pg_catalog.pg_constraint WHERE oid >= {FIRST_OF_USERS} AND contype <> 'n'
), found (object, definition) AS (
  SELECT CASE relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || name,
    concat_ws(' ', relkind, relpersistence, reloptions::text, CASE WHEN relrowsecurity THEN 'row security' END,
      CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid, true) END, d.description)
  FROM rels LEFT JOIN pg_catalog.pg_description d ON d.objoid = rels.oid AND d.classoid = 'pg_catalog.pg_class'::regclass AND d.objsubid = 0
  UNION ALL
  SELECT 'column ' || rels.name || '.' || a.attname,
    concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
      CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation::text END,
      CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text END,
      CASE WHEN a.attgenerated <> '' THEN 'generated' END,
      'default ' || pg_get_expr(ad.adbin, ad.adrelid), '-- ' || d.description)
  FROM rels JOIN pg_catalog.pg_attribute a ON a.attrelid = rels.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
  LEFT JOIN pg_catalog.pg_description d ON d.objoid = rels.oid AND d.classoid = 'pg_catalog.pg_class'::regclass AND d.objsubid = a.attnum
  WHERE rels.relkind NOT IN ('v', 'm', 'S') AND a.attrelid >= {FIRST_OF_USERS}
  UNION ALL
  SELECT 'constraint ' || coalesce(rels.name || '.', '') || c.conname,
    pg_get_constraintdef(c.oid, true) || CASE WHEN c.convalidated THEN '' ELSE ' not valid' END
  FROM constraints c JOIN rels ON rels.oid = c.conrelid
  UNION ALL
  SELECT 'index ' || rels.name || '.' || i.relname,
    pg_get_indexdef(x.indexrelid, 0, true) || CASE WHEN x.indisvalid THEN '' ELSE ' invalid' END
  FROM pg_catalog.pg_index x JOIN rels ON rels.oid = x.indrelid JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  WHERE x.indexrelid >= {FIRST_OF_USERS} AND x.indexrelid NOT IN (SELECT conindid FROM constraints WHERE contype IN ('p', 'u', 'x'))
  UNION ALL
  SELECT 'trigger ' || rels.name || '.' || t.tgname, t.tgenabled::text || ' ' || pg_get_triggerdef(t.oid, true)
  FROM pg_catalog.pg_trigger t JOIN rels ON rels.oid = t.tgrelid WHERE NOT t.tgisinternal
  UNION ALL
  SELECT 'policy ' || rels.name || '.' || p.polname,
    concat_ws(' ', p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_catalog.pg_policy p JOIN rels ON rels.oid = p.polrelid
  UNION ALL
  SELECT 'sequence ' || rels.name || ' range', concat_ws(' ', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle)
  FROM pg_catalog.pg_sequence s JOIN rels ON rels.oid = s.seqrelid
  UNION ALL
  SELECT 'function ' || spaces.prefix || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
    concat_ws(' ', p.prokind, l.lanname, p.provolatile, p.proisstrict, p.prosecdef, p.proconfig::text, pg_get_function_result(p.oid), p.prosrc, pg_get_function_sqlbody(p.oid))
  FROM pg_catalog.pg_proc p JOIN spaces ON spaces.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid >= {FIRST_OF_USERS} AND p.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_catalog.pg_proc'::regclass)
  UNION ALL
  SELECT 'type ' || spaces.prefix || t.typname,
    concat_ws(' ', t.typtype, CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END, CASE WHEN t.typnotnull THEN 'not null' END,
      (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
      (SELECT string_agg(c.conname || ' ' || pg_get_constraintdef(c.oid, true), ', ' ORDER BY c.conname) FROM pg_catalog.pg_constraint c WHERE c.contypid = t.oid AND c.contype <> 'n'),
      (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE c.oid = t.typrelid AND c.relkind = 'c' AND NOT a.attisdropped))
  FROM pg_catalog.pg_type t JOIN spaces ON spaces.oid = t.typnamespace
  WHERE t.typtype IN ('d', 'e', 'r', 'c') AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
    AND t.oid >= {FIRST_OF_USERS} AND t.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_catalog.pg_type'::regclass)
  UNION ALL
  SELECT 'extension ' || extname, '' FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'
)
SELECT object AS xtask_object, CASE WHEN length(definition) > 300 THEN 'md5:' || md5(definition) ELSE definition END FROM found"
    )
}

/// The catalog as it is now.
pub async fn present(connection: &mut PgConnection) -> Result<Catalog> {
    let rows = sqlx::raw_sql(AssertSqlSafe(query())).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The catalog as the last run recorded it.
pub async fn recorded(connection: &mut PgConnection, history: &History) -> Result<Catalog> {
    let sql = format!("SELECT text FROM {} WHERE {IS_CATALOG}", history.table(KEPT));
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?;
    serde_json::from_str(row.try_get(0)?).context("the recorded catalog cannot be read")
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

/// Replaces the record.
pub fn record(history: &History, versions: &str, catalog: &Catalog) -> Result<String> {
    Ok(history::keep_catalog(history, versions, &serde_json::to_string(catalog)?))
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
