//! One moment in all databases: a snapshot on each, taken as nearly at once as messages go, and held until its dump is done.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use sql::identifier;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::dump::READS_THE_SAME;
use super::manifest::{Extension, History, Sequence, Standing};
use super::unchanged::{self, Candidate, Span, Unchanged};
use crate::data::target::Target;
use crate::engine::postgres::{CLIENT, Lasting, without_limits_of_waiting};
use crate::ui::{Exit, Failure};

/// Nobody's own functions answer in the place of the server's. A table that somebody holds exclusively is waited for as long
/// as the dump itself would wait.
const BEGIN: &str = "SET statement_timeout = 0; SET lock_timeout = '60s'; SET search_path = pg_catalog; \
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// What a server says to whoever has waited that long.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The first query is what takes the snapshot.
const EXPORT: &str = "SELECT pg_export_snapshot(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text";

const FACTS: &str = "SELECT current_setting('server_version'), \
    (SELECT system_identifier::text FROM pg_control_system()), \
    pg_encoding_to_char(encoding), pg_database_size(oid)::text, \
    (SELECT coalesce(json_agg(json_build_object('name', extname, 'version', extversion) ORDER BY extname), '[]')::text \
       FROM pg_extension WHERE extname <> 'plpgsql'), \
    (SELECT coalesce(json_agg(rolname ORDER BY rolname), '[]')::text FROM pg_roles WHERE pg_roles.oid IN \
       (SELECT refobjid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND (dbid = pg_database.oid OR \
          dbid = 0 AND classid = 'pg_database'::regclass AND objid = pg_database.oid) \
        UNION SELECT setrole FROM pg_db_role_setting WHERE setdatabase = pg_database.oid)), \
    (SELECT coalesce(json_agg(json_build_array(concat(nspname, '.', relname), format('%I.%I', nspname, relname)) \
       ORDER BY relname, nspname), '[]')::text \
       FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid \
       WHERE relkind = 'r' AND relname LIKE '\\_sqlx\\_migrations%' AND attname = 'version' AND atttypid = 'bigint'::regtype) \
    FROM pg_database WHERE datname = current_database()";

/// `NULL` where the role may not see when the checkpointer began.
const STANDING: &str = "SELECT pg_current_snapshot()::text, \
    extract(epoch FROM pg_postmaster_start_time())::text || ' ' || \
      (SELECT extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE backend_type = 'checkpointer') || ' ' || \
      (SELECT oid::text FROM pg_database WHERE datname = current_database())";

/// Tables of extensions are left out: whether pg_dump takes their rows is for the extension to say.
const COUNTERS: &str = "SELECT nspname, relname, concat_ws(' ', pg_class.oid, pg_relation_filenode(pg_class.oid), \
      pg_relation_size(pg_class.oid), pg_stat_get_tuples_inserted(pg_class.oid), \
      pg_stat_get_tuples_updated(pg_class.oid), pg_stat_get_tuples_deleted(pg_class.oid)), \
      pg_relation_size(pg_class.oid)::text \
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
    WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND NOT EXISTS \
      (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')";

/// How many sequences are asked for in one statement.
const SEQUENCES_AT_ONCE: usize = 200;

/// One database at the moment of the cut.
#[derive(Debug)]
pub struct Snapshot {
    pub id: String,
    pub facts: Facts,
    /// Holds the snapshot.
    connection: PgConnection,
}

#[derive(Debug, Clone)]
pub struct Facts {
    pub server_version: String,
    pub system_identifier: String,
    pub encoding: String,
    pub size_bytes: u64,
    pub extensions: Vec<Extension>,
    pub roles: Vec<String>,
    pub migrations: Vec<History>,
    pub standing: Option<Standing>,
    pub counters: Vec<Counters>,
}

/// What the server counts of one table's changes.
#[derive(Debug, Clone)]
pub struct Counters {
    pub schema: String,
    pub table: String,
    pub text: String,
    /// Of its rows on the server's disk.
    pub bytes: u64,
}

impl Facts {
    pub fn counters_of(&self, schema: &str, table: &str) -> Option<&str> {
        let counters = self.counters.iter().find(|one| one.schema == schema && one.table == table);
        counters.map(|counters| counters.text.as_str())
    }
}

/// When a cut was, and how far its members are apart.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub taken: Timestamp,
    pub skew_micros: u64,
}

