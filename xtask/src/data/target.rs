//! A database that a verb works on: connected, and proven to be this instance's by the `cluster_name` that it answers.

use std::cell::Cell;

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::address::Address;
use crate::engine::Engine;
use crate::engine::postgres::{self, Door, Login};
use crate::engine::server::{Observed, Server};
use crate::stack::model::Postgres;
use crate::stack::{Service, Stack};
use crate::ui::{Exit, Failure};

#[derive(Debug)]
pub struct Target<'a> {
    pub service: &'a Service,
    pub postgres: &'a Postgres,
    pub door: Door,
    pub login: Login,
    pub connection: PgConnection,
}

impl Target<'_> {
    /// As a person says it: `learning`.
    #[expect(clippy::misnamed_getters, reason = "the long name is for Compose, this one for people")]
    pub fn name(&self) -> &str {
        &self.service.short_name
    }

    /// How large the database is on its server's disk.
    pub async fn bytes(&mut self) -> Result<u64> {
        let sql = "SELECT pg_database_size(current_database())::text";
        let row = sqlx::raw_sql(sql).fetch_one(&mut self.connection).await?;
        Ok(row.try_get::<&str, _>(0)?.parse()?)
    }

    /// One connection more to the same database.
    pub async fn connect(&self) -> Result<PgConnection> {
        postgres::open(&self.door, &self.login.user, &self.login.database)
            .await
            .with_context(|| format!("cannot connect to `{}`", self.name()))
    }
}

/// The databases of a set that are still at work, before all of them commit at once.
#[derive(Debug)]
pub struct AtWork(Cell<usize>);

impl AtWork {
    pub fn new(databases: usize) -> AtWork {
        AtWork(Cell::new(databases))
    }

    /// For a database that is through: what brings its log to the disk while others are at work. Nothing for the last, whose
    /// COMMIT comes next.
    pub fn flush_log(&self, connection: &PgConnection) -> &'static str {
        let others = self.0.get().saturating_sub(1);
        self.0.set(others);
        if others > 0 { postgres::flush_log(connection) } else { "" }
    }
}

/// For a verb that has but its report to print: its connections are closed by its end. Before it, the servers' own endings
/// would have the processor while a person waits for a prompt.
pub fn leave_to_exit<T>(value: T) {
    std::mem::forget(value);
}

/// Opens the databases of those short names, all at once, in the stack's order; all that do not run are told together.
pub async fn open<'a>(engine: &Engine<'_>, stack: &'a Stack, names: &[String]) -> Result<Vec<Target<'a>>> {
    let opened = open_asking(engine, stack, names, |_| String::new(), async |_, _| Ok(())).await?;
    Ok(opened.into_iter().map(|(target, ())| target).collect())
}

/// As [`open`], for a verb that mostly finds nothing to do and wants to know it soon. The message that proves a database also
/// asks it for `expressions`, which its row begins with; `read` goes on from there, while others still open.
pub async fn open_asking<'a, T>(
    engine: &Engine<'_>,
    stack: &'a Stack,
    names: &[String],
    expressions: impl Fn(&Postgres) -> String,
    read: impl AsyncFn(PgRow, &mut Target<'a>) -> Result<T>,
) -> Result<Vec<(Target<'a>, T)>> {
    let wanted: Vec<(&Service, &Postgres)> =
        stack.databases().filter(|(service, _)| names.contains(&service.short_name)).collect();
    let services: Vec<&Service> = wanted.iter().map(|(service, _)| *service).collect();
    let mut servers = Vec::new();
    let mut absent = Vec::new();
    for (service, observed) in services.iter().zip(engine.observe(&services).await?) {
        match observed? {
            Observed::Running(server) => servers.push(server),
            _ => absent.push(service.short_name.as_str()),
        }
    }
    if !absent.is_empty() {
        let hint = format!("`cargo xtask up {}`", absent.join(" "));
        bail!(Failure::new(Exit::Failed, format!("not running: {}", absent.join(", "))).hint(hint));
    }
    let (expressions, read) = (&expressions, &read);
    let opening = wanted.iter().zip(&servers).map(async |((service, postgres), server)| {
        let (door, login) = server.door().with_context(|| format!("`{}` has no login", service.short_name))?;
        let login = login.clone();
        let mut connection = postgres::open(&door, &login.user, &login.database)
            .await
            .with_context(|| format!("cannot connect to `{}`", service.short_name))?;
        let row = prove(&mut connection, server, expressions(postgres)).await?;
        let mut target = Target { service, postgres, door, login, connection };
        let answer = read(row, &mut target).await?;
        Ok((target, answer))
    });
    join_all(opening).await.into_iter().collect()
}

