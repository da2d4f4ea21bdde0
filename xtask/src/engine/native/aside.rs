//! Data that an upgrade has replaced: a folder beside those of the new server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Native;
use super::servers::data_folder;
use super::start::data_major;
use crate::engine::aside::{Aside, Note};
use crate::files;

/// What the name of such a folder begins with.
const PREFIX: &str = "data-";
/// In the folder: the [`Note`].
const NOTE: &str = "put-aside.json";

impl Native<'_> {
    /// Puts the data of a service that does not run aside, by one rename.
    pub fn put_aside(&self, short_name: &str, note: &Note) -> Result<()> {
        let data = data_folder(self.instance, short_name);
        // Where it was done before an interruption, the data are a new server's.
        if data_major(&data) != Some(note.major) {
            return Ok(());
        }
        files::write_json(&data.join(NOTE), note)?;
        let aside = data.with_file_name(format!("{PREFIX}{}", note.backup));
        std::fs::rename(&data, &aside).with_context(|| format!("cannot put `{}` aside", data.display()))?;
        files::sync_folder(&self.instance.service_folder(short_name))
    }

    /// What was put aside of each service.
    pub fn aside(&self) -> Result<Vec<Aside>> {
        let mut all = Vec::new();
        for service in self.all_services()? {
            for folder in folders(&self.instance.service_folder(&service)) {
                all.push(Aside {
                    service: service.clone(),
                    bytes: Some(files::size_on_disk(&folder)),
                    note: files::read_json(&folder.join(NOTE))?,
                    place: folder.display().to_string(),
                });
            }
        }
        Ok(all)
    }
}

/// Those in the folder of a service, the oldest first.
pub fn folders(service_folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(service_folder).into_iter().flatten().flatten();
    let is_aside = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) && data_major(path).is_some()
    };
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_aside).collect();
    folders.sort();
    folders
}
