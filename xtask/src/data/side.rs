//! A database beside the live ones, which goes away with its owner unless it is kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sql::{identifier, literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::locale::{Attempt, Locale, Origin, OtherLocale};
use crate::engine::postgres::{self, Door, MAINTENANCE_DATABASE};

/// How long a server may take to end what a killed run has begun.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(5);

/// What servers say to a locale that they have not, that their build cannot have, that does not fit the encoding, that
/// ICU does not open, and to an option or a provider that came with a later version.
const NO_SUCH_LOCALE: [&str; 6] = ["42809", "0A000", "22023", "42601", "42P17", "XX000"];
/// `undefined_object`: what they say to an encoding that they have not.
const NO_SUCH_ENCODING: &str = "42704";

/// Of what a server says, in letters.
const SHOWN: usize = 200;

/// What it is made for. Each has names of its own, for whoever makes one removes what others of its kind have left.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To be filled by a restore: empty, as the one that was dumped, in this encoding.
    Restore { origin: &'a Origin, encoding: &'a str },
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

    fn attempts(self, major: u32) -> Vec<Attempt> {
        match self {
            Purpose::Restore { origin, encoding } => origin.attempts(encoding, major),
            Purpose::Rehearsal { of } => {
                vec![Attempt { options: format!("TEMPLATE {}", identifier(of)), is_as_wanted: true, has_rules: false }]
            }
        }
    }
}

/// Dropping it drops the database, also when the helper is interrupted.
#[derive(Debug)]
pub struct Side {
    pub name: String,
    pub door: Door,
    pub user: String,
    /// Where the server could not make what was wanted.
    pub other_locale: Option<OtherLocale>,
    is_gone: bool,
}

impl Side {
    /// Makes it, and removes what killed runs have left: only once at a time on one server.
    pub async fn make(door: &Door, user: &str, purpose: Purpose<'_>) -> Result<Side> {
        let mut admin = postgres::open(door, user, MAINTENANCE_DATABASE).await?;
        let pages = format!("SELECT {}", postgres::uncompressed_pages(postgres::Lasting::Session));
        sqlx::raw_sql(AssertSqlSafe(pages)).execute(&mut admin).await?;
        end_leftovers(&mut admin, purpose.prefix()).await?;
        let leftovers =
            format!("SELECT datname::text FROM pg_database WHERE starts_with(datname, {})", literal(purpose.prefix()));
        for row in sqlx::raw_sql(AssertSqlSafe(leftovers)).fetch_all(&mut admin).await? {
            drop_database(door, user, row.try_get(0)?).await?;
        }
        let name = format!("{}{}", purpose.prefix(), std::process::id());
        let refusal = create(&mut admin, door, &name, user, purpose).await?;
        let mut side = Side { name, door: door.clone(), user: user.to_owned(), other_locale: None, is_gone: false };
        if let (Some(why), Purpose::Restore { origin, .. }) = (refusal, purpose) {
            side.other_locale = Some(origin.other(locale_of(&mut admin, &side.name).await?.as_ref(), &why));
        }
        admin.close().await?;
        Ok(side)
    }

    pub async fn connect(&self) -> Result<PgConnection> {
        postgres::open(&self.door, &self.user, &self.name).await
    }

    /// Drops it, and says whether that worked.
    pub async fn remove(mut self) -> Result<()> {
        self.is_gone = true;
        drop_database(&self.door, &self.user, &self.name).await
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
            runtime.block_on(drop_database(&door, &user, &name))
        });
        // What stays behind, the next of its kind removes.
        drop(dropping.join());
    }
}

/// Makes it as it is wanted, else as it can be made. Gives what the server said to the former.
async fn create(
    admin: &mut PgConnection,
    door: &Door,
    name: &str,
    owner: &str,
    purpose: Purpose<'_>,
) -> Result<Option<String>> {
    let major = admin.server_version_num().unwrap_or_default() / 10_000;
    let mut attempts = purpose.attempts(major).into_iter().peekable();
    let mut refusal = None;
    while let Some(attempt) = attempts.next() {
        match try_to_create(admin, door, name, owner, &attempt).await {
            Ok(()) if attempt.is_as_wanted => return Ok(None),
            Ok(()) => break,
            Err(error) => match said(&error, &NO_SUCH_LOCALE) {
                Some(why) if attempts.peek().is_some() => {
                    refusal.get_or_insert(why);
                }
                _ => return Err(error).context("cannot make a database beside the live one"),
            },
        }
    }
    Ok(Some(refusal.unwrap_or_default()))
}

