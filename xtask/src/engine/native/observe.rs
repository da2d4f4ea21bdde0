//! What is there: asked of the system, never remembered. Failing to ask is an error, never "nothing runs".

use anyhow::{Context, Result};

use super::record::Record;
use super::servers::data_folder;
use crate::instance::Instance;

#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// No data yet.
    Absent,
    /// Data, and no server.
    Stopped,
    Running(Record),
    /// A record whose process is gone, though nobody stopped it.
    Died(Record),
}

/// One service.
pub fn service(instance: &Instance, short_name: &str) -> Result<Observed> {
    Ok(match Record::read(instance, short_name)? {
        Some(record) if record.is_alive() => Observed::Running(record),
        Some(record) => Observed::Died(record),
        None if data_folder(instance, short_name).try_exists()? => Observed::Stopped,
        None => Observed::Absent,
    })
}

/// Whether the socket folder of a running server is still there: cleaners of `/tmp` take it.
pub fn sockets_are_there(observed: &Observed) -> bool {
    match observed {
        Observed::Running(record) => record.sockets.as_ref().is_none_or(|sockets| sockets.is_dir()),
        _ => true,
    }
}

/// Every service folder of the instance, also of services that the manifest no longer has.
pub fn service_folders(instance: &Instance) -> Result<Vec<String>> {
    let folder = instance.data_folder();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list `{}`", folder.display()))?,
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("data").exists() || Record::path(&entry.path()).exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
