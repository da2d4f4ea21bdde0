//! What `doctor --fix` may do: only to what is provably ours.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::engine::docker::project;
use crate::engine::native::observe::{self, Seen};
use crate::engine::native::record::Record;
use crate::engine::native::{process, stop};
use crate::instance::{EngineKind, Identity, Instance, registry};

const CAP: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub enum Mend {
    /// A record whose process is gone.
    ForgetRecord { instance: Instance, service: String },
    /// Servers whose checkout is gone.
    ForgetInstance { folder: PathBuf, data: PathBuf, records: Vec<Record>, identity: Box<Identity> },
}

impl Mend {
    /// Does it; tells what was done.
    pub async fn carry_out(&self) -> Result<String> {
        match self {
            Mend::ForgetRecord { instance, service } => {
                // Looked at again: it may have been started since.
                if !matches!(observe::service(instance, service)?, Seen::Died(_)) {
                    return Ok(format!("`{service}` needs nothing any more"));
                }
                stop::forget(instance, service)?;
                Ok(format!("cleared the record of `{service}`"))
            }
            Mend::ForgetInstance { folder, identity, .. } if identity.engine == EngineKind::Docker => {
                let removed = project::remove_containers(identity).await?;
                registry::forget(folder)?;
                Ok(format!("removed {removed} containers, forgot the instance; its volumes stay"))
            }
            Mend::ForgetInstance { folder, data, records, .. } => {
                let mut stopped = 0;
                for record in records {
                    // Fast shutdown for PostgreSQL; the others take either signal. Without its folder, Redis would
                    // refuse to end, since it cannot save.
                    let signal = match (record.login.is_some(), data.join(&record.service).join("data").exists()) {
                        (true, _) => Signal::INT,
                        (false, true) => Signal::TERM,
                        (false, false) => Signal::KILL,
                    };
                    if process::signal(record.pid, &record.birth, signal)? {
                        stopped += 1;
                    }
                }
                for record in records {
                    if !process::gone(record.pid, &record.birth, CAP).await {
                        bail!("`{}` (pid {}) does not end", record.service, record.pid);
                    }
                }
                registry::forget(folder)?;
                let data = if data.exists() { format!("; its data stay in {}", data.display()) } else { String::new() };
                Ok(format!("stopped {stopped} servers, forgot the instance{data}"))
            }
        }
    }
}
