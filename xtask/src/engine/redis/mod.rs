//! Talking to Redis: who is it, is it ready, and one-shot commands.

pub mod snapshot;

use std::time::Duration;

use anyhow::Result;
use redis::{Connection, ErrorKind, RedisError, ServerErrorKind, Value};

use crate::engine::readiness::Probe;

const TIMEOUT: Duration = Duration::from_secs(2);

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    pub process: i32,
    pub version: String,
    pub clients: u64,
    /// Memory that its data take, in bytes.
    pub used: u64,
    /// It takes its data from another server, and takes no writes.
    pub is_replica: bool,
}

fn connect(port: u16) -> Result<Connection, RedisError> {
    let client = redis::Client::open(("127.0.0.1", port))?;
    let connection = client.get_connection_with_timeout(TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

/// `PING`, then who it is.
pub async fn probe(port: u16) -> Result<Probe<Facts>> {
    tokio::task::spawn_blocking(move || {
        let asked = connect(port).and_then(|mut connection| {
            let (pong, info): (String, String) =
                redis::pipe().cmd("PING").cmd("INFO").arg("everything").query(&mut connection)?;
            Ok((pong, info))
        });
        match asked {
            Ok((pong, info)) if pong == "PONG" => Ok(Probe::Ready(facts(&info))),
            Ok((answer, _)) => Ok(Probe::NotYet(format!("`PING` was answered `{answer}`"))),
            Err(error) if is_passing(&error) => Ok(Probe::NotYet(error.to_string())),
            Err(error) => Err(error.into()),
        }
    })
    .await?
}

fn is_passing(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading)
}

fn facts(info: &str) -> Facts {
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    Facts {
        process: field("process_id").parse().unwrap_or(0),
        version: field("redis_version"),
        // The one that asks is not counted.
        clients: field("connected_clients").parse::<u64>().unwrap_or(1).saturating_sub(1),
        used: field("used_memory").parse().unwrap_or(0),
        is_replica: field("role") == "slave",
    }
}

/// One command, as its reply.
pub fn command(port: u16, words: &[String]) -> Result<Value> {
    let mut connection = connect(port)?;
    connection.set_read_timeout(None)?;
    let mut command = redis::cmd(words.first().map_or("PING", String::as_str));
    command.arg(words.get(1..).unwrap_or_default());
    Ok(command.query(&mut connection)?)
}

/// The number of keys in all databases.
pub fn key_count(port: u16) -> Option<u64> {
    let mut connection = connect(port).ok()?;
    redis::cmd("DBSIZE").query(&mut connection).ok()
}
