//! The one step of a restore that the live database feels: two renames in one transaction. The database that was there is
//! kept under a name that says when it was replaced, and the same two renames bring it back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use sql::{identifier, literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::data::side;
use crate::engine::postgres::{self, CLIENT, Door, MAINTENANCE_DATABASE};
use crate::ui::{Exit, Failure};

/// Between a database's name and the time it was replaced.
const BEFORE: &str = "_before_";
/// How long cut connections may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long clients of the helper itself may take: verbs that only look are gone at once, and so is what a killed one has left.
const OUR_PATIENCE: Duration = Duration::from_secs(3);
/// How long one is still listed that has just left.
const LEAVING: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(2);
/// The limit of connections by which a server marks a database that it is dropping (`DATCONNLIMIT_INVALID_DB`).
const INVALID: i32 = -2;
/// Of a name, in bytes (`NAMEDATALEN` - 1).
const NAME_LIMIT: usize = 63;

/// A database that a restore has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    pub database: String,
    pub replaced: Timestamp,
    pub bytes: u64,
    /// Somebody was killed who was dropping it: all that can be done with it is to drop it.
    pub is_half_dropped: bool,
}

/// A server on which databases are swapped.
#[derive(Debug, Clone)]
pub struct Server<'a> {
    pub door: &'a Door,
    pub user: &'a str,
    /// As a person says it.
    pub name: &'a str,
}

/// What to do about clients that are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connected {
    Refuse,
    Cut,
}

impl Server<'_> {
    async fn admin(&self) -> Result<PgConnection> {
        let mut admin = postgres::open(self.door, self.user, MAINTENANCE_DATABASE)
            .await
            .with_context(|| format!("cannot connect to the server of `{}`", self.name))?;
        sqlx::raw_sql("SET synchronous_commit = on").execute(&mut admin).await?;
        Ok(admin)
    }

    /// Who is connected to a database, a line for each.
    pub async fn clients(&self, database: &str) -> Result<Vec<String>> {
        let mut admin = self.admin().await?;
        let sql = format!(
            "SELECT {CLIENT} FROM pg_stat_activity \
             WHERE datname = {} AND backend_type = 'client backend' ORDER BY backend_start",
            literal(database)
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut admin).await?;
        let clients = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        admin.close().await?;
        Ok(clients)
    }

    /// An error that names who is connected, unless they may be cut.
    pub async fn check_clients(&self, database: &str, connected: Connected) -> Result<()> {
        if connected == Connected::Cut {
            return Ok(());
        }
        let begun = Instant::now();
        let clients = loop {
            let clients = self.clients(database).await?;
            let is_ours = |client: &String| client.starts_with(postgres::NAME);
            if clients.is_empty() {
                return Ok(());
            }
            let patience = if clients.iter().all(is_ours) { OUR_PATIENCE } else { LEAVING };
            if begun.elapsed() > patience {
                break clients;
            }
            tokio::time::sleep(INTERVAL * 10).await;
        };
        let count = crate::ui::units::plural(clients.len(), "client");
        bail!(
            Failure::new(Exit::Refused, format!("`{}` is in use by {count}, nothing was changed", self.name))
                .body(format!("  {}", clients.join("\n  ")))
                .hint("end them, or let them be cut: `--force`")
        )
    }

    /// Puts `new` in the place of `live`; what was there is kept, as replaced at that time. `beside` is run in the same
    /// transaction. Gives the kept one's name, if there was one.
    pub async fn swap(&self, new: &str, live: &str, replaced: Timestamp, beside: &str) -> Result<Option<String>> {
        let mut admin = self.admin().await?;
        let exists = format!("SELECT count(*)::text FROM pg_database WHERE datname = {}", literal(live));
        let row = sqlx::raw_sql(AssertSqlSafe(exists)).fetch_one(&mut admin).await?;
        let old = (row.try_get::<&str, _>(0)? == "1").then(|| old_name(live, replaced));
        let mut renames = String::from("BEGIN;");
        if let Some(old) = &old {
            renames.push_str(&format!("ALTER DATABASE {} RENAME TO {};", identifier(live), identifier(old)));
        }
        renames.push_str(&format!("ALTER DATABASE {} RENAME TO {};", identifier(new), identifier(live)));
        self.rename(&mut admin, &[live, new], &format!("{renames}{beside};COMMIT")).await?;
        admin.close().await?;
        Ok(old)
    }

    pub async fn exists(&self, database: &str) -> Result<bool> {
        let mut admin = self.admin().await?;
        let sql = format!("SELECT count(*)::text FROM pg_database WHERE datname = {}", literal(database));
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut admin).await?;
        let exists = row.try_get::<&str, _>(0)? == "1";
        admin.close().await?;
        Ok(exists)
    }

    /// Gives the databases of a [`swap`](Self::swap) the names that they had before it.
    pub async fn rename_back(&self, new: &str, live: &str, old: Option<&str>) -> Result<()> {
        let mut admin = self.admin().await?;
        let mut renames = format!("BEGIN; ALTER DATABASE {} RENAME TO {};", identifier(live), identifier(new));
        if let Some(old) = old {
            renames.push_str(&format!("ALTER DATABASE {} RENAME TO {};", identifier(old), identifier(live)));
        }
        let databases: Vec<&str> = [live].into_iter().chain(old).collect();
        self.rename(&mut admin, &databases, &format!("{renames}COMMIT")).await?;
        Ok(admin.close().await?)
    }

    /// Runs the renames while nobody is connected. The first of them keeps new clients waiting until all are done; those who
    /// came before it are cut.
    async fn rename(&self, admin: &mut PgConnection, databases: &[&str], renames: &str) -> Result<()> {
        let mut cutter = self.admin().await?;
        let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
        let cut = format!(
            "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
             WHERE datname IN ({}) AND backend_type <> 'walsender'",
            names.join(", ")
        );
        let begun = Instant::now();
        loop {
            // Most of the time nobody is there, and the first look says so.
            while {
                let row = sqlx::raw_sql(AssertSqlSafe(cut.clone())).fetch_one(&mut cutter).await?;
                row.try_get::<&str, _>(0)? != "0" && begun.elapsed() < PATIENCE
            } {
                tokio::time::sleep(INTERVAL).await;
            }
            let renaming = sqlx::raw_sql(AssertSqlSafe(renames.to_owned())).execute(&mut *admin);
            let cutting = async {
                loop {
                    tokio::time::sleep(INTERVAL * 10).await;
                    sqlx::raw_sql(AssertSqlSafe(cut.clone())).execute(&mut cutter).await?;
                }
            };
            let renamed: Result<_, sqlx::Error> = tokio::select! {
                renamed = renaming => renamed.map(drop),
                cut = cutting => cut,
            };
            match renamed {
                Ok(()) => break,
                Err(error) if is_in_use(&error) && begun.elapsed() < PATIENCE => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *admin).await?;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot swap the databases of `{}`", self.name));
                }
            }
        }
        Ok(cutter.close().await?)
    }

    /// What restores have replaced, the latest first.
    pub async fn old(&self, live: &str) -> Result<Vec<Old>> {
        let mut admin = self.admin().await?;
        let sql = format!(
            "SELECT datname::text, pg_database_size(oid)::text, datconnlimit = {INVALID} FROM pg_database \
             WHERE starts_with(datname, {})",
            literal(&stem(live))
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut admin).await?;
        admin.close().await?;
        let mut old = Vec::new();
        for row in &rows {
            let (database, bytes): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(replaced) = replaced_at(live, database) {
                let is_half_dropped = row.try_get(2)?;
                old.push(Old { database: database.to_owned(), replaced, bytes: bytes.parse()?, is_half_dropped });
            }
        }
        old.sort_by_key(|old| std::cmp::Reverse(old.replaced));
        Ok(old)
    }

    /// The latest of them that can be gone back to.
    pub async fn latest(&self, live: &str) -> Result<Option<Old>> {
        Ok(self.old(live).await?.into_iter().find(|old| !old.is_half_dropped))
    }

    pub async fn drop_old(&self, old: &[Old]) -> Result<()> {
        for old in old {
            side::drop_database(self.door, self.user, &old.database).await?;
        }
        Ok(())
    }
}

