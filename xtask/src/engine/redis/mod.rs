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
/// Where the servers are that restores let a live one take its data from.
const LOOPBACK: &str = "127.0.0.1";
/// What [`release`] did, behind the server's name.
pub const RELEASED: &str = "takes writes again, which an interrupted restore had kept it from";

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    pub process: i32,
    pub version: String,
    pub clients: u64,
    /// Memory that its data take, in bytes.
    pub used: u64,
    /// The server that it takes its data from, where there is one: then it takes no writes.
    pub master: Option<Master>,
}

/// The server that a replica takes its data from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Host and port.
    pub address: String,
    is_loopback: bool,
    /// Whether it is there, or on its way.
    is_connected: bool,
}

impl Master {
    fn of(info: &str) -> Option<Master> {
        if field(info, "role") != "slave" {
            return None;
        }
        let host = field(info, "master_host");
        Some(Master {
            address: format!("{host}:{}", field(info, "master_port")),
            is_loopback: host == LOOPBACK,
            is_connected: field(info, "master_link_status") == "up" || field(info, "master_sync_in_progress") == "1",
        })
    }

    /// Whether it is what an interrupted restore leaves: a server beside the live one that ended with the helper. One that a
    /// person has set up is on another host, or answers.
    pub fn is_left_behind(&self) -> bool {
        self.is_loopback && !self.is_connected
    }
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
    Facts {
        process: field(info, "process_id").parse().unwrap_or(0),
        version: field(info, "redis_version").to_owned(),
        // The one that asks is not counted.
        clients: field(info, "connected_clients").parse::<u64>().unwrap_or(1).saturating_sub(1),
        used: field(info, "used_memory").parse().unwrap_or(0),
        master: Master::of(info),
    }
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// Makes a server its own master again that an interrupted restore has left waiting for [one that is
/// gone](Master::is_left_behind): whether it was such a one. Only who holds the instance's lock may ask for it.
pub async fn release(port: u16) -> Result<bool> {
    let Value::Bytes(info) = command(port, &["INFO", "replication"]).await? else {
        bail!("redis does not say whether it is a replica");
    };
    let is_left = Master::of(&String::from_utf8_lossy(&info)).is_some_and(|master| master.is_left_behind());
    if is_left {
        command(port, &["REPLICAOF", "NO", "ONE"]).await?;
    }
    Ok(is_left)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_master_on_loopback_that_is_gone_was_left_behind() {
        let is_left = |info: &str| Master::of(info).map(|master| master.is_left_behind());
        let replica =
            |host: &str, rest: &str| format!("# Replication\r\nrole:slave\r\nmaster_host:{host}\r\n{rest}\r\n");
        let gone = "master_port:41234\r\nmaster_link_status:down\r\nmaster_sync_in_progress:0";
        assert_eq!(is_left("# Replication\r\nrole:master\r\n"), None);
        assert_eq!(is_left(&replica("127.0.0.1", gone)), Some(true));
        assert_eq!(is_left(&replica("10.0.0.7", gone)), Some(false));
        assert_eq!(is_left(&replica("127.0.0.1", "master_link_status:up")), Some(false));
        let coming = "master_link_status:down\r\nmaster_sync_in_progress:1";
        assert_eq!(is_left(&replica("127.0.0.1", coming)), Some(false));
        assert_eq!(Master::of(&replica("10.0.0.7", gone)).unwrap().address, "10.0.0.7:41234");
    }
}
