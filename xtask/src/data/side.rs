//! A database beside the live ones, which goes away with its owner unless it is kept.

use anyhow::{Context, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::engine::postgres::{self, Door, MAINTENANCE_DATABASE, identifier, literal};

/// What it is made for. Each has names of its own, for whoever makes one removes what others of its kind have left.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To be filled by a restore: empty, in this encoding.
    Restore { encoding: &'a str },
    /// To try migrations on: a copy of a database that nobody is connected to.
    Rehearsal { of: &'a str },
}

impl Purpose<'_> {
    fn prefix(self) -> &'static str {
        match self {
            Purpose::Restore { .. } => "xtask_side_",
            Purpose::Rehearsal { .. } => "xtask_rehearsal_",
        }
    }

    fn options(self) -> String {
        match self {
            Purpose::Restore { encoding } => format!("TEMPLATE template0 ENCODING {}", literal(encoding)),
            Purpose::Rehearsal { of } => format!("TEMPLATE {}", identifier(of)),
        }
    }
}

/// Dropping it drops the database, also when the helper is interrupted.
#[derive(Debug)]
pub struct Side {
    pub name: String,
    pub door: Door,
    pub user: String,
    is_gone: bool,
}

impl Side {
    /// Makes it, and removes what killed runs have left: only once at a time on one server.
    pub async fn make(door: &Door, user: &str, purpose: Purpose<'_>) -> Result<Side> {
        let mut admin = postgres::open(door, user, MAINTENANCE_DATABASE).await?;
        let leftovers =
            format!("SELECT datname::text FROM pg_database WHERE starts_with(datname, {})", literal(purpose.prefix()));
        for row in sqlx::raw_sql(AssertSqlSafe(leftovers)).fetch_all(&mut admin).await? {
            drop_database(&mut admin, row.try_get(0)?).await?;
        }
        let name = format!("{}{}", purpose.prefix(), std::process::id());
        let (made, owner, options) = (identifier(&name), identifier(user), purpose.options());
        let make = format!("CREATE DATABASE {made} OWNER {owner} {options}");
        sqlx::raw_sql(AssertSqlSafe(make))
            .execute(&mut admin)
            .await
            .context("cannot make a database beside the live one")?;
        admin.close().await?;
        Ok(Side { name, door: door.clone(), user: user.to_owned(), is_gone: false })
    }

    pub async fn connect(&self) -> Result<PgConnection> {
        postgres::open(&self.door, &self.user, &self.name).await
    }

    /// Drops it, and says whether that worked.
    pub async fn remove(mut self) -> Result<()> {
        self.is_gone = true;
        drop_by_name(&self.door, &self.user, &self.name).await
    }

    /// It has become somebody's: another name, and no longer this one's to drop.
    pub fn keep(mut self) {
        self.is_gone = true;
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        // The runtime that made it is about to end, so another one does it.
        let (door, user, name) = (self.door.clone(), self.user.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drop_by_name(&door, &user, &name))
        });
        // What stays behind, the next of its kind removes.
        drop(dropping.join());
    }
}

async fn drop_by_name(door: &Door, user: &str, name: &str) -> Result<()> {
    let mut admin = postgres::open(door, user, MAINTENANCE_DATABASE).await?;
    drop_database(&mut admin, name).await?;
    Ok(admin.close().await?)
}

/// Drops a database with whoever is connected to it.
pub async fn drop_database(admin: &mut PgConnection, name: &str) -> Result<()> {
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.with_context(|| format!("cannot drop `{name}`"))?;
    Ok(())
}
