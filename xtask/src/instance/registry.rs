//! Which instances this user has on this machine: so that a port's holder can be named by its checkout, and servers whose
//! checkout is gone can still be found. A copy for looking up; the truth stays beside the data.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Identity, Instance};
use crate::engine::native::record::Record;
use crate::files;

/// The machine user's folder for state: `XTASK_STATE_DIR`, else root's or the user's usual one.
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("XTASK_STATE_DIR") {
        return folder.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/cargo-xtask/instances".into();
    }
    let home = || std::env::home_dir().unwrap_or_else(|| "/tmp".into()).join(".local/state");
    std::env::var_os("XDG_STATE_HOME").map_or_else(home, PathBuf::from).join("cargo-xtask/instances")
}

/// What the registry knows of one instance.
#[derive(Debug)]
pub struct Entry {
    pub folder: PathBuf,
    pub identity: Identity,
    pub records: Vec<Record>,
}

impl Entry {
    /// Where its service folders are, or were.
    pub fn data_folder(&self) -> PathBuf {
        let beside = || self.identity.checkout.join(".xtask").join(&self.identity.stack);
        self.identity.data_elsewhere.clone().unwrap_or_else(beside)
    }

    /// Whether the checkout that it belongs to still holds it.
    pub fn checkout_is_gone(&self) -> bool {
        let file = self.identity.checkout.join(".xtask").join(&self.identity.stack).join("instance.json");
        !matches!(files::read_json::<Identity>(&file), Ok(Some(identity)) if identity.id == self.identity.id)
    }
}

pub fn folder_of(instance: &Instance) -> PathBuf {
    folder().join(&instance.identity.id)
}

/// Notes the instance. Records are added by the servers' launch.
pub fn note(instance: &Instance) -> Result<()> {
    let folder = folder_of(instance);
    let file = folder.join("instance.json");
    if files::read_json::<Identity>(&file)?.as_ref() == Some(&instance.identity) {
        return Ok(());
    }
    files::create_folder(&folder)?;
    files::write_json(&file, &instance.identity)
}

/// The copies of this instance's records.
pub fn records_of(instance: &Instance) -> Vec<Record> {
    entry(&folder_of(instance)).map(|entry| entry.records).unwrap_or_default()
}

/// All instances of this user. What cannot be read is left out: the registry is a help, not the truth.
pub fn entries() -> Vec<Entry> {
    let Ok(folders) = std::fs::read_dir(folder()) else { return Vec::new() };
    folders.flatten().filter_map(|folder| entry(&folder.path())).collect()
}

fn entry(folder: &Path) -> Option<Entry> {
    let identity = files::read_json(&folder.join("instance.json")).ok()??;
    let records = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|file| file.file_name() != "instance.json")
        .filter_map(|file| files::read_json(&file.path()).ok()?)
        .collect();
    Some(Entry { folder: folder.to_owned(), identity, records })
}

/// Forgets an instance.
pub fn forget(folder: &Path) -> Result<()> {
    files::remove_folder(folder)
}
