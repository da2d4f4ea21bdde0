//! One table of a backup, restored beside the live one in the live database: its columns and rows, without indexes and
//! constraints, to look at and to copy from.

use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail};
use archive::content::{Content, Hasher};
use archive::custom::Entry;
use futures_util::TryStreamExt;
use sql::{identifier, literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::database::Place;
use super::load::{self, Source};
use crate::context::unknown;
use crate::data::backup::manifest::Table;
use crate::engine::postgres;
use crate::ui::{Exit, Failure, units};

/// Behind the columns of a partitioned table, as pg_dump writes it.
const PARTITION_BY: &str = "\nPARTITION BY ";

/// What was made.
#[derive(Debug)]
pub struct Restored {
    pub schema: String,
    pub table: String,
    pub rows: u64,
}

/// A table as the backup has it: the rows of a partitioned one are those of its partitions.
struct Found<'a> {
    schema: &'a str,
    name: &'a str,
    definition: &'a Entry,
    parts: Vec<&'a Table>,
}

/// Makes the table `into` and compares it with the backup, in one transaction.
pub async fn beside(source: &Source, place: &Place, wanted: &str, into: Option<&str>) -> Result<Restored> {
    let Found { schema, name, definition, parts } = find(source, wanted)?;
    let into = into.map_or_else(|| format!("{name}_restored"), str::to_owned);
    let made = format!("{}.{}", identifier(schema), identifier(&into));
    let create = create(definition, &made)?;
    let copies: Vec<String> = parts.iter().map(|part| copy(source, part, &made)).collect::<Result<_>>()?;
    if copies.iter().any(|copy| *copy != copies[0]) {
        bail!(
            Failure::new(Exit::Failed, format!("the partitions of `{wanted}` have their columns in different orders"))
                .hint("restore one of them, or the whole database beside the live one: `--into NAME`")
        );
    }
    let mut connection = postgres::open(&place.door, &place.login.user, &place.login.database).await?;
    let begin = format!("BEGIN; SET LOCAL search_path = ''; SET LOCAL statement_timeout = 0; {create}");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(|error| not_made(&made, error))?;
    // A child would show its rows in the parent as well.
    let parents =
        format!("SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = {}::regclass", literal(&made));
    for row in sqlx::raw_sql(AssertSqlSafe(parents)).fetch_all(&mut connection).await? {
        let parent: &str = sqlx::Row::try_get(&row, 0)?;
        let alone = format!("ALTER TABLE {made} NO INHERIT {parent}");
        sqlx::raw_sql(AssertSqlSafe(alone)).execute(&mut connection).await?;
    }
    let mut expected = Content::default();
    for (part, copy) in parts.iter().zip(&copies) {
        load::stream(&mut connection, source, &part.part, copy, &AtomicU64::new(0)).await?;
        expected += Content::from(&part.evidence);
    }
    if let Some(copy) = copies.first() {
        let found = content(&mut connection, &copy.replacen(" FROM stdin", " TO stdout", 1)).await?;
        if found != expected {
            let (found, expected) = (units::count(found.rows), units::count(expected.rows));
            bail!("`{made}` has {found} rows that are not the {expected} of the backup; it was not kept");
        }
    }
    sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
    connection.close().await?;
    Ok(Restored { schema: schema.to_owned(), table: into, rows: expected.rows })
}

/// What the server gives back.
async fn content(connection: &mut PgConnection, copy: &str) -> Result<Content> {
    let mut hasher = Hasher::default();
    let mut stream = connection.copy_out_raw(copy).await?;
    while let Some(piece) = stream.try_next().await? {
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

/// A table by its name, with its schema where several have it.
fn find<'a>(source: &'a Source, wanted: &str) -> Result<Found<'a>> {
    let tables = &source.database.tables;
    let is_one = |entry: &&Entry| {
        entry.kind == "TABLE"
            && (is_partitioned(entry) || tables.iter().any(|table| (&table.schema, &table.name) == name_of(entry)))
    };
    let all: Vec<&Entry> = source.head.entries.iter().filter(is_one).collect();
    let full = |entry: &Entry| format!("{}.{}", entry.schema, entry.tag);
    let fitting: Vec<&Entry> = all.iter().copied().filter(|one| one.tag == wanted || full(one) == wanted).collect();
    match fitting[..] {
        [definition] => {
            let leaves = leaves(&source.head.entries, definition);
            let parts = tables.iter().filter(|table| leaves.contains(&(&table.schema, &table.name))).collect();
            Ok(Found { schema: &definition.schema, name: &definition.tag, definition, parts })
        }
        [] => bail!(unknown("table in the backup", wanted, all.iter().map(|one| one.tag.as_str()).collect::<Vec<_>>())),
        _ => {
            let names: Vec<String> = fitting.iter().map(|one| full(one)).collect();
            bail!(
                Failure::new(Exit::Usage, format!("several tables are called `{wanted}`"))
                    .body(format!("  {}", names.join("\n  ")))
            )
        }
    }
}

