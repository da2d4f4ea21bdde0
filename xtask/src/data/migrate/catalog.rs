//! The catalog of a database as text, an object a line, so that an alteration by hand is seen and named. It holds no OIDs
//! and not the name of the schema that is worked in, so the same migrations give the same text everywhere.
//!
//! It is a good part of what a run costs its server. So the server gives plain rows of its catalogs, each for itself, of what
//! users made, and what belongs together is put together here: joins and sorting took it longer than all else of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use crate::engine::postgres::FIRST_OF_USERS;

/// Object to definition: `column learning_sessions.mood` to `text not null`.
pub type Catalog = BTreeMap<String, String>;

/// What the first column of a row is called.
pub const ROW: &str = "xtask_object";

/// Our own tables, and those of sqlx.
const OURS: [&str; 2] = ["_sqlx_migrations", "_xtask_"];
/// Longer definitions, in bytes, are kept as hashes.
const LONGEST: usize = 300;
pub const HASHED: &str = "blake3:";

/// Numbers that PostgreSQL gave its own objects for good (`pg_class.dat` and its like).
const PG_CLASS: i64 = 1259;
const PG_TYPE: i64 = 1247;
const PG_PROC: i64 = 1255;
const PG_EXTENSION: u32 = 3079;
const PG_TOAST: u32 = 99;

/// The kinds of rows, by the catalog that they are of.
mod kind {
    pub const NAMESPACE: &str = "namespace";
    pub const MEMBER: &str = "member";
    pub const CLASS: &str = "class";
    pub const DESCRIPTION: &str = "description";
    pub const ATTRIBUTE: &str = "attribute";
    pub const DEFAULT: &str = "default";
    pub const CONSTRAINT: &str = "constraint";
    pub const INDEX: &str = "index";
    pub const TRIGGER: &str = "trigger";
    pub const POLICY: &str = "policy";
    pub const SEQUENCE: &str = "sequence";
    pub const PROC: &str = "proc";
    pub const TYPE: &str = "type";
    pub const ENUM: &str = "enum";
    pub const EXTENSION: &str = "extension";
}

/// The statement that gives the rows.
pub fn query() -> String {
    // 100 is the default collation, 950 is "C", which `name` (19) and `name[]` (1003) have.
    format!(
        r"SELECT '{namespace}' AS {ROW}, oid::bigint AS id, 0::bigint AS other, nspname::text AS name, (nspname = current_schema())::text AS one, NULL::text AS two
  FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
UNION ALL
SELECT '{member}', classid::bigint, objid::bigint, '', NULL, NULL FROM pg_catalog.pg_depend WHERE refclassid = {PG_EXTENSION} AND deptype = 'e'
UNION ALL
SELECT '{class}', oid::bigint, relnamespace::bigint, relname::text, relkind::text,
  concat_ws(' ', relkind, relpersistence, reloptions::text, CASE WHEN relrowsecurity THEN 'row security' END,
    CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid, true) END)
  FROM pg_catalog.pg_class WHERE oid >= {FIRST_OF_USERS} AND relnamespace <> {PG_TOAST}
UNION ALL
SELECT '{description}', objoid::bigint, objsubid::bigint, '', description, NULL FROM pg_catalog.pg_description
  WHERE objoid >= {FIRST_OF_USERS} AND classoid = {PG_CLASS}
UNION ALL
SELECT '{attribute}', attrelid::bigint, attnum::bigint, attname::text,
  concat_ws(' ', format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'not null' END,
    CASE WHEN attcollation NOT IN (0, 100) AND (attcollation <> 950 OR atttypid NOT IN (19, 1003)) THEN 'collate ' || attcollation::regcollation::text END,
    CASE WHEN attidentity <> '' THEN 'identity ' || attidentity::text END, CASE WHEN attgenerated <> '' THEN 'generated' END), NULL
  FROM pg_catalog.pg_attribute WHERE attrelid >= {FIRST_OF_USERS} AND attnum > 0 AND NOT attisdropped
    AND attrelid IN (SELECT oid FROM pg_catalog.pg_class WHERE oid >= {FIRST_OF_USERS} AND relkind IN ('r', 'p', 'f', 'c'))
UNION ALL
SELECT '{default}', adrelid::bigint, adnum::bigint, '', pg_get_expr(adbin, adrelid), NULL FROM pg_catalog.pg_attrdef WHERE adrelid >= {FIRST_OF_USERS}
UNION ALL
SELECT '{constraint}', CASE conrelid WHEN 0 THEN contypid ELSE conrelid END::bigint, conindid::bigint, conname::text, contype::text,
  pg_get_constraintdef(oid, true)
  FROM pg_catalog.pg_constraint WHERE oid >= {FIRST_OF_USERS} AND contype <> 'n'
UNION ALL
SELECT '{index}', indexrelid::bigint, indrelid::bigint, '',
  CASE WHEN indisprimary THEN '' ELSE pg_get_indexdef(indexrelid, 0, true) END || CASE WHEN indisvalid THEN '' ELSE ' invalid' END, NULL
  FROM pg_catalog.pg_index WHERE indexrelid >= {FIRST_OF_USERS}
UNION ALL
SELECT '{trigger}', tgrelid::bigint, 0, tgname::text, tgenabled::text || ' ' || pg_get_triggerdef(oid, true), NULL
  FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT '{policy}', polrelid::bigint, 0, polname::text,
  concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), NULL FROM pg_catalog.pg_policy
