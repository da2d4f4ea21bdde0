//! Redis brought back from a backup: a server beside the live one loads the file and is counted, and then the live one takes
//! its data over as a replica would, in one step. No file of the live server is touched, so both engines do it alike.
//!
//! The server beside lives only as long as the helper holds its stdin: killed or not, nothing stays.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use archive::part::Seal;

use crate::data::backup::manifest::{Manifest, Subject};
use crate::data::backup::store::Kept;
use crate::data::backup::verify;
use crate::engine::redis::resp::Value;
use crate::engine::redis::{self as client, snapshot};
use crate::engine::server::{Home, Server};
use crate::instance::Instance;
use crate::tools::{self, Input};
use crate::ui::{Exit, Failure, units};

/// Its words are: bytes of the file, server, port.
const SCRIPT: &str = r#"
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
head -c "$1" >"$folder/dump.rdb" || exit 1
exec 3<&0
"$2" --port "$3" --bind 127.0.0.1 --dir "$folder" --dbfilename dump.rdb --appendonly no --save '' --repl-diskless-sync-delay 0 2>&1 &
server=$!
(cat <&3 >/dev/null; kill "$server" 2>/dev/null) &
wait "$server"
"#;

const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(25);
const LOG_LINES: usize = 8;

/// Why the live server was not given the data: it refused to take any.
#[derive(Debug)]
pub struct AsItWas;

impl fmt::Display for AsItWas {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("redis was not restored, and is as it was")
    }
}

/// The server beside, with the backup's data in it.
#[derive(Debug)]
pub struct Side {
    port: u16,
    place: Place,
    pub keys: u64,
    /// Those of the keys that end by themselves.
    expiring: u64,
    /// As long as it is open, the server runs.
    _stdin: std::process::ChildStdin,
}

#[derive(Debug, Clone)]
enum Place {
    Here,
    Container(String),
}

/// Proves the backup and loads it.
pub async fn prepare(
    kept: &Kept,
    seal: Option<Arc<dyn Seal + Send + Sync>>,
    live: &Server,
    instance: &Instance,
) -> Result<Side> {
    let (kept, live, user) = (kept.clone(), live.clone(), instance.identity.server_user.clone());
    tokio::task::spawn_blocking(move || {
        let seal = seal.as_deref().map(|seal| seal as &dyn Seal);
        let manifest = verify::content(&kept, seal)?;
        let (command, place) = match &live.home {
            Home::Container(container) => {
                let mut command = tools::program("docker");
                command.args(["exec", "--interactive", &container.id, "sh"]);
                (command, Place::Container(container.id.clone()))
            }
            Home::Process(_) => {
                let mut command = tools::program("sh");
                command.current_dir("/");
                if let Some(user) = user {
                    command.uid(user.uid).gid(user.gid);
                }
                (command, Place::Here)
            }
        };
        let program = live.program().map_or_else(|| PathBuf::from("redis-server"), PathBuf::clone);
        load(command, &program, free_port()?, place, &kept, &manifest, seal)
    })
    .await?
    .context(AsItWas)
}

/// Another one each time: a live server that an interrupted restore has left looking for the server beside it finds no later
/// one. In a container nobody else listens, so what is free here is free there.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn load(
    mut command: Command,
    program: &std::path::Path,
    port: u16,
    place: Place,
    kept: &Kept,
    manifest: &Manifest,
    seal: Option<&dyn Seal>,
) -> Result<Side> {
    let Subject::Redis(redis) = &manifest.subject else { bail!("`{}` is no backup of Redis", kept.shown()) };
    let bytes = manifest.part(&redis.part)?.raw_bytes;
    command.args(["-c", SCRIPT, "sh", &bytes.to_string()]).arg(program).arg(port.to_string());
    let (mut process, mut output) = tools::pipe(command, Stdio::piped())?;
    let log = Arc::new(Mutex::new(Some(String::new())));
    let kept_log = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut piece) {
            let mut log = kept_log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            log.get_or_insert_default().push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        // The server has ended: nothing more comes.
        *kept_log.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    });
    let Some(mut stdin) = process.stdin() else { bail!("the server beside takes no input") };
    verify::decode_to(kept, &redis.part, seal, &mut stdin)?;
    stdin.flush()?;
    let side = Side { port, place, keys: redis.keys, expiring: redis.expiring, _stdin: stdin };
    let begun = Instant::now();
    let mut said = String::new();
    let loaded = loop {
        if let Ok(info) = side.ask(&["INFO"])
            && !info.contains("loading:1")
            && info.contains("redis_version")
        {
            break snapshot::keyspace(&info);
        }
        match &*log.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(text) => tools::last_lines(text, LOG_LINES).clone_into(&mut said),
            None => bail!(not_loaded("a server beside the live one ended", &said)),
        }
        ensure!(begun.elapsed() < PATIENCE, not_loaded("a server beside the live one does not answer", &said));
        std::thread::sleep(INTERVAL);
    };
    ensure!(
        is_all(loaded.0, redis.keys, redis.expiring),
        "{} were loaded, and {} were backed up",
        units::plural(loaded.0, "key"),
        units::count(redis.keys)
    );
    Ok(Side { keys: loaded.0, expiring: loaded.1, ..side })
}

