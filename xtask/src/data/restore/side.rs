//! A database beside the live ones, which goes away with its owner unless it is kept.

use anyhow::{Context, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::engine::postgres::{self, Door, MAINTENANCE_DATABASE, identifier, literal};

const PREFIX: &str = "xtask_side_";

/// Empty at first. Dropping it drops the database, also when the helper is interrupted.
#[derive(Debug)]
pub struct Side {
    pub name: String,
    pub door: Door,
    pub user: String,
    is_gone: bool,
}

impl Side {
    /// Makes it, and removes what killed restores have left. Only who holds the instance's lock may do this, and only once at
    /// a time on one server.
    pub async fn make(door: &Door, user: &str, encoding: &str) -> Result<Side> {
        let mut admin = postgres::open(door, user, MAINTENANCE_DATABASE).await?;
        let leftovers =
            format!("SELECT datname::text FROM pg_database WHERE starts_with(datname, {})", literal(PREFIX));
        for row in sqlx::raw_sql(AssertSqlSafe(leftovers)).fetch_all(&mut admin).await? {
            drop_database(&mut admin, row.try_get(0)?).await?;
        }
        let name = format!("{PREFIX}{}", std::process::id());
        let make = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} OWNER {}",
            identifier(&name),
            literal(encoding),
            identifier(user)
        );
        sqlx::raw_sql(AssertSqlSafe(make))
            .execute(&mut admin)
            .await
            .context("cannot make a database to restore into")?;
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
        // What stays behind, the next restore removes.
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