/// As [`open_asking`], of databases that are open.
pub async fn ask_all<'a, T>(
    targets: Vec<Target<'a>>,
    expressions: impl Fn(&Postgres) -> String,
    read: impl AsyncFn(PgRow, &mut Target<'a>) -> Result<T>,
) -> Result<Vec<(Target<'a>, T)>> {
    let (expressions, read) = (&expressions, &read);
    let asking = targets.into_iter().map(async |mut target| {
        let row = ask(&mut target.connection, expressions(target.postgres)).await?;
        let answer = read(row, &mut target).await?;
        Ok((target, answer))
    });
    join_all(asking).await.into_iter().collect()
}

/// As [`open_asking`], of the database of that short name where somebody says it is. It cannot be proven to be the right
/// one; but an instance's server says of itself which database it has, and another one is refused.
pub async fn open_at<'a, T>(
    address: Address,
    password: Option<&str>,
    stack: &'a Stack,
    name: &str,
    expressions: impl Fn(&Postgres) -> String,
    read: impl AsyncFn(PgRow, &mut Target<'a>) -> Result<T>,
) -> Result<Vec<(Target<'a>, T)>> {
    let found = stack.databases().find(|(service, _)| service.short_name == name);
    let Some((service, postgres)) = found else { bail!("there is no database `{name}`") };
    let (door, login) = address.door(postgres, password);
    let place = format!("`{}` on port {}", login.database, door.port());
    let opened = postgres::open(&door, &login.user, &login.database).await;
    let mut connection = opened.with_context(|| format!("cannot connect to {place}"))?;
    let row = ask(&mut connection, expressions(postgres)).await?;
    let answered = cluster_name(&row)?;
    // `<stack>/<database>/<instance>`, and `<project>/<database>` where Compose has named it.
    let is_ours = |other: &str| stack.databases().any(|(service, _)| service.short_name == other);
    let other = match answered.split('/').collect::<Vec<_>>()[..] {
        [_, other, _] => Some(other),
        [_, other] => Some(other).filter(|other| is_ours(other)),
        _ => None,
    };
    if let Some(other) = other.filter(|other| *other != name) {
        bail!(
            Failure::new(Exit::Refused, format!("{place} is not `{name}`, nothing was done"))
                .body(format!("  it answers `{answered}`: `{other}` of an instance\n"))
        );
    }
    let mut target = Target { service, postgres, door, login, connection };
    let answer = read(row, &mut target).await?;
    Ok(vec![(target, answer)])
}

/// The server must answer the name that it was started with.
async fn prove(connection: &mut PgConnection, server: &Server, expressions: String) -> Result<PgRow> {
    let answer = ask(connection, expressions).await?;
    let answered = cluster_name(&answer)?;
    if answered != server.cluster_name {
        bail!(
            Failure::new(Exit::Refused, format!("port {} is not `{}` of this instance", server.port, server.service))
                .body(format!("  it answers `{answered}`, expected is `{}`", server.cluster_name))
                .hint("`cargo xtask ports` shows who holds the port")
        );
    }
    Ok(answer)
}

/// One row: the expressions, and who the server is.
async fn ask(connection: &mut PgConnection, mut expressions: String) -> Result<PgRow> {
    if !expressions.is_empty() {
        expressions.push_str(", ");
    }
    let sql = format!("SELECT {expressions}current_setting('cluster_name')");
    Ok(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(connection).await?)
}

fn cluster_name(answer: &PgRow) -> Result<&str> {
    Ok(answer.try_get(answer.len() - 1)?)
}
