//! Stopping servers: the signal that each takes as "finish at once, but properly", and only to what is provably ours.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::process::Signal;

use super::process;
use super::record::Record;
use super::servers::data_folder;
use crate::files;
use crate::instance::{Instance, registry};
use crate::ui::{Exit, Failure};

/// What a server is, as far as stopping it goes. Read off its record, since the manifest may have changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for clients.
    Postgres,
    /// SIGTERM writes what has to be written.
    Redis,
    /// Nothing to lose.
    Emulator,
}

const PROPERLY: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_secs(10);

/// Stops the server of a record and removes the record. A server that is gone already is as good.
pub async fn stop(instance: &Instance, record: &Record) -> Result<()> {
    let manner = match record {
        Record { login: Some(_), .. } => Manner::Postgres,
        Record { project: Some(_), .. } => Manner::Emulator,
        _ => Manner::Redis,
    };
    let data_are_gone = !data_folder(instance, &record.service).exists();
    let (first, cap, second) = match manner {
        // Redis would refuse to end, since it cannot save.
        Manner::Redis if data_are_gone => (Signal::KILL, AT_ONCE, None),
        Manner::Postgres => (Signal::INT, PROPERLY, Some(Signal::QUIT)),
        Manner::Redis => (Signal::TERM, PROPERLY, None),
        Manner::Emulator => (Signal::TERM, AT_ONCE, Some(Signal::KILL)),
    };
    let mut gone =
        !process::signal(record.pid, &record.birth, first)? || process::gone(record.pid, &record.birth, cap).await;
    if let (false, Some(second)) = (gone, second) {
        gone = !process::signal(record.pid, &record.birth, second)?
            || process::gone(record.pid, &record.birth, AT_ONCE).await;
    }
    if !gone {
        return Err(anyhow!(
            Failure::new(Exit::Failed, format!("`{}` (pid {}) does not end", record.service, record.pid))
                .hint(format!("`cargo xtask logs {}` may say why; run this again to go on waiting", record.service))
        ));
    }
    forget(instance, &record.service)
}

/// Removes the record of a server that is gone.
pub fn forget(instance: &Instance, short_name: &str) -> Result<()> {
    files::remove_if_present(&Record::path(&instance.service_folder(short_name)))?;
    files::remove_if_present(&registry::folder_of(instance).join(format!("{short_name}.json")))
}
