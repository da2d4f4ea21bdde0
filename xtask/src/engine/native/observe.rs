//! What is there: asked of the system, never remembered. Failing to ask is an error, never "nothing runs".

use anyhow::{Context, Result};

use super::aside;
use super::record::Record;
use super::servers::data_folder;
use crate::instance::{Instance, registry};
use crate::ui::{Exit, Failure};

#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// No data yet.
    Absent,
    /// Data, and no server.
    Stopped,
    Running(Record),
    /// A record whose process is gone, though nobody stopped it.
    Died(Record),
}

/// One service. A record that cannot be read is taken from the registry's copy.
pub fn service(instance: &Instance, short_name: &str) -> Result<Seen> {
    let record =
        Record::read(instance, short_name).or_else(|error| {
            let copy = registry::records_of(instance).into_iter().find(|record| record.service == short_name);
            copy.map(Some).ok_or_else(|| {
                let path = Record::path(&instance.service_folder(short_name));
                error.context(Failure::new(Exit::Failed, format!("the record of `{short_name}` cannot be read")).hint(
                    format!("if `cargo xtask ports` shows that nothing of it runs: `rm -r '{}'`", path.display()),
                ))
            })
        });
    Ok(match record? {
        Some(record) if record.is_alive() => Seen::Running(record),
        Some(record) => Seen::Died(record),
        None if data_folder(instance, short_name).try_exists()? => Seen::Stopped,
        None => Seen::Absent,
    })
}

/// Whether the socket folder of a running server is still there: cleaners of `/tmp` take it.
pub fn sockets_are_there(observed: &Seen) -> bool {
    match observed {
        Seen::Running(record) => record.sockets.as_ref().is_none_or(|sockets| sockets.is_dir()),
        _ => true,
    }
}

/// Every service that has data, a record or a server.
pub fn all_services(instance: &Instance) -> Result<Vec<String>> {
    let mut names = service_folders(instance)?;
    names.extend(without_folder(instance).into_iter().map(|record| record.service));
    names.sort();
    names.dedup();
    Ok(names)
}

/// Servers of the instance that run though somebody removed their folder, or the record in it.
pub fn without_folder(instance: &Instance) -> Vec<Record> {
    let mut records = registry::records_of(instance);
    records.retain(|record| record.is_alive() && !Record::path(&instance.service_folder(&record.service)).exists());
    records
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
        .map(|entry| (entry.path(), entry.file_name()))
        .filter(|(path, _)| {
            path.join("data").exists() || Record::path(path).exists() || !aside::folders(path).is_empty()
        })
        .filter_map(|(_, name)| name.into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