/// Keys that end by themselves may have ended since they were counted.
fn is_all(found: u64, counted: u64, expiring: u64) -> bool {
    found <= counted && found + expiring >= counted
}

fn not_loaded(title: &str, log: &str) -> anyhow::Error {
    Failure::new(Exit::Failed, title).body(tools::indented(log)).into()
}

impl Side {
    /// One command, as text.
    fn ask(&self, words: &[&str]) -> Result<String> {
        match &self.place {
            Place::Here => ask_here(self.port, words),
            Place::Container(id) => {
                let mut command = tools::program("docker");
                command.args(["exec", id, "redis-cli", "-p", &self.port.to_string()]).args(words);
                Ok(tools::run(command, Input::Text(String::new()))?.ok()?.stdout)
            }
        }
    }

    /// Lets the live server take the data over. What it had is gone from it then, also where this fails, but for
    /// [`AsItWas`]; whoever writes meanwhile is refused.
    pub async fn swap(self, live: u16) -> Result<()> {
        tokio::task::spawn_blocking(move || {
            let promote = Promote(live);
            ask_here(live, &["REPLICAOF", "127.0.0.1", &self.port.to_string()]).context(AsItWas)?;
            let begun = Instant::now();
            // Counted while nobody may write to it.
            let keys = loop {
                let info = ask_here(live, &["INFO"])?;
                if info.contains("master_link_status:up") && info.contains("master_sync_in_progress:0") {
                    break snapshot::keyspace(&info).0;
                }
                ensure!(begun.elapsed() < PATIENCE, "redis did not take the data over within {} s", PATIENCE.as_secs());
                std::thread::sleep(INTERVAL);
            };
            drop(promote);
            ensure!(
                settled(live)?.contains("role:master"),
                "redis is still a replica: `cargo xtask up redis` mends it"
            );
            ensure!(
                is_all(keys, self.keys, self.expiring),
                "redis took over {} instead of {}",
                units::plural(keys, "key"),
                units::count(self.keys)
            );
            Ok(())
        })
        .await?
    }
}

/// What it says of itself once its log of commands begins with the new data: until then it does not let itself be stopped.
fn settled(live: u16) -> Result<String> {
    let begun = Instant::now();
    loop {
        let info = ask_here(live, &["INFO"])?;
        let is_writing =
            ["aof_rewrite_in_progress:1", "aof_rewrite_scheduled:1"].iter().any(|sign| info.contains(sign));
        if !is_writing || begun.elapsed() > PATIENCE {
            return Ok(info);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Makes the live server its own master again, whatever happens.
struct Promote(u16);

impl Drop for Promote {
    fn drop(&mut self) {
        // Where even this fails, the server is gone; started again it is nobody's replica.
        drop(ask_here(self.0, &["REPLICAOF", "NO", "ONE"]));
    }
}

/// For a thread that may wait: the runtime's own thread does the asking.
fn ask_here(port: u16, words: &[&str]) -> Result<String> {
    match tokio::runtime::Handle::current().block_on(client::command(port, words))? {
        Value::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Status(text) => Ok(text),
        other => Err(anyhow!("redis answered {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_end_by_themselves_may_be_missing() {
        assert!(is_all(50, 50, 0) && is_all(48, 50, 2));
        assert!(!is_all(47, 50, 2) && !is_all(49, 50, 0) && !is_all(51, 50, 2));
    }
}