fn name_of(entry: &Entry) -> (&String, &String) {
    (&entry.schema, &entry.tag)
}

fn is_partitioned(entry: &Entry) -> bool {
    entry.definition.contains(PARTITION_BY)
}

/// The tables that the rows of one are in: itself, or its partitions and theirs.
fn leaves<'a>(entries: &'a [Entry], table: &'a Entry) -> Vec<(&'a String, &'a String)> {
    if !is_partitioned(table) {
        return vec![name_of(table)];
    }
    let attached = entries.iter().filter(|entry| {
        entry.kind == "TABLE ATTACH"
            && behind_name(&entry.definition, &["ALTER TABLE ONLY "], name_of(table))
                .is_some_and(|rest| rest.starts_with(" ATTACH PARTITION "))
    });
    let partitions = attached
        .filter_map(|attach| entries.iter().find(|entry| entry.kind == "TABLE" && name_of(entry) == name_of(attach)));
    partitions.flat_map(|partition| leaves(entries, partition)).collect()
}

/// The statement that makes the table, with the new name in the place of the old one.
fn create(definition: &Entry, made: &str) -> Result<String> {
    let statements = sql::statements(&definition.definition)
        .map_err(|flaw| anyhow::anyhow!("the backup's table cannot be read: {}", flaw.what))?;
    let first = statements.first().context("the backup's table has no definition")?;
    let text = &definition.definition[first.start..first.end];
    let Some(rest) = behind_name(text, &["CREATE TABLE ", "CREATE UNLOGGED TABLE "], name_of(definition)) else {
        bail!("the backup's table is made in an unknown way: `{}`", text.lines().next().unwrap_or_default())
    };
    let columns = rest.rsplit_once(PARTITION_BY).map_or(rest, |(columns, _)| columns);
    let kind = if text.starts_with("CREATE UNLOGGED") { "UNLOGGED TABLE" } else { "TABLE" };
    Ok(format!("CREATE {kind} {made}{columns}"))
}

/// The statement that fills it with the rows of a part.
fn copy(source: &Source, part: &Table, made: &str) -> Result<String> {
    let rows = source.head.entry(part.dump_id).context("the backup does not say how its rows are copied")?;
    let text = rows.copy.trim().trim_end_matches(';');
    let rest = behind_name(text, &["COPY "], (&part.schema, &part.name));
    Ok(format!("COPY {made}{}", rest.context("the backup's rows come in an unknown way")?))
}

/// What follows a table's name, which pg_dump writes in quotes where it must.
fn behind_name<'t>(text: &'t str, begins: &[&str], (schema, name): (&String, &String)) -> Option<&'t str> {
    let rest = begins.iter().find_map(|begin| text.strip_prefix(begin))?;
    let either = |text: &'t str, name: &str| {
        let rest = text.strip_prefix(&identifier(name)).or_else(|| text.strip_prefix(name))?;
        rest.starts_with(['.', ' ']).then_some(rest)
    };
    either(either(rest, schema)?.strip_prefix('.')?, name)
}

fn not_made(made: &str, error: sqlx::Error) -> anyhow::Error {
    // 42P07 is `duplicate_table`.
    let exists = error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42P07");
    match exists {
        true => Failure::new(Exit::Refused, format!("there is a table {made} already, nothing was changed"))
            .hint("drop it, or name another one: `--into NAME`")
            .into(),
        false => anyhow::Error::new(error).context(format!("cannot make {made}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gets_another_name_in_the_place_of_its_own() {
        let mut table = Entry::default();
        (table.schema, table.tag, table.kind) = ("public".to_owned(), "Sp (x".to_owned(), "TABLE".to_owned());
        table.definition = "CREATE TABLE public.\"Sp (x\" (\n    a text DEFAULT 'public.t;'\n);\n\nALTER TABLE ONLY public.t ALTER COLUMN a SET STORAGE EXTERNAL;\n".into();
        assert_eq!(
            create(&table, "public.\"n\"").unwrap(),
            "CREATE TABLE public.\"n\" (\n    a text DEFAULT 'public.t;'\n)"
        );
        table.definition = "CREATE UNLOGGED TABLE public.\"Sp (x\" (\n    a int\n)\nPARTITION BY LIST (a);\n".into();
        assert_eq!(create(&table, "x").unwrap(), "CREATE UNLOGGED TABLE x (\n    a int\n)");
        table.definition = "CREATE FOREIGN TABLE public.\"Sp (x\" (a int)".into();
        assert!(create(&table, "x").is_err());
        let behind = |text| behind_name(text, &["COPY "], (&"s".to_owned(), &"t".to_owned()));
        assert_eq!(behind("COPY s.t (a) FROM stdin"), Some(" (a) FROM stdin"));
        assert_eq!(behind("COPY \"s\".\"t\" (a) FROM stdin"), Some(" (a) FROM stdin"));
        assert_eq!(behind("COPY s.tt (a) FROM stdin"), None);
    }
}
