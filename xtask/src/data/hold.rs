//! A database that nobody may write to, for as long as somebody holds it: what its server has told as done until then is all
//! that it ever tells.

use anyhow::{Context, Result, bail};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::backup::cut;
use super::backup::manifest::Standing;
use super::restore::database::Place;
use super::restore::swap::Connected;
use crate::engine::postgres::{self, CLIENT, Lasting};
use crate::ui::{Exit, Failure};

const BEGIN: &str = "SET statement_timeout = 0; SET lock_timeout = '5s'; SET search_path = pg_catalog; BEGIN";

/// Readers, and what the server does for itself, may go on. Whoever changes definitions writes to `pg_class`.
const TABLES: &str = "SELECT concat_ws(', ', 'ONLY pg_class', 'ONLY pg_largeobject', \
      string_agg(format('ONLY %I.%I', nspname, relname), ', ' ORDER BY pg_class.oid)) \
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
    WHERE relkind IN ('r', 'p') AND relpersistence <> 't' \
      AND nspname <> 'information_schema' AND NOT starts_with(nspname, 'pg_')";

const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// `lock_not_available` and `deadlock_detected`.
const IS_HELD: [&str; 2] = ["55P03", "40P01"];

/// Dropping it lets go.
#[derive(Debug)]
pub struct Held {
    connection: PgConnection,
}

impl Held {
    /// Locks all tables against writers. Clients that may be cut are cut before.
    pub async fn take(place: &Place, connected: Connected) -> Result<Held> {
        let name = &place.name;
        let opened = postgres::open(&place.door, &place.login.user, &place.login.database).await;
        let mut connection = opened.with_context(|| format!("cannot connect to `{name}`"))?;
        // The transaction must live until its server is stopped.
        let waits = postgres::without_limits_of_waiting(&connection, Lasting::Session);
        let begin = format!("SELECT {waits}; {BEGIN}");
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await?;
        if connected == Connected::Cut {
            sqlx::raw_sql(CUT).execute(&mut connection).await?;
        }
        let tables: String = sqlx::raw_sql(TABLES).fetch_one(&mut connection).await?.try_get(0)?;
        let lock = format!("LOCK TABLE {tables} IN SHARE MODE");
        match sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await {
            Ok(_) => Ok(Held { connection }),
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                if !code.is_some_and(|code| IS_HELD.contains(&code.as_ref())) {
                    return Err(error).with_context(|| format!("cannot keep writers out of `{name}`"));
                }
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await?;
                let writers = writers(&mut connection).await?;
                bail!(
                    Failure::new(Exit::Refused, format!("`{name}` is being written to, nothing was changed"))
                        .body(format!("  {}", writers.join("\n  ")))
                        .hint("end them, or let them be cut: `--force`")
                )
            }
        }
    }

    /// As a backup would note it now.
    pub async fn standing(&mut self) -> Result<Option<Standing>> {
        cut::standing(&mut self.connection).await
    }

    /// Who is connected to other databases of the same server, a line for each: what they write counts as well.
    pub async fn other_clients(&mut self) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT concat(datname, ': ', {CLIENT}) FROM pg_stat_activity \
             WHERE datname <> current_database() AND backend_type = 'client backend' ORDER BY backend_start"
        );
        lines(&mut self.connection, sql).await
    }
}

/// Who holds a lock that a writer takes, a line for each.
async fn writers(connection: &mut PgConnection) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT DISTINCT {CLIENT} FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE datname = current_database() AND locktype = 'relation' AND granted \
           AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareLock') \
         UNION ALL SELECT format('a prepared transaction, which `ROLLBACK PREPARED %L` ends', gid) \
         FROM pg_prepared_xacts WHERE database = current_database()"
    );
    lines(connection, sql).await
}

async fn lines(connection: &mut PgConnection, sql: String) -> Result<Vec<String>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
