//! What is known of a server that was started: enough to prove that a process is it, and to reach it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::process::{self, Birth};
use crate::engine::postgres::Login;
use crate::files;
use crate::instance::Instance;

/// `record.json` in the service's folder, readable by its owner only. It is written by the starting process itself,
/// before the server runs (see [`super::launch`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The service's short name.
    pub service: String,
    pub pid: i32,
    pub birth: Birth,
    pub started: Timestamp,
    /// Of everything that the server was started with; another one means that a restart would change something.
    pub fingerprint: String,
    pub port: u16,
    pub program: PathBuf,
    /// PostgreSQL only: the login that clients use, and the owner's socket.
    pub login: Option<Login>,
    pub sockets: Option<PathBuf>,
    /// Pub/Sub only.
    pub project: Option<String>,
}

impl Record {
    pub fn path(service_folder: &Path) -> PathBuf {
        service_folder.join("record.json")
    }

    pub fn read(instance: &Instance, short_name: &str) -> Result<Option<Record>> {
        files::read_json(&Record::path(&instance.service_folder(short_name)))
    }

    pub fn write(&self, service_folder: &Path) -> Result<()> {
        files::write_json(&Record::path(service_folder), self)
    }

    /// Whether the recorded process still runs: the same pid, born at the same time.
    pub fn is_alive(&self) -> bool {
        process::birth_of(self.pid).is_some_and(|birth| birth == self.birth)
    }
}
