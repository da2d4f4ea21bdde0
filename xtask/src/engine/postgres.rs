//! Talking to PostgreSQL: who is it, is it ready, and the little that `up` sets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sql::{identifier, literal};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::readiness::Probe;
use crate::stack::model;

/// What a client needs besides the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Login {
    /// As the configuration has it.
    pub fn of(postgres: &model::Postgres) -> Login {
        Login { user: postgres.user.clone(), password: postgres.password.clone(), database: postgres.database.clone() }
    }
}

/// The way in.
#[derive(Debug, Clone)]
pub enum Door {
    /// As every client: by TCP on loopback, with the password.
    Tcp { port: u16, password: String },
    /// As the owner: by the Unix socket in a folder that only the owner may enter.
    Socket { folder: PathBuf, port: u16 },
}

impl Door {
    pub fn port(&self) -> u16 {
        match self {
            Door::Tcp { port, .. } | Door::Socket { port, .. } => *port,
        }
    }
}

/// Who a server is.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cluster_name: String,
    pub version: String,
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    pub identity: Identity,
    pub connections: u64,
    pub max_connections: u64,
    /// Of the database that was asked, in bytes.
    pub size: u64,
}

/// Why a login was not accepted, where that can be mended by the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Login,
    Database,
}

/// The database that every server has, for what concerns the server.
pub const MAINTENANCE_DATABASE: &str = "postgres";

/// An empty database that new clusters are copied with. It is renamed to the one that is asked for, which costs a
/// hundredth of making one.
pub const SPARE_DATABASE: &str = "xtask_spare";

/// The first number that a server gives to an object of its users: what comes before it is the system's own.
pub const FIRST_OF_USERS: u32 = 16_384;

/// How long a setting is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    Transaction,
    Session,
}

/// A setting for what writes much, as an expression for SELECT: pages that go to the write-ahead log as a whole are not
/// compressed. As `wal_compression = on` does it, that takes longer than to write them: three quarters of the time of `CREATE
/// DATABASE`, half of that of an index, a sixth of that of a new database's migrations. For all but superusers nothing is set.
pub fn uncompressed_pages(lasting: Lasting) -> String {
    let is_local = lasting == Lasting::Transaction;
    format!(
        "CASE pg_catalog.current_setting('is_superuser') WHEN 'on' \
         THEN pg_catalog.set_config('wal_compression', 'off', {is_local}) END"
    )
}

/// Writes what a transaction has logged to the disk before its COMMIT, which has but its own record to wait for then: a
/// statement, or nothing before version 17. A login from which somebody took the function away cannot say it.
pub fn flush_log(connection: &PgConnection) -> &'static str {
    match connection.server_version_num() {
        Some(170_000..) => "SELECT pg_catalog.pg_logical_emit_message(false, '', '', true);\n",
        _ => "",
    }
}

/// Of a row of `pg_stat_activity`: who it is.
pub const CLIENT: &str = "concat(coalesce(nullif(application_name, ''), 'a client without a name'), ' (pid ', pid, ', user ', \
    usename, ', since ', to_char(backend_start, 'HH24:MI:SS'), ')')";

/// Settings by which a server ends sessions that wait or transactions that last, each with the version that it came with.
const LIMITS_OF_WAITING: [(u32, &str); 3] = [
    (90_600, "idle_in_transaction_session_timeout"),
    (140_000, "idle_session_timeout"),
    (170_000, "transaction_timeout"),
];

/// Such settings turned off, as expressions for SELECT: a member of a set waits for the slowest of the others, whatever the
/// server, the role or the database thinks of that.
pub fn without_limits_of_waiting(connection: &PgConnection, lasting: Lasting) -> String {
    let version = connection.server_version_num().unwrap_or_default();
    let is_local = lasting == Lasting::Transaction;
    let known = LIMITS_OF_WAITING.iter().filter(|(since, _)| *since <= version);
    let off = known.map(|(_, name)| format!("pg_catalog.set_config('{name}', '0', {is_local})"));
    off.collect::<Vec<_>>().join(", ")
}