/// 55006 is `object_in_use`.
fn is_in_use(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55006")
}

/// `learning_db_before_`, cut where the whole would be too long.
fn stem(live: &str) -> String {
    const TIME: usize = "20261122t095343123".len();
    let mut end = live.len().min(NAME_LIMIT - BEFORE.len() - TIME);
    while !live.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{BEFORE}", &live[..end])
}

fn old_name(live: &str, replaced: Timestamp) -> String {
    format!("{}{}", stem(live), replaced.strftime("%Y%m%dt%H%M%S%3f"))
}

fn replaced_at(live: &str, database: &str) -> Option<Timestamp> {
    let time = database.strip_prefix(&stem(live))?;
    let (date, clock) = time.split_once('t')?;
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(date, 8) || !digits(clock, 9) {
        return None;
    }
    let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
    let (hour, minute, second, milli) = (&clock[..2], &clock[2..4], &clock[4..6], &clock[6..]);
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}.{milli}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_database_says_when_it_was_replaced() {
        let time: Timestamp = "2026-11-22T09:53:43.123Z".parse().unwrap();
        for live in ["learning_db", "学習", &"x".repeat(63), &"学".repeat(21)] {
            let old = old_name(live, time);
            assert!(old.len() <= NAME_LIMIT, "{old}");
            assert_eq!(replaced_at(live, &old), Some(time));
        }
        assert_eq!(old_name("learning_db", time), "learning_db_before_20261122t095343123");
        for other in
            ["learning_db", "learning_db_before_", "learning_db_before_yesterday", "learning_db_before_20261122t0953"]
        {
            assert_eq!(replaced_at("learning_db", other), None, "{other}");
        }
    }
}
