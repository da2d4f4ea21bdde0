//! What was applied: sqlx's table, read as it is, and a table of our own beside it that keeps the text that was applied and
//! the catalog that it made. It has no index: making one costs a new database more than a few hundred rows ever do. Whoever
//! else writes sqlx's table (a service's own `sqlx::migrate!`) is believed.

use anyhow::{Result, anyhow};
use sql::{identifier, literal};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::source::{Migration, Source};

/// The text that was applied, by history table and version. Of no table are the catalog as the last run left it
/// ([`catalog::kept`](super::catalog::kept)), and the line of versions that it belongs to.
pub const KEPT: &str = "_xtask_migrations";
const IS_VERSIONS: &str = "history = '' AND version = 0";
pub const IS_CATALOG: &str = "history = '' AND version = 1";

/// CREATE TABLE says how a column is stored since this version.
const STORAGE_SINCE: u32 = 160_000;

/// The columns of sqlx's table that say what was applied.
const COMPARED: [&str; 3] = ["version", "checksum", "success"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub version: i64,
    pub description: String,
    pub installed_on: String,
    pub success: bool,
    /// In hexadecimal.
    pub checksum: String,
    pub nanoseconds: i64,
}

/// What one database says of itself.
#[derive(Debug, Clone)]
pub struct History {
    /// Its server's `server_version_num`.
    pub server_version: u32,
    pub database: String,
    pub schema: String,
    pub search_path: String,
    /// By source, by version.
    pub applied: Vec<Vec<Applied>>,
    /// Which sources have their table.
    pub has_table: Vec<bool>,
    /// Whether our own table is there.
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
        let asked: Vec<String> = tables.iter().map(String::as_str).chain([KEPT]).map(is_there).collect();
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
        History::read_on(&answer, connection, &tables).await
    }

    /// Asks the rest, once the [question](Self::question) is answered.
    pub async fn read_on(answer: &PgRow, connection: &mut PgConnection, tables: &[String]) -> Result<History> {
        let is_there = |index: usize| answer.try_get(3 + index);
        let mut history = History {
            server_version: connection.server_version_num().unwrap_or_default(),
            database: answer.try_get(0)?,
            schema: answer.try_get(1)?,
            search_path: answer.try_get(2)?,
            applied: vec![Vec::new(); tables.len()],
            has_table: (0..tables.len()).map(is_there).collect::<Result<_, _>>()?,
            has_ours: is_there(tables.len())?,
            recorded: None,
        };
        history.read_rows(connection, tables).await?;
        Ok(history)
    }

    async fn read_rows(&mut self, connection: &mut PgConnection, tables: &[String]) -> Result<()> {
        let mut parts: Vec<String> = Vec::new();
        for (index, table) in tables.iter().enumerate().filter(|(index, _)| self.has_table[*index]) {
            parts.push(format!(
                "SELECT {index}::bigint AS source, version, description, installed_on::timestamptz(0)::text, success, \
                 encode(checksum, 'hex'), execution_time FROM {}",
                self.table(table)
            ));
        }
        if self.has_ours {
            let nothing = "'', false, '', 0::bigint";
            let kept = self.table(KEPT);
            parts.push(format!("SELECT -1::bigint, 0::bigint, text, {nothing} FROM {kept} WHERE {IS_VERSIONS}"));
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
                checksum: row.try_get(5)?,
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
        rows.map(|one| format!("{}:{}:{}", one.version, one.checksum, one.success)).collect::<Vec<_>>().join(",")
    }

    pub fn state_query(&self, table: &str) -> String {
        state_query(&self.table(table))
    }

    /// Expressions for which tables hold the histories, and what they hold, in whatever order. They need the tables to be
    /// there. A server that has just begun a session has no function or type at hand yet, and looks up as few as can be: each
    /// takes it a while.
    pub fn fingerprint(tables: &[String]) -> String {
        let each = tables.iter().map(|table| {
            let table = identifier(table);
            let columns = COMPARED.map(|column| format!("ARRAY(SELECT {column} FROM {table})"));
            format!("{}::regclass::oid, {}", literal(&table), columns.join(", "))
        });
        ["current_schema()".to_owned()].into_iter().chain(each).collect::<Vec<_>>().join(", ")
    }

    /// What a row that begins with the expressions of a [fingerprint](Self::fingerprint) says.
    pub fn read_fingerprint(row: &PgRow, tables: &[String]) -> Result<String> {
        let mut hash = blake3::Hasher::new();
        for index in 0..=(1 + COMPARED.len()) * tables.len() {
            hash.update(row.try_get_raw(index)?.as_bytes().map_err(|error| anyhow!(error))?).update(&[0]);
        }
        Ok(hash.finalize().to_hex().to_string())
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

fn state_query(table: &str) -> String {
    format!(
        "SELECT coalesce(string_agg(version || ':' || encode(checksum, 'hex') || ':' || success, ',' \
         ORDER BY version), '') FROM {table}"
    )
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
        format!("SELECT text FROM {} WHERE history = {} AND version = {version}", history.table(KEPT), literal(table));
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Makes sqlx's table as sqlx makes it. Where somebody has made it meanwhile, that is an error. A description is a file's name
/// and no row is long: a server that takes the word for it makes no table and no index beside it for values that are.
pub fn create_history(history: &History, table: &str) -> String {
    let short = if history.server_version >= STORAGE_SINCE { " STORAGE PLAIN" } else { "" };
    format!(
        "CREATE TABLE {} (version BIGINT PRIMARY KEY, description TEXT{short} NOT NULL, \
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA{short} NOT NULL, \
         execution_time BIGINT NOT NULL);\n",
        history.table(table)
    )
}

/// Makes our own table, unless it is there. Where somebody has made it meanwhile, that is an error. It has no key, and from
/// a table without one nothing could be deleted as soon as somebody publishes all tables, unless it says by what its rows are
/// known.
pub fn create_ours(history: &History) -> String {
    if history.has_ours {
        return String::new();
    }
    let kept = history.table(KEPT);
    format!(
        "CREATE TABLE {kept} (history text NOT NULL, version bigint NOT NULL, text text NOT NULL);\n\
         ALTER TABLE {kept} REPLICA IDENTITY FULL;\n\
         COMMENT ON TABLE {kept} IS 'cargo xtask: the text of each migration as it was applied, and the catalog that they left';\n",
    )
}

/// As [`create_ours`], also where somebody makes it at the same time; and the history that has it.
pub fn provide_ours(history: &History) -> (String, History) {
    let make = create_ours(history).replacen("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1);
    (make, History { has_ours: true, ..history.clone() })
}

/// The rows by which sqlx knows that migrations of one table were applied, each with the nanoseconds that it took.
pub fn record(history: &History, table: &str, applied: &[(&Migration, i64)]) -> String {
    let rows = applied.iter().map(|(migration, took)| {
        let (description, checksum) = (literal(&migration.description), &migration.up.checksum);
        format!("({}, {description}, true, '\\x{checksum}', {took})", migration.version)
    });
    format!(
        "INSERT INTO {} (version, description, success, checksum, execution_time) VALUES {};\n",
        history.table(table),
        rows.collect::<Vec<_>>().join(", "),
    )
}

/// What our own table is to hold from now on, and what no longer. All of it is said at once: each statement is planned anew.
#[derive(Debug, Default)]
pub struct Keep {
    rows: Vec<String>,
    /// Conditions for what is there and goes.
    gone: Vec<String>,
}

impl Keep {
    /// The texts of migrations of one history table, in place of what was kept before.
    pub fn texts(&mut self, table: &str, migrations: &[&Migration]) {
        self.no_texts(table, migrations.iter().map(|one| one.version));
        let table = literal(table);
        for migration in migrations {
            self.row(&table, migration.version, &literal(&migration.up.text));
        }
    }

    pub fn no_texts(&mut self, table: &str, versions: impl Iterator<Item = i64>) {
        self.gone.push(format!("history = {} AND version IN ({})", literal(table), list(versions)));
    }

    /// A catalog, which is an expression of SQL, and the versions that it belongs to.
    pub fn catalog(&mut self, versions: &str, catalog: &str) {
        self.gone.push("history = ''".to_owned());
        self.row("''", 0, &literal(versions));
        self.row("''", 1, catalog);
    }

    fn row(&mut self, of: &str, version: i64, text: &str) {
        self.rows.push(format!("({of}, {version}, {text})"));
    }

    /// The lock, which hinders no reader, keeps others from doing the same at the same time. In a table that is made by the
    /// same transaction there is nothing, and nobody else.
    pub fn sql(&self, history: &History) -> String {
        let kept = history.table(KEPT);
        let mut sql = String::new();
        if history.has_ours && !self.gone.is_empty() {
            let gone = self.gone.join(" OR ");
            sql.push_str(&format!(
                "LOCK TABLE {kept} IN SHARE ROW EXCLUSIVE MODE;\nDELETE FROM {kept} WHERE {gone};\n"
            ));
        }
        if !self.rows.is_empty() {
            let rows = self.rows.join(", ");
            sql.push_str(&format!("INSERT INTO {kept} (history, version, text) VALUES {rows};\n"));
        }
        sql
    }
}

/// Takes the rows of versions away again, which [`record`] wrote.
pub fn forget(history: &History, table: &str, versions: &[i64]) -> String {
    format!("DELETE FROM {} WHERE version IN ({});\n", history.table(table), list(versions.iter().copied()))
}

fn list(versions: impl Iterator<Item = i64>) -> String {
    versions.map(|version| version.to_string()).collect::<Vec<_>>().join(", ")
}