/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;
/// How long a server may take for what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// What the helper calls itself where a server shows its clients.
pub const NAME: &str = "cargo xtask";
/// Statements of ours stay out of the server's log: one of them holds a password.
const UNLOGGED: [(&str, &str); 3] =
    [("log_statement", "none"), ("log_min_duration_statement", "-1"), ("log_min_error_statement", "panic")];

const IDENTITY: &str = "SELECT current_setting('cluster_name'), current_setting('server_version')";
/// More than half of what a login costs the server: asked only where the numbers are shown.
const FACTS: &str = "SELECT current_setting('cluster_name'), current_setting('server_version'), \
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())::text, \
    current_setting('max_connections'), pg_database_size(current_database())::text";

async fn connect(door: &Door, user: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass()
        .username(user)
        .database(database)
        .application_name(NAME)
        .ssl_mode(PgSslMode::Disable)
        .statement_cache_capacity(0)
        .disable_statement_logging();
    let options = match door {
        Door::Tcp { port, password } => options.host("127.0.0.1").port(*port).password(password),
        Door::Socket { folder, port } => options.socket(folder).port(*port).options(UNLOGGED),
    };
    options.connect().await
}

/// A connection for work of some length, by a door that the login opens.
pub async fn open(door: &Door, user: &str, database: &str) -> Result<PgConnection> {
    let connecting = tokio::time::timeout(PATIENCE, connect(door, user, database)).await;
    Ok(connecting.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))??)
}

/// Asks the server who it is. A refusal that the owner can mend comes as `Err(Denied)` inside `Ready`.
pub async fn probe(door: &Door, user: &str, database: &str) -> Result<Probe<Result<Identity, Denied>>> {
    ask(door, user, database, IDENTITY, identity).await
}

/// As [`probe`], and how it is.
pub async fn examine(door: &Door, user: &str, database: &str) -> Result<Probe<Result<Facts, Denied>>> {
    ask(door, user, database, FACTS, facts).await
}

/// As [`probe`], and makes the database if it is not there, once the server has proven to be `cluster_name`.
pub async fn settle(door: &Door, wanted: &Login, cluster_name: &str) -> Result<Probe<Result<Identity, Denied>>> {
    let settled = async {
        let mut connection = connect(door, &wanted.user, MAINTENANCE_DATABASE).await?;
        let identity = identity(&sqlx::raw_sql(IDENTITY).fetch_one(&mut connection).await?)?;
        if identity.cluster_name == cluster_name {
            ensure_database(&mut connection, wanted).await?;
        }
        connection.close().await?;
        Ok(identity)
    };
    settled.await.map_or_else(judge, |identity| Ok(Probe::Ready(Ok(identity))))
}