impl Snapshot {
    /// What these sequences stand at now, each as a dump would set it. They follow no snapshot.
    pub async fn sequences(&mut self, named: &[Sequence]) -> Result<Vec<String>> {
        let mut values = Vec::new();
        for named in named.chunks(SEQUENCES_AT_ONCE) {
            let each = named.iter().enumerate().map(|(index, one)| {
                let sequence = format!("{}.{}", identifier(&one.schema), identifier(&one.name));
                format!("SELECT {index} AS place, last_value::text || ', ' || is_called::text FROM {sequence}")
            });
            let sql = format!("{} ORDER BY place", each.collect::<Vec<_>>().join(" UNION ALL "));
            let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection).await?;
            values.extend(rows.iter().map(|row| text(row, 1)).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(values)
    }

    /// Those of the tables that hold what they held.
    pub async fn unchanged(&mut self, span: Span, candidates: &[Candidate]) -> Result<Vec<Unchanged>> {
        unchanged::prove(&mut self.connection, span, candidates).await
    }

    pub async fn release(self) -> Result<()> {
        Ok(self.connection.close().await?)
    }
}

/// Takes the snapshots. `beside` runs at the same moment: it takes the members that are no database.
pub async fn take<T>(
    mut targets: Vec<Target<'_>>,
    beside: impl Future<Output = Result<T>>,
) -> Result<(Vec<Snapshot>, Moment, T)> {
    try_join_all(targets.iter_mut().map(async |target| {
        // The snapshot must live as long as its dump takes.
        let waits = without_limits_of_waiting(&target.connection, Lasting::Session);
        for sql in [format!("SELECT {waits}"), BEGIN.to_owned()] {
            let begun = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut target.connection).await;
            begun.with_context(|| format!("cannot read `{}`", target.service.short_name))?;
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    let exporting = try_join_all(targets.iter_mut().map(async |target| {
        let row = sqlx::raw_sql(EXPORT).fetch_one(&mut target.connection).await;
        let row = row.with_context(|| format!("cannot take a snapshot of `{}`", target.service.short_name))?;
        Ok::<_, anyhow::Error>((text(&row, 0)?, text(&row, 1)?.parse::<i64>()?))
    }));
    let (exported, beside) = tokio::join!(exporting, beside);
    let (exported, beside) = (exported?, beside?);
    let micros = || exported.iter().map(|(_, micros)| *micros);
    let moment = match (micros().min(), micros().max()) {
        (Some(first), Some(last)) => {
            Moment { taken: Timestamp::from_microsecond(first)?, skew_micros: u64::try_from(last - first).unwrap_or(0) }
        }
        _ => Moment { taken: Timestamp::now(), skew_micros: 0 },
    };
    let snapshots = targets.into_iter().zip(exported).map(async |(target, (id, _))| {
        let name = target.service.short_name.clone();
        let mut connection = target.connection;
        match facts(&mut connection).await {
            Ok(facts) => Ok(Snapshot { id, facts, connection }),
            Err(error) => Err(told(error, &name, &mut connection).await),
        }
    });
    Ok((try_join_all(snapshots).await?, moment, beside))
}

/// Who holds tables so that nobody else can even look at them, a line for each.
fn holders() -> String {
    format!(
        "SELECT string_agg(line, E'\\n  ') FROM \
           (SELECT concat({CLIENT}, ' holds ', string_agg(relname, ', ' ORDER BY relname)) AS line \
            FROM pg_locks JOIN pg_stat_activity USING (pid) JOIN pg_class ON pg_class.oid = relation \
            WHERE locktype = 'relation' AND granted AND mode = 'AccessExclusiveLock' AND relkind IN ('r', 'p', 'm') \
              AND pid <> pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
            GROUP BY pid, application_name, usename, backend_start) AS holders"
    )
}

/// An error of the look at the catalog, with who kept it waiting.
async fn told(error: anyhow::Error, name: &str, connection: &mut PgConnection) -> anyhow::Error {
    let title = format!("cannot read the catalog of `{name}`");
    let said = error.downcast_ref::<sqlx::Error>().and_then(|error| error.as_database_error());
    if said.and_then(|said| said.code()).is_none_or(|code| code != LOCK_NOT_AVAILABLE) {
        return error.context(title);
    }
    let asked = sqlx::raw_sql(AssertSqlSafe(format!("ROLLBACK; {}", holders()))).fetch_one(connection).await;
    let holders = asked.ok().and_then(|row| row.try_get::<Option<String>, _>(0).ok().flatten());
    let failure = Failure::new(Exit::Failed, format!("a table of `{name}` is held by somebody, nothing was backed up"))
        .body(format!("  {}", holders.unwrap_or_else(|| "who held it has let go".into())))
        .hint("end that transaction, and run it again");
    error.context(failure)
}

fn text(row: &PgRow, index: usize) -> Result<String, sqlx::Error> {
    row.try_get::<&str, _>(index).map(str::to_owned)
}

/// What the server sees now; `None` where the role may not ask for all of it.
pub async fn standing(connection: &mut PgConnection) -> Result<Option<Standing>> {
    let row = sqlx::raw_sql(STANDING).fetch_one(connection).await?;
    Ok(match row.try_get::<Option<&str>, _>(1)? {
        Some(since) => {
            let within = format!("{since} {}", READS_THE_SAME.1);
            Some(Standing { within, snapshot: text(&row, 0)? })
        }
        None => None,
    })
}

async fn facts(connection: &mut PgConnection) -> Result<Facts> {
    let row = sqlx::raw_sql(FACTS).fetch_one(&mut *connection).await?;
    let mut migrations = Vec::new();
    let tables: Vec<(String, String)> = serde_json::from_str(&text(&row, 6)?)?;
    for (table, quoted) in tables {
        let sql = format!("SELECT version::text FROM {quoted} ORDER BY version");
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
        let versions: Result<Vec<i64>> = rows.iter().map(|row| Ok(text(row, 0)?.parse()?)).collect();
        migrations.push(History { table, versions: versions? });
    }
    let standing = standing(connection).await?;
    let counters = sqlx::raw_sql(COUNTERS).fetch_all(&mut *connection).await?;
    let counters = counters
        .iter()
        .map(|row| {
            let bytes = text(row, 3)?.parse()?;
            Ok(Counters { schema: text(row, 0)?, table: text(row, 1)?, text: text(row, 2)?, bytes })
        })
        .collect::<Result<_>>()?;
    Ok(Facts {
        server_version: text(&row, 0)?.split_whitespace().next().unwrap_or_default().to_owned(),
        system_identifier: text(&row, 1)?,
        encoding: text(&row, 2)?,
        size_bytes: text(&row, 3)?.parse()?,
        extensions: serde_json::from_str(&text(&row, 4)?)?,
        roles: serde_json::from_str(&text(&row, 5)?)?,
        migrations,
        standing,
        counters,
    })
}