UNION ALL
SELECT '{sequence}', seqrelid::bigint, 0, '', concat_ws(' ', format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcycle), NULL
  FROM pg_catalog.pg_sequence
UNION ALL
SELECT '{proc}', oid::bigint, pronamespace::bigint, proname::text, pg_get_function_identity_arguments(oid),
  concat_ws(' ', prokind, (SELECT lanname FROM pg_catalog.pg_language WHERE pg_language.oid = prolang), provolatile, proisstrict, prosecdef,
    proconfig::text, pg_get_function_result(oid), prosrc, pg_get_function_sqlbody(oid))
  FROM pg_catalog.pg_proc WHERE oid >= {FIRST_OF_USERS}
UNION ALL
SELECT '{type_}', oid::bigint, typnamespace::bigint, typname::text, typrelid::text,
  concat_ws(' ', typtype, CASE WHEN typbasetype <> 0 THEN format_type(typbasetype, typtypmod) END, CASE WHEN typnotnull THEN 'not null' END)
  FROM pg_catalog.pg_type WHERE oid >= {FIRST_OF_USERS} AND typtype IN ('d', 'e', 'r', 'c')
UNION ALL
SELECT '{enum_}', enumtypid::bigint, 0, enumlabel::text, enumsortorder::text, quote_literal(enumlabel) FROM pg_catalog.pg_enum
  WHERE enumtypid >= {FIRST_OF_USERS}
UNION ALL
SELECT '{extension}', 0, 0, extname::text, NULL, NULL FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'",
        namespace = kind::NAMESPACE,
        member = kind::MEMBER,
        class = kind::CLASS,
        description = kind::DESCRIPTION,
        attribute = kind::ATTRIBUTE,
        default = kind::DEFAULT,
        constraint = kind::CONSTRAINT,
        index = kind::INDEX,
        trigger = kind::TRIGGER,
        policy = kind::POLICY,
        sequence = kind::SEQUENCE,
        proc = kind::PROC,
        type_ = kind::TYPE,
        enum_ = kind::ENUM,
        extension = kind::EXTENSION,
    )
}

/// The catalog as it is now, as an expression that [`kept`] reads again: the rows as they are, numbers and all. Those stay
/// with the server; nobody reads them before somebody asks what was altered.
pub fn expression() -> String {
    let rows = query();
    format!("(SELECT json_agg(json_build_array({ROW}, id, other, name, one, two))::text FROM ({rows}) AS rows)")
}

/// A catalog that was kept: as objects, or as the rows of an [`expression`].
pub fn kept(text: &str) -> Result<Catalog> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Objects(Catalog),
        Rows(Vec<Fields>),
    }
    type Fields = (String, i64, i64, String, Option<String>, Option<String>);
    Ok(match serde_json::from_str(text).context("the recorded catalog cannot be read")? {
        Kept::Objects(catalog) => catalog,
        Kept::Rows(rows) => {
            let raw = |(kind, id, other, name, one, two): Fields| {
                let (one, two) = (one.unwrap_or_default(), two.unwrap_or_default());
                Raw { kind, id, other, name, one, two }
            };
            assemble(&rows.into_iter().map(raw).collect::<Vec<_>>())
        }
    })
}

