//! The catalog of a database as text, an object a line, so that an alteration by hand is seen and named. It holds no OIDs
//! and not the name of the schema that is worked in, so the same migrations give the same text everywhere.
//!
//! It is a good part of what a run costs its server. So the server gives plain rows of its catalogs, each for itself, of what
//! users made, in its own words for a row, and what belongs together is put together here: joins and sorting took it longer
//! than all else of it, and a row as JSON takes it a fifth longer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::engine::postgres::FIRST_OF_USERS;
use crate::ui::{Exit, Failure};

/// Object to definition: `column learning_sessions.mood` to `text not null`.
pub type Catalog = BTreeMap<String, String>;

/// What the rows stand under, where a catalog is kept as rows.
const RECORDS: &str = "records";

/// Our own tables, and those of sqlx.
const OURS: [&str; 2] = ["_sqlx_migrations", "_xtask_"];
/// Longer definitions, in bytes, are kept as hashes.
const LONGEST: usize = 300;
pub const HASHED: &str = "blake3:";

/// Kinds of relations whose columns are their own: tables, partitioned and foreign ones.
const WITH_COLUMNS: [&str; 3] = ["r", "p", "f"];

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

/// What is asked of each catalog, as it stands there: casts and concatenations cost a server that has just begun a session
/// more than the rows do. So does a number beside an OID: in quotes it is an OID as well, and the server need not look for an
/// operator between the two. By kind: the columns, and of which rows.
fn questions() -> [(&'static str, &'static str, String); 15] {
    let of_users = |number: &str, of: &str| format!("{of} WHERE {number} >= '{FIRST_OF_USERS}'");
    // 100 is the default collation, 950 is "C", which `name` (19) and `name[]` (1003) have; 2200 is `public`.
    [
        (
            kind::NAMESPACE,
            "oid, nspname, nspname = current_schema()",
            format!("{} OR oid = '2200'", of_users("oid", "pg_namespace")),
        ),
        (kind::MEMBER, "classid, objid", format!("pg_depend WHERE refclassid = '{PG_EXTENSION}' AND deptype = 'e'")),
        (
            kind::CLASS,
            "oid, relnamespace, relname, relkind, relpersistence, reloptions, relrowsecurity, \
             CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid, true) END",
            format!("{} AND relnamespace <> '{PG_TOAST}'", of_users("oid", "pg_class")),
        ),
        (
            kind::DESCRIPTION,
            "objoid, objsubid, description",
            format!("{} AND classoid = '{PG_CLASS}'", of_users("objoid", "pg_description")),
        ),
        (
            kind::ATTRIBUTE,
            "attrelid, attnum, attname, format_type(atttypid, atttypmod), attnotnull, \
             CASE WHEN attcollation NOT IN ('0', '100') AND (attcollation <> '950' OR atttypid NOT IN ('19', '1003')) \
             THEN attcollation::regcollation END, attidentity, attgenerated",
            format!("{} AND attnum > 0 AND NOT attisdropped", of_users("attrelid", "pg_attribute")),
        ),
        (kind::DEFAULT, "adrelid, adnum, pg_get_expr(adbin, adrelid)", of_users("adrelid", "pg_attrdef")),
        (
            kind::CONSTRAINT,
            "conrelid, contypid, conindid, conname, contype, pg_get_constraintdef(oid, true)",
            format!("{} AND contype <> 'n'", of_users("oid", "pg_constraint")),
        ),
        (
            kind::INDEX,
            "indexrelid, indrelid, indisvalid, pg_get_indexdef(indexrelid, 0, true)",
            format!("{} AND NOT indisprimary", of_users("indexrelid", "pg_index")),
        ),
        (
            kind::TRIGGER,
            "tgrelid, tgname, tgenabled, pg_get_triggerdef(oid, true)",
            "pg_trigger WHERE NOT tgisinternal".to_owned(),
        ),
        (
            kind::POLICY,
            "polrelid, polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)",
            "pg_policy".to_owned(),
        ),
        (
            kind::SEQUENCE,
            "seqrelid, format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcycle",
            "pg_sequence".to_owned(),
        ),
        (
            kind::PROC,
            "oid, pronamespace, proname, pg_get_function_identity_arguments(oid), prokind, \
             (SELECT lanname FROM pg_catalog.pg_language WHERE pg_language.oid = prolang), provolatile, proisstrict, \
             prosecdef, proconfig, pg_get_function_result(oid), prosrc, pg_get_function_sqlbody(oid)",
            of_users("oid", "pg_proc"),
        ),
        (
            kind::TYPE,
            "oid, typnamespace, typname, typrelid, typtype, \
             CASE WHEN typbasetype <> '0' THEN format_type(typbasetype, typtypmod) END, typnotnull",
            format!("{} AND typtype IN ('d', 'e', 'r', 'c')", of_users("oid", "pg_type")),
        ),
        (kind::ENUM, "enumtypid, enumsortorder, quote_literal(enumlabel)", of_users("enumtypid", "pg_enum")),
        (kind::EXTENSION, "extname", "pg_extension WHERE extname <> 'plpgsql'".to_owned()),
    ]
}