/// Makes it in one way, or nothing. What is wrong with rules, a server says only to whoever connects.
async fn try_to_create(
    admin: &mut PgConnection,
    door: &Door,
    name: &str,
    owner: &str,
    attempt: &Attempt,
) -> Result<()> {
    let make = format!("CREATE DATABASE {} OWNER {} {}", identifier(name), identifier(owner), attempt.options);
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut *admin).await?;
    if attempt.has_rules {
        match postgres::open(door, owner, name).await {
            Ok(connection) => connection.close().await?,
            Err(error) => {
                drop_database(door, owner, name).await?;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// What a server said, if it was with one of these codes; on one line, for it may repeat what it was asked for.
fn said(error: &anyhow::Error, codes: &[&str]) -> Option<String> {
    let error = error.downcast_ref::<sqlx::Error>()?.as_database_error()?;
    let shown = error.message().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(SHOWN);
    codes.contains(&error.code()?.as_ref()).then(|| shown.collect())
}

/// What a server said to an encoding that it has not, where that is why there is no [`Side`].
pub fn said_to_encoding(error: &anyhow::Error) -> Option<String> {
    said(error, &[NO_SUCH_ENCODING])
}

/// As the server's catalogue has it, whose columns each version names in its own way; nothing where it has what this
/// helper does not know.
async fn locale_of(admin: &mut PgConnection, database: &str) -> Result<Option<Locale>> {
    let sql = format!(
        "SELECT coalesce(said->>'datlocprovider', 'c'), said->>'datcollate', said->>'datctype', \
         coalesce(said->>'datlocale', said->>'daticulocale'), said->>'daticurules' \
         FROM (SELECT to_jsonb(pg_database) AS said FROM pg_database WHERE datname = {}) AS row",
        literal(database)
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(admin).await?;
    Ok(Locale::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
}

/// A killed run's server may still be making its database, and would be done with it after the look for leftovers.
async fn end_leftovers(admin: &mut PgConnection, prefix: &str) -> Result<()> {
    let end = format!(
        "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND starts_with(query, {}) AND state = 'active'",
        literal(&format!("CREATE DATABASE \"{prefix}"))
    );
    let begun = Instant::now();
    while sqlx::raw_sql(AssertSqlSafe(end.clone())).fetch_one(&mut *admin).await?.try_get::<&str, _>(0)? != "0" {
        ensure!(begun.elapsed() < PATIENCE, "the server does not end what a killed run has begun");
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

/// Drops a database with whoever is connected to it.
pub async fn drop_database(door: &Door, user: &str, name: &str) -> Result<()> {
    let mut admin = postgres::open(door, user, MAINTENANCE_DATABASE).await?;
    // A server drops no database that subscribes to something. What it subscribed to keeps its slot for who comes next.
    let subscriptions = format!(
        "SELECT subname::text FROM pg_subscription JOIN pg_database ON pg_database.oid = subdbid WHERE datname = {}",
        literal(name)
    );
    let subscriptions = sqlx::raw_sql(AssertSqlSafe(subscriptions)).fetch_all(&mut admin).await?;
    if !subscriptions.is_empty() {
        let mut inside = postgres::open(door, user, name).await?;
        for row in subscriptions {
            let subscription = identifier(row.try_get(0)?);
            for step in [
                "ALTER SUBSCRIPTION {} DISABLE",
                "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
                "DROP SUBSCRIPTION {}",
            ] {
                let sql = step.replace("{}", &subscription);
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut inside).await?;
            }
        }
        inside.close().await?;
    }
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.with_context(|| format!("cannot drop `{name}`"))?;
    Ok(admin.close().await?)
}