/// The catalog as it is now.
pub async fn present(connection: &mut PgConnection) -> Result<Catalog> {
    let rows = sqlx::raw_sql(AssertSqlSafe(query())).fetch_all(connection).await?;
    let rows: Vec<Raw> = rows.iter().map(Raw::read).collect::<Result<_, _>>()?;
    Ok(assemble(&rows))
}

/// A row of one of the catalogs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    kind: String,
    id: i64,
    other: i64,
    name: String,
    one: String,
    two: String,
}

impl Raw {
    pub fn read(row: &PgRow) -> Result<Raw, sqlx::Error> {
        let text = |index: usize| row.try_get::<Option<String>, _>(index).map(Option::unwrap_or_default);
        Ok(Raw {
            kind: text(0)?,
            id: row.try_get(1)?,
            other: row.try_get(2)?,
            name: text(3)?,
            one: text(4)?,
            two: text(5)?,
        })
    }
}

/// The rows by kind.
struct Rows<'r>(HashMap<&'r str, Vec<&'r Raw>>);

impl<'r> Rows<'r> {
    fn of(&self, kind: &str) -> impl Iterator<Item = &'r Raw> {
        self.0.get(kind).into_iter().flatten().copied()
    }
}

/// Puts together what the rows of a [`query`] say. Names are as short as the search path lets them be.
pub fn assemble(rows: &[Raw]) -> Catalog {
    let mut by_kind: HashMap<&str, Vec<&Raw>> = HashMap::new();
    rows.iter().for_each(|row| by_kind.entry(&row.kind).or_default().push(row));
    let rows = Rows(by_kind);
    let spaces: HashMap<i64, String> = rows
        .of(kind::NAMESPACE)
        .map(|space| (space.id, if space.one == "true" { String::new() } else { format!("{}.", space.name) }))
        .collect();
    let members: HashSet<(i64, i64)> = rows.of(kind::MEMBER).map(|member| (member.id, member.other)).collect();
    let named = |class: i64, row: &Raw| {
        let space = spaces.get(&row.other).filter(|_| !members.contains(&(class, row.id)));
        space.map(|space| format!("{space}{}", row.name))
    };
    let is_ours = |row: &Raw| OURS.iter().any(|begin| row.name.starts_with(begin));
    let classes: HashMap<i64, &Raw> = rows.of(kind::CLASS).map(|class| (class.id, class)).collect();
    let relations: HashMap<i64, String> = rows
        .of(kind::CLASS)
        .filter(|class| ["r", "p", "v", "m", "f", "S"].contains(&class.one.as_str()) && !is_ours(class))
        .filter_map(|class| Some((class.id, named(PG_CLASS, class)?)))
        .collect();
    let types: HashMap<i64, String> =
        rows.of(kind::TYPE).filter_map(|one| Some((one.id, named(PG_TYPE, one)?))).collect();
    let parts = Parts::of(&rows);

    let mut catalog = Catalog::new();
    let mut add = |object: String, definition: &str| {
        let definition = match definition.len() {
            0..=LONGEST => definition.to_owned(),
            _ => format!("{HASHED}{}", blake3::hash(definition.as_bytes()).to_hex()),
        };
        catalog.insert(object, definition);
    };
    for class in rows.of(kind::CLASS) {
        let Some(name) = relations.get(&class.id) else { continue };
        let word = match class.one.as_str() {
            "v" => "view",
            "m" => "materialized view",
            "S" => "sequence",
            _ => "table",
        };
        let comment = parts.comments.get(&(class.id, 0)).map(|comment| format!(" {comment}")).unwrap_or_default();
        add(format!("{word} {name}"), &format!("{}{comment}", class.two));
    }
    for column in rows.of(kind::ATTRIBUTE) {
        let Some(name) = relations.get(&column.id) else { continue };
        let place = (column.id, column.other);
        let default = parts.defaults.get(&place).map(|default| format!(" default {default}")).unwrap_or_default();
        let comment = parts.comments.get(&place).map(|comment| format!(" -- {comment}")).unwrap_or_default();
        add(format!("column {name}.{}", column.name), &format!("{}{default}{comment}", column.one));
    }
    for constraint in rows.of(kind::CONSTRAINT) {
        let Some(name) = relations.get(&constraint.id) else { continue };
        add(format!("constraint {name}.{}", constraint.name), &constraint.two);
    }
    for index in rows.of(kind::INDEX).filter(|index| !parts.of_constraints.contains(&index.id)) {
        let (Some(table), Some(class)) = (relations.get(&index.other), classes.get(&index.id)) else { continue };
        add(format!("index {table}.{}", class.name), &index.one);
    }
    for (kind, word) in [(kind::TRIGGER, "trigger"), (kind::POLICY, "policy")] {
        for row in rows.of(kind) {
            let Some(table) = relations.get(&row.id) else { continue };
            add(format!("{word} {table}.{}", row.name), &row.one);
        }
    }
    for sequence in rows.of(kind::SEQUENCE) {
        let Some(name) = relations.get(&sequence.id) else { continue };
        add(format!("sequence {name} range"), &sequence.one);
    }
    for function in rows.of(kind::PROC) {
        let Some(name) = named(PG_PROC, function) else { continue };
        add(format!("function {name}({})", function.one), &function.two);
    }
    for one in rows.of(kind::TYPE) {
        // Every table has a type of its own; those are no news.
        let of_relation = one.one.parse().ok().and_then(|relation: i64| classes.get(&relation));
        if of_relation.is_some_and(|relation| relation.one != "c") {
            continue;
        }
        let Some(name) = types.get(&one.id) else { continue };
        let fields = of_relation.map(|relation| parts.fields_of(relation.id));
        let lists = [parts.labels_of(one.id), parts.checks_of(one.id), fields.unwrap_or_default()];
        let words = [one.two.clone()].into_iter().chain(lists).filter(|words| !words.is_empty());
        add(format!("type {name}"), &words.collect::<Vec<_>>().join(" "));
    }
    for extension in rows.of(kind::EXTENSION) {
        add(format!("extension {}", extension.name), "");
    }
    catalog
}