/// The catalog as it is now, as an expression that [`kept`] reads: the rows as they are, numbers and all. Those of a run stay
/// with the server; nobody reads them before somebody asks what was altered.
pub fn expression() -> &'static str {
    static EXPRESSION: LazyLock<String> = LazyLock::new(|| {
        let questions = questions();
        let each = questions.iter().map(|(kind, columns, rows)| {
            format!("'{kind}', ARRAY(SELECT ROW({columns})::text FROM pg_catalog.{rows})")
        });
        format!("json_build_object('{RECORDS}', json_build_object({}))::text", each.collect::<Vec<_>>().join(",\n"))
    });
    &EXPRESSION
}

/// A catalog that was kept: as objects, or as the rows of an [`expression`].
pub fn kept(text: &str) -> Result<Catalog> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Records {
            records: BTreeMap<String, Vec<String>>,
        },
        /// As earlier helpers kept them.
        Rows {
            rows: BTreeMap<String, Option<Vec<Vec<Value>>>>,
        },
        Objects(Catalog),
    }
    let unreadable = || {
        Failure::new(Exit::Failed, "the catalog that was recorded cannot be read").hint(
            "where a newer helper has recorded it, use that one; `cargo xtask migrate repair --catalog` takes what is there",
        )
    };
    let raw: Option<Vec<Raw>> = match serde_json::from_str(text).with_context(unreadable)? {
        Kept::Objects(catalog) => return Ok(catalog),
        Kept::Records { records } => {
            let all = records.iter().flat_map(|(kind, rows)| rows.iter().map(move |row| (kind, fields(row))));
            all.map(|(kind, row)| Raw::read(kind, &row?)).collect()
        }
        Kept::Rows { rows } => {
            let all = rows.iter().flat_map(|(kind, rows)| rows.iter().flatten().map(move |row| (kind, row)));
            all.map(|(kind, row)| Raw::read(kind, &row.iter().map(word).collect::<Vec<_>>())).collect()
        }
    };
    Ok(assemble(&raw.context("it has rows of another kind").with_context(unreadable)?))
}

/// The fields of a row in PostgreSQL's words, as its documentation has them under "Composite Type Input and Output Syntax".
fn fields(record: &str) -> Option<Vec<Option<String>>> {
    let mut rest = record.strip_prefix('(')?.strip_suffix(')')?.chars().peekable();
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), None::<String>, false);
    while let Some(character) = rest.next() {
        match character {
            ',' if !is_quoted => fields.push(field.take()),
            '"' if is_quoted && rest.next_if_eq(&'"').is_some() => field.get_or_insert_default().push('"'),
            '"' => {
                is_quoted = !is_quoted;
                field.get_or_insert_default();
            }
            '\\' => field.get_or_insert_default().push(rest.next()?),
            _ => field.get_or_insert_default().push(character),
        }
    }
    fields.push(field);
    (!is_quoted).then_some(fields)
}

/// A field of a row that was kept as JSON, in PostgreSQL's words.
fn word(field: &Value) -> Option<String> {
    match field {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(holds) => Some(if *holds { "t" } else { "f" }.to_owned()),
        _ => None,
    }
}