/// One row, over a connection of its own.
async fn ask<T>(
    door: &Door,
    user: &str,
    database: &str,
    sql: &'static str,
    read: fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Probe<Result<T, Denied>>> {
    let asked = async {
        let mut connection = connect(door, user, database).await?;
        let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        read(&row)
    };
    asked.await.map_or_else(judge, |answer| Ok(Probe::Ready(Ok(answer))))
}

fn identity(row: &PgRow) -> Result<Identity, sqlx::Error> {
    let version: &str = row.try_get(1)?;
    Ok(Identity {
        cluster_name: row.try_get(0)?,
        version: version.split_whitespace().next().unwrap_or(version).to_owned(),
    })
}

fn facts(row: &PgRow) -> Result<Facts, sqlx::Error> {
    let number = |index: usize| row.try_get::<&str, _>(index).map(|text| text.parse().unwrap_or(0));
    Ok(Facts { identity: identity(row)?, connections: number(2)?, max_connections: number(3)?, size: number(4)? })
}

/// Codes: PostgreSQL's documentation, appendix A.
fn judge<T>(error: sqlx::Error) -> Result<Probe<Result<T, Denied>>> {
    let code = match &error {
        sqlx::Error::Database(database) => database.code().map(|code| code.into_owned()),
        sqlx::Error::Io(_) => return Ok(Probe::NotYet(error.to_string())),
        _ => None,
    };
    match code.as_deref() {
        Some("57P03" | "53300" | "57P01" | "57P02") => Ok(Probe::NotYet(error.to_string())),
        Some("28P01" | "28000") => Ok(Probe::Ready(Err(Denied::Login))),
        Some("3D000") => Ok(Probe::Ready(Err(Denied::Database))),
        _ => bail!(error),
    }
}

/// Whether a server at the port accepts logins, without logging in: as libpq's `PQping`, a thousandth of the work that the
/// password's hash is to an unoptimised client.
pub async fn ping(port: u16) -> Result<Probe<()>> {
    let asked = tokio::time::timeout(PATIENCE, async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let mut message = vec![0; 4];
        message.extend(PROTOCOL.to_be_bytes());
        message.extend(b"user\0cargo-xtask\0database\0postgres\0\0");
        let length = u32::try_from(message.len()).unwrap_or(0);
        message[..4].copy_from_slice(&length.to_be_bytes());
        stream.write_all(&message).await?;
        let mut answer = Vec::new();
        let mut piece = [0; 512];
        // One message is enough; it may come in pieces.
        while answer.len() < 5 || answer.len() < 1 + be_length(&answer) {
            match stream.read(&mut piece).await? {
                0 => break,
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
        Ok::<_, std::io::Error>(answer)
    });
    Ok(match asked.await {
        Ok(Ok(answer)) => match answer.first() {
            Some(b'R') => Probe::Ready(()),
            // Starting, stopping, recovering, or full: class 57P0x and 53300 of appendix A.
            Some(b'E') if [&b"C57P0"[..], b"C53300"].iter().any(|code| contains(&answer, code)) => {
                Probe::NotYet("it does not accept logins yet".into())
            }
            // Any other refusal is a server that is there: who asks here has no business with it.
            Some(b'E') => Probe::Ready(()),
            _ => Probe::NotYet("it took the connection and said nothing".into()),
        },
        Ok(Err(error)) => Probe::NotYet(error.to_string()),
        Err(_) => Probe::NotYet(format!("no answer within {} s", PATIENCE.as_secs())),
    })
}

fn be_length(answer: &[u8]) -> usize {
    answer.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, |bytes| u32::from_be_bytes(bytes) as usize)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Makes role and database be there and the password be the one asked for; tells what was changed.
/// `superuser` is the role that initdb made.
pub async fn mend(sockets: &Path, port: u16, superuser: &str, wanted: &Login) -> Result<Vec<&'static str>> {
    let mended = tokio::time::timeout(PATIENCE, mend_at_leisure(sockets, port, superuser, wanted)).await;
    mended.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn mend_at_leisure(sockets: &Path, port: u16, superuser: &str, wanted: &Login) -> Result<Vec<&'static str>> {
    let door = Door::Socket { folder: sockets.to_owned(), port };
    let mut connection = connect(&door, superuser, MAINTENANCE_DATABASE).await?;
    let mut changed = vec!["password set"];
    let look = format!(
        "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = {role})::text, \
                (SELECT count(*) FROM pg_database WHERE datname = {database})::text, \
                (SELECT count(*) FROM pg_database WHERE datname = '{SPARE_DATABASE}')::text",
        role = literal(&wanted.user),
        database = literal(&wanted.database),
    );
    let row = sqlx::raw_sql(AssertSqlSafe(look)).fetch_one(&mut connection).await?;
    let exists = |index: usize| Ok::<_, sqlx::Error>(row.try_get::<&str, _>(index)? == "1");
    let (role_exists, database_exists, spare_exists) = (exists(0)?, exists(1)?, exists(2)?);
    if !role_exists {
        changed.push("user created");
    }
    sqlx::raw_sql(AssertSqlSafe(role_script(wanted))).execute(&mut connection).await?;
    if !database_exists {
        changed.push("database created");
        make_database(&mut connection, wanted, spare_exists).await?;
    }
    connection.close().await?;
    Ok(changed)
}

/// Makes the role with its password, or sets the password; may be run again.
pub fn role_script(wanted: &Login) -> String {
    let (user, password) = (identifier(&wanted.user), literal(&wanted.password));
    let statement = |verb: &str| literal(&format!("{verb} ROLE {user} SUPERUSER LOGIN PASSWORD {password}"));
    format!(
        "DO $xtask$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = {role}) \
         THEN EXECUTE {alter}; ELSE EXECUTE {create}; END IF; END $xtask$;",
        role = literal(&wanted.user),
        alter = statement("ALTER"),
        create = statement("CREATE"),
    )
}

/// Makes the database if it is not there: out of the spare one where there is one, which costs a hundredth.
async fn make_database(connection: &mut PgConnection, wanted: &Login, spare_exists: bool) -> Result<(), sqlx::Error> {
    let (name, user) = (identifier(&wanted.database), identifier(&wanted.user));
    let make = match spare_exists {
        true => format!("ALTER DATABASE {SPARE_DATABASE} RENAME TO {name}; ALTER DATABASE {name} OWNER TO {user}"),
        false => format!("CREATE DATABASE {name} OWNER {user}"),
    };
    sqlx::raw_sql(AssertSqlSafe(make)).execute(connection).await.map(drop)
}

/// Whether the database had to be made.
async fn ensure_database(connection: &mut PgConnection, wanted: &Login) -> Result<bool, sqlx::Error> {
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    let exists = |name: String| sqlx::query_scalar::<_, bool>(exists).bind(name);
    if exists(wanted.database.clone()).fetch_one(&mut *connection).await? {
        return Ok(false);
    }
    let spare_exists = exists(SPARE_DATABASE.to_owned()).fetch_one(&mut *connection).await?;
    make_database(connection, wanted, spare_exists).await?;
    Ok(true)
}

/// As [`mend`], for the database alone and by a door that the login opens.
pub async fn provide_database(door: &Door, wanted: &Login) -> Result<Probe<Result<Option<&'static str>, Denied>>> {
    let provided = tokio::time::timeout(PATIENCE, async {
        let mut connection = connect(door, &wanted.user, MAINTENANCE_DATABASE).await?;
        let is_made = ensure_database(&mut connection, wanted).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(is_made.then_some("database created"))
    });
    let provided = provided.await.map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?;
    provided.map_or_else(judge, |made| Ok(Probe::Ready(Ok(made))))
}

/// Rows as text, for one-shot statements where no `psql` is at hand.
pub async fn query(door: &Door, user: &str, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
    use sqlx::{Column, ValueRef};
    let mut connection = connect(door, user, database).await?;
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
    connection.close().await?;
    let mut table: Vec<Vec<String>> = Vec::new();
    if let Some(first) = rows.first() {
        table.push(first.columns().iter().map(|column| column.name().to_owned()).collect());
    }
    for row in &rows {
        let cells = (0..row.len()).map(|index| {
            let value = row.try_get_raw(index)?;
            Ok(if value.is_null() { String::new() } else { value.as_str().map_err(sqlx::Error::Decode)?.to_owned() })
        });
        table.push(cells.collect::<Result<_, sqlx::Error>>()?);
    }
    Ok(table)
}

/// The rows that a database's statistics count, roughly; `None` if it does not say.
pub async fn row_count(door: &Door, login: &Login) -> Option<u64> {
    let sql = "SELECT coalesce(sum(n_live_tup), 0)::bigint::text FROM pg_stat_user_tables";
    let asked = tokio::time::timeout(PATIENCE, query(door, &login.user, &login.database, sql));
    asked.await.ok()?.ok()?.last()?.first()?.parse().ok()
}
