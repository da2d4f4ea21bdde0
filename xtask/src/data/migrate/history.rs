//! What was applied: sqlx's table, read as it is, and tables of our own beside it that keep the text that was applied and
//! the catalog that it made. Whoever else writes sqlx's table (a service's own `sqlx::migrate!`) is believed.

use anyhow::Result;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::source::{Migration, Source};
use crate::engine::postgres::{identifier, literal};

/// The text that was applied, by history table and version.
pub const TEXTS: &str = "_xtask_migrations";
/// The catalog as the last run left it: an object a row; the row of the empty name holds the history it belongs to.
pub const CATALOG: &str = "_xtask_catalog";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub version: i64,
    pub description: String,
    pub installed_on: String,
    pub success: bool,
    pub checksum: Vec<u8>,
    pub nanoseconds: i64,
}

/// What one database says of itself.
#[derive(Debug, Clone)]
pub struct History {
    pub database: String,
    pub schema: String,
    pub search_path: String,
    /// By source, by version.
    pub applied: Vec<Vec<Applied>>,
    /// Which sources have their table.
    pub has_table: Vec<bool>,
    /// Whether our own tables are there.
    pub has_ours: bool,
    /// The state of the histories when the catalog was recorded.
    pub recorded: Option<String>,
}

impl History {
    /// What a database is asked first, as expressions of one row.
    pub fn question(tables: &[String]) -> String {
        let is_there = |table: &str| {
            format!("to_regclass(quote_ident(current_schema()) || {}) IS NOT NULL", literal(&format!(".{table}")))
        };
        let asked: Vec<String> = tables.iter().map(String::as_str).chain([CATALOG]).map(is_there).collect();
        format!(
            "current_database()::text, coalesce(current_schema()::text, ''), current_setting('search_path'), {}",
            asked.join(", ")
        )
    }

    /// Asks a database, in two messages.
    pub async fn read(connection: &mut PgConnection, sources: &[Source]) -> Result<History> {
        let tables: Vec<String> = sources.iter().map(|source| source.table.clone()).collect();
        let sql = format!("SELECT {}", History::question(&tables));
        let answer = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        History::read_on(&answer, connection, sources).await
    }

    /// Asks the rest, once the [question](Self::question) is answered.
    pub async fn read_on(answer: &PgRow, connection: &mut PgConnection, sources: &[Source]) -> Result<History> {
        let is_there = |index: usize| answer.try_get(3 + index);
        let mut history = History {
            database: answer.try_get(0)?,
            schema: answer.try_get(1)?,
            search_path: answer.try_get(2)?,
            applied: vec![Vec::new(); sources.len()],
            has_table: (0..sources.len()).map(is_there).collect::<Result<_, _>>()?,
            has_ours: is_there(sources.len())?,
            recorded: None,
        };
        history.read_rows(connection, sources).await?;
        Ok(history)
    }

    async fn read_rows(&mut self, connection: &mut PgConnection, sources: &[Source]) -> Result<()> {
        let mut parts: Vec<String> = Vec::new();
        for (index, source) in sources.iter().enumerate().filter(|(index, _)| self.has_table[*index]) {
            parts.push(format!(
                "SELECT {index}::bigint AS source, version, description, installed_on::timestamptz(0)::text, success, \
                 encode(checksum, 'hex'), execution_time FROM {}",
                self.table(&source.table)
            ));
        }
        if self.has_ours {
            let nothing = "'', false, '', 0::bigint";
            let catalog = self.table(CATALOG);
            parts.push(format!("SELECT -1::bigint, 0::bigint, definition, {nothing} FROM {catalog} WHERE object = ''"));
        }
        if parts.is_empty() {
            return Ok(());
        }
        let sql = format!("{} ORDER BY 1, 2", parts.join(" UNION ALL "));
        for row in sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await? {
            let source: i64 = row.try_get(0)?;
            let Ok(source) = usize::try_from(source) else {
                self.recorded = Some(row.try_get(2)?);
                continue;
            };
            self.applied[source].push(Applied {
                version: row.try_get(1)?,
                description: row.try_get(2)?,
                installed_on: row.try_get(3)?,
                success: row.try_get(4)?,
                checksum: from_hex(row.try_get(5)?),
                nanoseconds: row.try_get(6)?,
            });
        }
        Ok(())
    }