/// What belongs to objects, by their numbers.
struct Parts<'r> {
    comments: HashMap<(i64, i64), &'r str>,
    defaults: HashMap<(i64, i64), &'r str>,
    /// The indexes of primary keys and of unique and exclusion constraints.
    of_constraints: HashSet<i64>,
    checks: Vec<&'r Raw>,
    labels: Vec<&'r Raw>,
    columns: Vec<&'r Raw>,
}

impl<'r> Parts<'r> {
    fn of(rows: &Rows<'r>) -> Parts<'r> {
        let texts = |kind: &str| rows.of(kind).map(|row| ((row.id, row.other), row.one.as_str())).collect();
        let with_index =
            rows.of(kind::CONSTRAINT).filter(|constraint| ["p", "u", "x"].contains(&constraint.one.as_str()));
        Parts {
            comments: texts(kind::DESCRIPTION),
            defaults: texts(kind::DEFAULT),
            of_constraints: with_index.map(|constraint| constraint.other).collect(),
            checks: rows.of(kind::CONSTRAINT).collect(),
            labels: rows.of(kind::ENUM).collect(),
            columns: rows.of(kind::ATTRIBUTE).collect(),
        }
    }

    /// Of an enum, in its order.
    fn labels_of(&self, id: i64) -> String {
        let mut labels: Vec<&Raw> = self.labels.iter().filter(|label| label.id == id).copied().collect();
        let order = |label: &Raw| label.one.parse::<f32>().unwrap_or_default();
        labels.sort_by(|one, other| order(one).total_cmp(&order(other)));
        labels.iter().map(|label| label.two.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Of a domain.
    fn checks_of(&self, id: i64) -> String {
        let mut checks: Vec<&Raw> = self.checks.iter().filter(|check| check.id == id).copied().collect();
        checks.sort_by(|one, other| one.name.cmp(&other.name));
        checks.iter().map(|check| format!("{} {}", check.name, check.two)).collect::<Vec<_>>().join(", ")
    }

    /// Of a composite type, by the number of what holds its columns.
    fn fields_of(&self, id: i64) -> String {
        let mut fields: Vec<&Raw> = self.columns.iter().filter(|column| column.id == id).copied().collect();
        fields.sort_by_key(|field| field.other);
        fields.iter().map(|field| format!("{} {}", field.name, field.one)).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, (id, other): (i64, i64), name: &str, one: &str, two: &str) -> Raw {
        Raw { kind: kind.into(), id, other, name: name.into(), one: one.into(), two: two.into() }
    }

    #[test]
    fn a_catalog_is_kept_as_rows_or_as_objects() {
        let rows = r#"[["namespace", 1, 0, "public", "true", null], ["class", 10, 1, "people", "r", "r p"],
            ["attribute", 10, 1, "id", "bigint not null", null]]"#;
        let objects = r#"{"column people.id": "bigint not null", "table people": "r p"}"#;
        assert_eq!(kept(rows).unwrap(), kept(objects).unwrap());
        assert_eq!(kept(rows).unwrap().len(), 2);
        assert!(kept("[1]").is_err());
    }

    #[test]
    fn rows_become_objects_without_numbers() {
        let rows = [
            row(kind::NAMESPACE, (1, 0), "public", "true", ""),
            row(kind::NAMESPACE, (2, 0), "other", "false", ""),
            row(kind::CLASS, (10, 1), "people", "r", "r p"),
            row(kind::CLASS, (11, 2), "people", "v", "v p SELECT 1"),
            row(kind::CLASS, (12, 1), "_sqlx_migrations", "r", "r p"),
            row(kind::CLASS, (13, 1), "people_pkey", "i", "i p"),
            row(kind::CLASS, (14, 1), "by_name", "i", "i p"),
            row(kind::CLASS, (15, 1), "pair", "c", "c p"),
            row(kind::CLASS, (16, 1), "of_extension", "r", "r p"),
            row(kind::MEMBER, (PG_CLASS, 16), "", "", ""),
            row(kind::DESCRIPTION, (10, 2), "", "how they are called", ""),
            row(kind::ATTRIBUTE, (10, 1), "id", "bigint not null", ""),
            row(kind::ATTRIBUTE, (10, 2), "name", "text", ""),
            row(kind::ATTRIBUTE, (15, 2), "b", "integer", ""),
            row(kind::ATTRIBUTE, (15, 1), "a", "text", ""),
            row(kind::DEFAULT, (10, 2), "", "'x'::text", ""),
            row(kind::CONSTRAINT, (10, 13), "people_pkey", "p", "PRIMARY KEY (id)"),
            row(kind::CONSTRAINT, (30, 0), "is_even", "c", "CHECK (value % 2 = 0)"),
            row(kind::INDEX, (13, 10), "", "", ""),
            row(kind::INDEX, (14, 10), "", "CREATE INDEX by_name ON people (name)", ""),
            row(kind::TYPE, (30, 1), "even", "0", "d integer"),
            row(kind::TYPE, (31, 1), "people", "10", "c"),
            row(kind::TYPE, (32, 1), "pair", "15", "c"),
            row(kind::TYPE, (33, 1), "mood", "0", "e"),
            row(kind::ENUM, (33, 0), "good", "2", "'good'"),
            row(kind::ENUM, (33, 0), "bad", "1.5", "'bad'"),
            row(kind::PROC, (40, 1), "long", "a integer", &"x".repeat(LONGEST + 1)),
        ];
        let catalog = assemble(&rows);
        let hashed = catalog["function long(a integer)"].clone();
        assert!(hashed.starts_with(HASHED) && hashed.len() < 100);
        let lines: Vec<String> = catalog
            .iter()
            .filter(|(object, _)| !object.starts_with("function"))
            .map(|(object, definition)| format!("{object}: {definition}"))
            .collect();
        assert_eq!(
            lines,
            [
                "column people.id: bigint not null",
                "column people.name: text default 'x'::text -- how they are called",
                "constraint people.people_pkey: PRIMARY KEY (id)",
                "index people.by_name: CREATE INDEX by_name ON people (name)",
                "table people: r p",
                "type even: d integer is_even CHECK (value % 2 = 0)",
                "type mood: e 'bad', 'good'",
                "type pair: c a text, b integer",
                "view other.people: v p SELECT 1",
            ]
        );
    }
}
