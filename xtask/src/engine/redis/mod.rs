//! Talking to Redis: who is it, is it ready, and one-shot commands.

pub mod resp;
pub mod snapshot;

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::engine::readiness::Probe;
use resp::{Client, Value};

const PATIENCE: Duration = Duration::from_secs(2);
/// How the refusal of a server begins that still reads its data.
const LOADING: &str = "LOADING";

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

/// `PING`, then who it is.
pub async fn probe(port: u16) -> Result<Probe<Facts>> {
    let asked = tokio::time::timeout(PATIENCE, async {
        let mut client = Client::open(port).await?;
        // While it loads, `INFO` is answered and `PING` is not.
        Ok::<_, std::io::Error>((client.ask(&["PING"]).await?, client.ask(&["INFO"]).await?))
    });
    Ok(match asked.await {
        Ok(Ok((Value::Status(pong), Value::Bytes(info)))) if pong == "PONG" => {
            Probe::Ready(facts(&String::from_utf8_lossy(&info)))
        }
        Ok(Ok((Value::Error(refusal), _))) if !refusal.starts_with(LOADING) => bail!(refusal),
        Ok(Ok((Value::Status(answer) | Value::Error(answer), _))) => {
            Probe::NotYet(format!("`PING` was answered `{answer}`"))
        }
        Ok(Ok((answer, _))) => Probe::NotYet(format!("`PING` was answered {answer:?}")),
        Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => bail!(error),
        Ok(Err(error)) => Probe::NotYet(error.to_string()),
        Err(_) => Probe::NotYet(format!("no answer within {} s", PATIENCE.as_secs())),
    })
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

/// One command, as its reply, however long that takes. A refusal is an error.
pub async fn command<W: AsRef<[u8]>>(port: u16, words: &[W]) -> Result<Value> {
    match Client::open(port).await?.ask(words).await? {
        Value::Error(refusal) => Err(anyhow!(refusal)),
        value => Ok(value),
    }
}

/// The number of keys in the database that clients use.
pub async fn key_count(port: u16) -> Option<u64> {
    match tokio::time::timeout(PATIENCE, command(port, &["DBSIZE"])).await.ok()?.ok()? {
        Value::Integer(keys) => u64::try_from(keys).ok(),
        _ => None,
    }
}