    /// A table of the schema that unqualified names are made in, named so that no search path misleads.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(name))
    }

    /// What the histories hold, in one line that [`state_query`](Self::state_query) also gives.
    pub fn state(&self, source: usize) -> String {
        let rows = self.applied[source].iter();
        rows.map(|one| format!("{}:{}:{}", one.version, hex(&one.checksum), one.success)).collect::<Vec<_>>().join(",")
    }

    pub fn state_query(&self, table: &str) -> String {
        format!(
            "SELECT coalesce(string_agg(version || ':' || encode(checksum, 'hex') || ':' || success, ',' \
             ORDER BY version), '') FROM {}",
            self.table(table)
        )
    }

    /// The versions that are applied, in a line: which history a recorded catalog belongs to.
    pub fn versions(&self) -> String {
        let of =
            |applied: &Vec<Applied>| applied.iter().map(|one| one.version.to_string()).collect::<Vec<_>>().join(",");
        self.applied.iter().map(of).collect::<Vec<_>>().join(";")
    }

    pub fn count(&self) -> usize {
        self.applied.iter().map(Vec::len).sum()
    }
}

/// The text that was applied, where it was kept.
pub async fn kept_text(
    connection: &mut PgConnection,
    history: &History,
    table: &str,
    version: i64,
) -> Result<Option<String>> {
    if !history.has_ours {
        return Ok(None);
    }
    let sql =
        format!("SELECT text FROM {} WHERE history = {} AND version = {version}", history.table(TEXTS), literal(table));
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Makes sqlx's table as sqlx makes it.
pub fn create_history(history: &History, table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, \
         execution_time BIGINT NOT NULL);\n",
        history.table(table)
    )
}

/// Makes our own tables.
pub fn create_ours(history: &History) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {texts} (history text NOT NULL, version bigint NOT NULL, text text NOT NULL, \
         PRIMARY KEY (history, version));\n\
         CREATE TABLE IF NOT EXISTS {catalog} (object text PRIMARY KEY, definition text NOT NULL);\n\
         COMMENT ON TABLE {texts} IS 'cargo xtask: the text of each migration as it was applied';\n\
         COMMENT ON TABLE {catalog} IS 'cargo xtask: the catalog as the last migration left it';\n",
        texts = history.table(TEXTS),
        catalog = history.table(CATALOG),
    )
}

/// The rows that say migrations of one table were applied, each with the nanoseconds that it took.
pub fn record(history: &History, table: &str, applied: &[(&Migration, i64)]) -> String {
    let rows = applied.iter().map(|(migration, took)| {
        let (description, checksum) = (literal(&migration.description), hex(&migration.up.checksum));
        format!("({}, {description}, true, '\\x{checksum}', {took})", migration.version)
    });
    let rows: Vec<String> = rows.collect();
    let migrations: Vec<&Migration> = applied.iter().map(|(migration, _)| *migration).collect();
    format!(
        "INSERT INTO {} (version, description, success, checksum, execution_time) VALUES {};\n{}",
        history.table(table),
        rows.join(", "),
        keep_texts(history, table, &migrations),
    )
}

/// Keeps the texts of migrations, in place of what was kept before.
pub fn keep_texts(history: &History, table: &str, migrations: &[&Migration]) -> String {
    let rows = migrations
        .iter()
        .map(|migration| format!("({}, {}, {})", literal(table), migration.version, literal(&migration.up.text)));
    let rows: Vec<String> = rows.collect();
    format!(
        "INSERT INTO {} (history, version, text) VALUES {} \
         ON CONFLICT (history, version) DO UPDATE SET text = excluded.text;\n",
        history.table(TEXTS),
        rows.join(", "),
    )
}

/// Takes the rows of versions away again.
pub fn forget(history: &History, table: &str, versions: &[i64]) -> String {
    let versions = versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "DELETE FROM {} WHERE version IN ({versions});\nDELETE FROM {} WHERE history = {} AND version IN ({versions});\n",
        history.table(table),
        history.table(TEXTS),
        literal(table)
    )
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