/// The catalog as it is now.
pub async fn present(connection: &mut PgConnection) -> Result<Catalog> {
    let sql = format!("SELECT {}", expression());
    kept(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?.try_get(0)?)
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
    /// From a row as its question gives it.
    fn read(kind: &str, row: &[Option<String>]) -> Option<Raw> {
        let part = |index: usize| row.get(index).cloned().flatten();
        let text = |index: usize| part(index).unwrap_or_default();
        let holds = |index: usize| part(index).is_some_and(|flag| flag == "t");
        let words = |parts: Vec<Option<String>>| parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let number = |index: usize| part(index)?.parse::<i64>().ok();
        let when = |holds: bool, word: &str| holds.then(|| word.to_owned());
        let named = |word: &str, index: usize| {
            part(index).filter(|value| !value.is_empty()).map(|value| format!("{word} {value}"))
        };
        let (id, other, name, one, two) = match kind {
            kind::NAMESPACE => (number(0)?, 0, text(1), holds(2).to_string(), String::new()),
            kind::MEMBER => (number(0)?, number(1)?, String::new(), String::new(), String::new()),
            kind::CLASS => {
                let definition = vec![part(3), part(4), part(5), when(holds(6), "row security"), part(7)];
                (number(0)?, number(1)?, text(2), text(3), words(definition))
            }
            kind::DESCRIPTION | kind::DEFAULT => (number(0)?, number(1)?, String::new(), text(2), String::new()),
            kind::ATTRIBUTE => {
                let generated = part(7).is_some_and(|how| !how.is_empty());
                let collation = named("collate", 5);
                let definition = [
                    part(3),
                    when(holds(4), "not null"),
                    collation,
                    named("identity", 6),
                    when(generated, "generated"),
                ];
                (number(0)?, number(1)?, text(2), words(definition.into()), String::new())
            }
            kind::CONSTRAINT => {
                let of = number(0).filter(|table| *table != 0).or_else(|| number(1))?;
                (of, number(2)?, text(3), text(4), text(5))
            }
            kind::INDEX => {
                let invalid = if holds(2) { "" } else { " invalid" };
                (number(0)?, number(1)?, String::new(), format!("{}{invalid}", text(3)), String::new())
            }
            kind::TRIGGER => (number(0)?, 0, text(1), format!("{} {}", text(2), text(3)), String::new()),
            kind::POLICY => (number(0)?, 0, text(1), words((2..6).map(part).collect()), String::new()),
            kind::SEQUENCE => (number(0)?, 0, String::new(), words((1..7).map(part).collect()), String::new()),
            kind::PROC => (number(0)?, number(1)?, text(2), text(3), words((4..13).map(part).collect())),
            kind::TYPE => {
                let definition = vec![part(4), part(5), when(holds(6), "not null")];
                (number(0)?, number(1)?, text(2), text(3), words(definition))
            }
            kind::ENUM => (number(0)?, 0, String::new(), text(1), text(2)),
            kind::EXTENSION => (0, 0, text(0), String::new(), String::new()),
            _ => return None,
        };
        Some(Raw { kind: kind.to_owned(), id, other, name, one, two })
    }
}

/// The rows by kind.
struct Rows<'r>(HashMap<&'r str, Vec<&'r Raw>>);

impl<'r> Rows<'r> {
    fn of(&self, kind: &str) -> impl Iterator<Item = &'r Raw> {
        self.0.get(kind).into_iter().flatten().copied()
    }
}

/// Puts together what the rows of an [`expression`] say. Names are as short as the search path lets them be.
pub fn assemble(rows: &[Raw]) -> Catalog {
    let mut by_kind: HashMap<&str, Vec<&Raw>> = HashMap::new();
    rows.iter().for_each(|row| by_kind.entry(&row.kind).or_default().push(row));
    let rows = Rows(by_kind);
    let spaces: HashMap<i64, String> = rows
        .of(kind::NAMESPACE)
        .filter(|space| !space.name.starts_with("pg_"))
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
    let has_columns = |id: i64| classes.get(&id).is_some_and(|class| WITH_COLUMNS.contains(&class.one.as_str()));
    for column in rows.of(kind::ATTRIBUTE).filter(|column| has_columns(column.id)) {
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
        let rows = r#"{"rows": {"namespace": [["1", "public", true]], "policy": null,
            "class": [["10", "1", "people", "r", "p", "{fillfactor=70}", false, null],
                ["11", "1", "ids", "S", "p", null, false, null]],
            "attribute": [["10", 1, "id", "bigint", true, null, "a", ""], ["11", 1, "last_value", "bigint", true, null, "", ""]],
            "sequence": [["11", "bigint", 1, 1, 1, 9223372036854775807, false]]}}"#;
        let records = r#"{"records": {"namespace": ["(1,public,t)"], "policy": [],
            "class": ["(10,1,people,r,p,{fillfactor=70},f,)", "(11,1,ids,S,p,,f,)"],
            "attribute": ["(10,1,id,bigint,t,,a,\"\")", "(11,1,last_value,bigint,t,,\"\",\"\")"],
            "sequence": ["(11,bigint,1,1,1,9223372036854775807,f)"]}}"#;
        let objects = r#"{"column people.id": "bigint not null identity a", "table people": "r p {fillfactor=70}",
            "sequence ids": "S p", "sequence ids range": "bigint 1 1 1 9223372036854775807 f"}"#;
        assert_eq!(kept(rows).unwrap(), kept(objects).unwrap());
        assert_eq!(kept(records).unwrap(), kept(objects).unwrap());
        for broken in ["[1]", r#"{"rows": {"class": [[null]]}}"#, r#"{"records": {"class": ["(10"]}}"#] {
            assert!(kept(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn fields_are_read_as_postgresql_writes_them() {
        let some = |text: &str| Some(text.to_owned());
        let written = r#"(10,,"","a, ""b"" (c) \\ d",ä,"")"#;
        assert_eq!(
            fields(written).unwrap(),
            [some("10"), None, some(""), some("a, \"b\" (c) \\ d"), some("ä"), some("")]
        );
        assert_eq!(fields("(1)").unwrap(), [some("1")]);
        for broken in ["", "1", "(1", r#"("1)"#, r"(1\)"] {
            assert_eq!(fields(broken), None, "{broken}");
        }
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
