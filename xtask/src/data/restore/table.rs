//! One table of a backup, restored beside the live one in the live database: its columns and rows, without indexes and
//! constraints, to look at and to copy from.

use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail};
use archive::content::Hasher;
use archive::custom::Entry;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection};

use super::database::Place;
use super::load::{self, Source};
use crate::context::unknown;
use crate::data::backup::manifest::{Evidence, Table};
use crate::engine::postgres::{self, identifier};
use crate::ui::{Exit, Failure, units};

/// What was made.
#[derive(Debug)]
pub struct Restored {
    pub schema: String,
    pub table: String,
    pub rows: u64,
}

/// Makes the table `into` and compares it with the backup, in one transaction.
pub async fn beside(source: &Source, place: &Place, wanted: &str, into: Option<&str>) -> Result<Restored> {
    let table = find(source, wanted)?;
    let into = into.map_or_else(|| format!("{}_restored", table.name), str::to_owned);
    let made = format!("{}.{}", identifier(&table.schema), identifier(&into));
    let definition = source
        .head
        .entries
        .iter()
        .find(|entry| entry.kind == "TABLE" && entry.schema == table.schema && entry.tag == table.name);
    let definition = definition.with_context(|| format!("the backup does not say how `{wanted}` is made"))?;
    let rows = source.head.entry(table.dump_id).context("the backup does not say how its rows are copied")?;
    let (create, copy) = renamed(definition, rows, &made)?;
    let mut connection = postgres::open(&place.door, &place.login.user, &place.login.database).await?;
    let begin = format!("BEGIN; SET LOCAL search_path = ''; SET LOCAL statement_timeout = 0; {create}");
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(|error| not_made(&made, error))?;
    // A child would show its rows in the parent as well.
    let parents = format!(
        "SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = {}::regclass",
        postgres::literal(&made)
    );
    for row in sqlx::raw_sql(AssertSqlSafe(parents)).fetch_all(&mut connection).await? {
        let parent: &str = sqlx::Row::try_get(&row, 0)?;
        let alone = format!("ALTER TABLE {made} NO INHERIT {parent}");
        sqlx::raw_sql(AssertSqlSafe(alone)).execute(&mut connection).await?;
    }
    load::stream(&mut connection, source, &table.part, &copy, &AtomicU64::new(0)).await?;
    let back = copy.replacen(" FROM stdin", " TO stdout", 1);
    let mut hasher = Hasher::default();
    let mut stream = connection.copy_out_raw(&back).await?;
    while let Some(piece) = stream.try_next().await? {
        hasher.update(&piece);
    }
    drop(stream);
    let found = Evidence::from(hasher.finish());
    if found != table.evidence {
        let (found, expected) = (units::count(found.rows), units::count(table.evidence.rows));
        bail!("`{made}` has {found} rows that are not the {expected} of the backup; it was not kept");
    }
    sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
    connection.close().await?;
    Ok(Restored { schema: table.schema.clone(), table: into, rows: table.evidence.rows })
}

/// A table by its name, with its schema where several have it.
fn find<'a>(source: &'a Source, wanted: &str) -> Result<&'a Table> {
    let tables = &source.database.tables;
    let full = |table: &Table| format!("{}.{}", table.schema, table.name);
    let fitting: Vec<&Table> = tables.iter().filter(|table| table.name == wanted || full(table) == wanted).collect();
    match fitting[..] {
        [one] => Ok(one),
        [] => bail!(unknown(
            "table in the backup",
            wanted,
            tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>()
        )),
        _ => {
            let names: Vec<String> = fitting.iter().map(|table| full(table)).collect();
            bail!(
                Failure::new(Exit::Usage, format!("several tables are called `{wanted}`"))
                    .body(format!("  {}", names.join("\n  ")))
            )
        }
    }
}

/// The statements that make and fill the table, with the new name in the place of the old one.
fn renamed(definition: &Entry, rows: &Entry, made: &str) -> Result<(String, String)> {
    let copy = rows.copy.trim().trim_end_matches(';');
    // pg_dump writes both with the very same name.
    let behind = copy.strip_prefix("COPY ").context("the backup's rows come in an unknown way")?;
    let statements = sql::statements(&definition.definition)
        .map_err(|flaw| anyhow::anyhow!("the backup's table cannot be read: {}", flaw.what))?;
    let first = statements.first().context("the backup's table has no definition")?;
    let create = &definition.definition[first.start..first.end];
    for kind in ["CREATE TABLE ", "CREATE UNLOGGED TABLE "] {
        let Some(rest) = create.strip_prefix(kind) else { continue };
        let same = rest.bytes().zip(behind.bytes()).take_while(|(one, other)| one == other).count();
        let name = rest[..same].trim_end_matches([' ', '(']);
        if name.is_empty() || !behind.starts_with(name) {
            continue;
        }
        return Ok((format!("{kind}{made}{}", &rest[name.len()..]), format!("COPY {made}{}", &behind[name.len()..])));
    }
    bail!("the backup's table is made in an unknown way: `{}`", create.lines().next().unwrap_or_default())
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

    fn entry(kind: &str, definition: &str, copy: &str) -> Entry {
        let mut entry = Entry::default();
        (entry.kind, entry.definition, entry.copy) = (kind.to_owned(), definition.to_owned(), copy.to_owned());
        entry
    }

    #[test]
    fn a_table_gets_another_name_wherever_its_own_stands() {
        let definition = "CREATE TABLE public.\"Sp (x\" (\n    a text DEFAULT 'public.t;'\n);\n\nALTER TABLE ONLY public.t ALTER COLUMN a SET STORAGE EXTERNAL;\n";
        let (create, copy) = renamed(
            &entry("TABLE", definition, ""),
            &entry("TABLE DATA", "", "COPY public.\"Sp (x\" (a) FROM stdin;\n"),
            "public.\"n\"",
        )
        .unwrap();
        assert_eq!(create, "CREATE TABLE public.\"n\" (\n    a text DEFAULT 'public.t;'\n)");
        assert_eq!(copy, "COPY public.\"n\" (a) FROM stdin");
        let made_elsewhere = entry("TABLE", "CREATE FOREIGN TABLE public.t (a int)", "");
        assert!(renamed(&made_elsewhere, &entry("TABLE DATA", "", "COPY public.t (a) FROM stdin;"), "x").is_err());
    }
}
