//! One migrating client for a database at a time, whichever it is: the key is the one that sqlx locks, so a service's own
//! `sqlx::migrate!` and this verb exclude each other, over all history tables of the database.
//!
//! The lock is tried again and again, never waited for inside the server: a client that waits there keeps a snapshot open,
//! and `CREATE INDEX CONCURRENTLY` of the one that holds the lock would wait for that, for ever.

use std::time::Duration;

use anyhow::{Result, bail};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::ui::{self, Exit, Failure};

/// How often a taken lock is tried again.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// How long to wait for whom.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a lock: of a table, or of another migrating client.
    pub lock: Duration,
    pub statement: Duration,
}

/// The key of a database, as sqlx computes it.
pub fn key(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

/// CRC-32 as in zip and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Takes the lock for as long as the connection lasts.
pub async fn take(connection: &mut PgConnection, name: &str, key: i64, timeout: Duration) -> Result<()> {
    let mut patience = Patience::new(name, key, timeout);
    loop {
        let sql = format!("SELECT pg_try_advisory_lock({key})");
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        if row.try_get(0)? {
            return Ok(());
        }
        patience.pause(connection).await?;
    }
}

/// Gives back what [`take`] took.
pub async fn release(connection: &mut PgConnection, key: i64) -> Result<()> {
    let sql = format!("SELECT pg_advisory_unlock({key})");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Waiting for a lock: says once who holds it, and gives up in the end.
#[derive(Debug)]
pub struct Patience {
    name: String,
    key: i64,
    timeout: Duration,
    begun: std::time::Instant,
    told: Option<String>,
}

impl Patience {
    pub fn new(name: &str, key: i64, timeout: Duration) -> Patience {
        Patience { name: name.to_owned(), key, timeout, begun: std::time::Instant::now(), told: None }
    }

    /// Waits a moment. The connection must not be in a transaction.
    pub async fn pause(&mut self, connection: &mut PgConnection) -> Result<()> {
        let holder = holder(connection, self.key).await?;
        if self.begun.elapsed() >= self.timeout {
            let holder = holder.or(self.told.take()).unwrap_or_else(|| "another client".into());
            bail!(
                Failure::new(
                    Exit::Failed,
                    format!("`{}` is being migrated by {holder}, nothing was changed", self.name)
                )
                .hint("wait for it, or wait longer with `--lock-timeout-secs`")
            );
        }
        if holder.is_some() && holder != self.told {
            ui::tell(format!("waiting for {}, which migrates `{}`", holder.clone().unwrap_or_default(), self.name));
            self.told = holder;
        }
        tokio::time::sleep(INTERVAL).await;
        Ok(())
    }
}

/// Who holds the lock: application, pid and since when.
async fn holder(connection: &mut PgConnection, key: i64) -> Result<Option<String>> {
    let sql = format!(
        "SELECT coalesce(nullif(a.application_name, ''), 'a client without a name'), l.pid, \
                to_char(coalesce(a.xact_start, a.backend_start), 'HH24:MI:SS') \
         FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
           AND l.classid::bigint = {} AND l.objid::bigint = {} LIMIT 1",
        key >> 32,
        key & 0xffff_ffff
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let (name, pid, since): (String, i32, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Some(format!("{name} (pid {pid}, since {since})")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_key_is_that_of_sqlx() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(super::key("learning_db"), 0x3d32_ad9e * i64::from(super::crc32(b"learning_db")));
    }
}
