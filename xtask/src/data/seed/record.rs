//! `_xtask_seeds`: which seeds a database was filled with, and what emptying it destroys. It has no index: its rows are few,
//! and written all at once.

use anyhow::Result;
use sql::literal;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use crate::data::target::AtWork;
use crate::engine::postgres::FIRST_OF_USERS;

/// A table that no seed fills and nothing here empties.
const NOT_OURS: &str = r"'\_sqlx\_migrations%', '\_xtask\_%'";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Where unqualified names lead, as SQL writes it.
    pub schema: String,
    /// Whether there is anything that could be filled.
    pub has_tables: bool,
    /// Whether the table of what ran is there.
    pub has_record: bool,
    pub entries: Vec<Entry>,
}

/// One file that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub file: String,
    pub checksum: String,
    pub scale: u32,
    /// How many tables it filled.
    pub filled: usize,
    /// Those of them that are still there, as SQL writes them.
    pub tables: Vec<String>,
}

impl Recorded {
    /// The tables that seeds filled and that are still there.
    pub fn tables(&self) -> impl Iterator<Item = &String> {
        self.entries.iter().flat_map(|entry| &entry.tables)
    }
}

/// What a database is asked first, as expressions of one row.
pub fn question() -> String {
    "coalesce(quote_ident(current_schema()), 'public'), to_regclass('_xtask_seeds') IS NOT NULL".to_owned()
}

/// What ran.
pub async fn read(connection: &mut PgConnection) -> Result<Recorded> {
    let answer = sqlx::raw_sql(AssertSqlSafe(format!("SELECT {}", question()))).fetch_one(&mut *connection).await?;
    read_on(&answer, connection, None).await
}

/// Asks the rest, once the [question] is answered. Simple questions, since a second run does nothing else and is to be quick:
/// a prepared one asks twice. What was known `before` of a database that has no record is not asked again.
pub async fn read_on(answer: &PgRow, connection: &mut PgConnection, before: Option<&Recorded>) -> Result<Recorded> {
    let (schema, has_record) = (answer.try_get(0)?, answer.try_get(1)?);
    let mut recorded = Recorded { schema, has_tables: true, has_record, entries: Vec::new() };
    if !has_record {
        if let Some(before) = before {
            recorded.has_tables = before.has_tables;
            return Ok(recorded);
        }
        let look = format!("SELECT EXISTS (SELECT FROM pg_class WHERE {})", user_table());
        recorded.has_tables = sqlx::raw_sql(AssertSqlSafe(look)).fetch_one(connection).await?.try_get(0)?;
        return Ok(recorded);
    }
    let entries =
        "SELECT file, checksum, scale, cardinality(tables), array_to_string(tables, E'\\n') FROM _xtask_seeds";
    for row in sqlx::raw_sql(entries).fetch_all(connection).await? {
        let tables: &str = row.try_get(4)?;
        // A table that is gone has no name any more, only its number; a name like a number is in quotes.
        let is_there = |name: &&str| !name.bytes().all(|byte| byte.is_ascii_digit());
        recorded.entries.push(Entry {
            file: row.try_get(0)?,
            checksum: row.try_get(1)?,
            scale: u32::try_from(row.try_get::<i32, _>(2)?)?,
            filled: usize::try_from(row.try_get::<i32, _>(3)?)?,
            tables: tables.lines().filter(is_there).map(str::to_owned).collect(),
        });
    }
    recorded.entries.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(recorded)
}

/// What one file did.
#[derive(Debug, Clone)]
pub struct Filled {
    pub file: String,
    pub checksum: String,
    pub rows: u64,
    /// The numbers that PostgreSQL knows the tables by: a table that is dropped and made again is another one.
    pub tables: Vec<u32>,
}

/// Puts these in place of all that is recorded, as the last that is done before COMMIT.
pub async fn write(
    connection: &mut PgConnection,
    recorded: &Recorded,
    scale: u32,
    filled: &[Filled],
    at_work: &AtWork,
) -> Result<(), sqlx::Error> {
    let table = format!("{}._xtask_seeds", recorded.schema);
    // NOT NULL would be a constraint to make for each column. Where somebody publishes all tables, nothing can be deleted from
    // one without a key unless it says by what its rows are known. Whoever reads it would have to be waited for, so it is said
    // once.
    let ready = match recorded.has_record {
        true => format!("DELETE FROM {table}"),
        false => format!("ALTER TABLE {table} REPLICA IDENTITY FULL"),
    };
    let make = format!(
        "CREATE TABLE IF NOT EXISTS {table} (file text, checksum text, scale integer, rows bigint, tables regclass[], \
         applied_at timestamptz DEFAULT now()); {ready}; "
    );
    let rows = filled.iter().map(|one| {
        let tables = one.tables.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let (file, checksum) = (literal(&one.file), literal(&one.checksum));
        format!("({file}, {checksum}, {scale}, {}, '{{{tables}}}')", one.rows)
    });
    let rows = rows.collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO {table} (file, checksum, scale, rows, tables) VALUES {rows}; ");
    let insert = if filled.is_empty() { String::new() } else { insert };
    let flush = at_work.flush_log(connection);
    sqlx::raw_sql(AssertSqlSafe(format!("{make}{insert}{flush}"))).execute(connection).await?;
    Ok(())
}

/// One table that is about to be emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dying {
    /// As SQL writes it.
    pub table: String,
    pub rows: u64,
}

/// What emptying destroys: the tables that seeds filled and those of the CSV files at hand, or all where nothing is
/// recorded; and every table that refers to one of them.
pub async fn dying(connection: &mut PgConnection, recorded: &Recorded, csv_tables: &[String]) -> Result<Vec<Dying>> {
    let first = match recorded.tables().next() {
        Some(_) => "SELECT to_regclass(name)::oid FROM unnest($1::text[]) AS name".to_owned(),
        None => format!("SELECT oid FROM pg_class WHERE {} AND cardinality($1::text[]) = 0", user_table()),
    };
    let named: Vec<String> = match recorded.tables().next() {
        Some(_) => recorded.tables().chain(csv_tables).cloned().collect(),
        None => Vec::new(),
    };
    let sql = format!(
        "WITH RECURSIVE dying (oid) AS ({first} UNION SELECT conrelid FROM pg_constraint JOIN dying ON confrelid = dying.oid \
         WHERE contype = 'f') SELECT oid::regclass::text FROM dying WHERE oid IS NOT NULL ORDER BY 1"
    );
    let tables: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).bind(named).fetch_all(&mut *connection).await?;
    let mut dying = Vec::new();
    for table in tables {
        let count = format!("SELECT count(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *connection).await?;
        dying.push(Dying { table, rows: u64::try_from(rows)? });
    }
    Ok(dying)
}

/// Holds for tables of people: partitions go with their parents.
fn user_table() -> String {
    format!(
        "oid >= '{FIRST_OF_USERS}' AND relkind IN ('r', 'p') AND NOT relispartition AND relpersistence <> 't' \
         AND relname NOT LIKE ALL (ARRAY[{NOT_OURS}])"
    )
}
