//! Where backups lie: found, listed, begun and made whole. A folder that is being written has another name than a backup
//! has, so nothing that is half there is ever taken for one.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST_HASH, Manifest, PARTS};
use crate::files;
use crate::stack::Repository;
use crate::ui::{Exit, Failure};

const PARTIAL: &str = ".partial-";
const VERIFIED: &str = "verified.json";
const LABEL_LIMIT: usize = 40;

/// All backups of one stack in one place.
#[derive(Debug, Clone)]
pub struct Store {
    pub folder: PathBuf,
}

/// A backup by its place; what it says of itself may be broken.
#[derive(Debug, Clone)]
pub struct Kept {
    pub name: String,
    pub backup: String,
    pub folder: PathBuf,
}

/// What `verify` found out, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    pub at: Timestamp,
    /// Whether it was restored, or only read.
    pub was_restored: bool,
}

/// [`Verified`] as a file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    verified: Verified,
    /// BLAKE3 of the hash of the manifest and of what is said of it: neither a flipped bit nor a file of another backup may
    /// claim a verification that never was.
    proof: String,
}

impl Store {
    /// `backups/<stack>` of the checkout, or of another folder.
    pub fn of(repository: &Repository, stack: &str, elsewhere: Option<&Path>) -> Store {
        let folder = elsewhere.map_or_else(|| repository.root.join("backups"), Path::to_owned);
        Store { folder: folder.join(stack) }
    }

    /// The backups of one name, oldest first.
    pub fn list(&self, name: &str) -> Result<Vec<Kept>> {
        let folder = self.folder.join(name);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry?;
            let backup = entry.file_name().to_string_lossy().into_owned();
            if is_backup(&backup) && entry.file_type()?.is_dir() {
                kept.push(Kept { name: name.to_owned(), backup, folder: entry.path() });
            }
        }
        kept.sort_by(|one, other| one.backup.cmp(&other.backup));
        Ok(kept)
    }

    /// Everything that has backups here, by name.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", self.folder.display())),
        };
        let names = entries.flatten().filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    /// The backup of that name that a person means: `latest`, a folder's name, or the begin of one.
    pub fn find(&self, name: &str, asked: &str) -> Result<Kept> {
        let all = self.list(name)?;
        let command = format!("`cargo xtask backup {name}` makes one");
        let Some(latest) = all.last() else {
            bail!(Failure::new(Exit::Failed, format!("there is no backup of `{name}`")).hint(command))
        };
        if asked == "latest" {
            return Ok(latest.clone());
        }
        let fitting: Vec<&Kept> = all.iter().filter(|kept| kept.backup.starts_with(asked)).collect();
        let exact = fitting.iter().find(|kept| kept.backup == asked);
        match (exact, &fitting[..]) {
            (Some(one), _) => Ok((*one).clone()),
            (None, [one]) => Ok((*one).clone()),
            (None, []) => {
                bail!(crate::context::unknown("backup", asked, all.iter().map(|kept| kept.backup.as_str())))
            }
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|kept| kept.backup.as_str()).collect();
                bail!(
                    Failure::new(Exit::Usage, format!("`{asked}` begins several backups of `{name}`"))
                        .body(format!("  {}", names.join("\n  ")))
                )
            }
        }
    }

    /// Begins a backup: a folder that counts for nothing until [`Begun::keep`].
    pub fn begin(&self, name: &str, backup: &str) -> Result<Begun> {
        let folder = self.folder.join(name);
        create_private(&folder)?;
        let partial = folder.join(format!("{PARTIAL}{backup}"));
        create_private(&partial.join(PARTS))?;
        Ok(Begun { partial, whole: folder.join(backup), is_kept: false })
    }

    /// Removes what interrupted backups have left. Only who holds the instance's lock may ask for it.
    pub fn remove_partials(&self, names: &[String]) -> Result<()> {
        for name in names {
            let Ok(entries) = std::fs::read_dir(self.folder.join(name)) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                    files::remove_folder(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

impl Kept {
    /// What it says of itself; whatever is wrong with that, the backup is broken.
    pub fn manifest(&self) -> Result<Manifest> {
        let manifest = Manifest::read(&self.folder).map_err(|error| self.broken(&[format!("{error:#}")]))?;
        if (manifest.name.as_str(), manifest.backup.as_str()) != (self.name.as_str(), self.backup.as_str()) {
            let says = format!("it says that it is backup `{}` of `{}`", manifest.backup, manifest.name);
            return Err(self.broken(&[says]));
        }
        Ok(manifest)
    }

    pub fn broken(&self, faults: &[String]) -> anyhow::Error {
        let title = format!("backup `{}` of `{}` is broken", self.backup, self.name);
        let body = faults.iter().map(|fault| format!("  {fault}\n")).collect::<String>();
        Failure::new(Exit::Found, title).body(body).into()
    }

    /// `learning 2026-11-22T09-53-43Z`.
    pub fn shown(&self) -> String {
        format!("{} {}", self.name, self.backup)
    }

    /// What is known of it; nothing where that file is broken, or is about another backup.
    pub fn verified(&self) -> Option<Verified> {
        let Noted { verified, proof }: Noted = files::read_json(&self.folder.join(VERIFIED)).ok().flatten()?;
        (self.proof(&verified).ok()? == proof).then_some(verified)
    }

    pub fn note_verified(&self, verified: &Verified) -> Result<()> {
        let proof = self.proof(verified)?;
        files::write_json(&self.folder.join(VERIFIED), &Noted { verified: verified.clone(), proof })
    }

    fn proof(&self, verified: &Verified) -> Result<String> {
        let hash = std::fs::read(self.folder.join(MANIFEST_HASH))?;
        let (proof, _) = archive::part::digest([hash, serde_json::to_vec(verified)?].concat().as_slice())?;
        Ok(proof)
    }

    /// A backup that turned out to be broken is verified no longer.
    pub fn forget_verified(&self) -> Result<()> {
        files::remove_if_present(&self.folder.join(VERIFIED))
    }

    /// When it was taken, by its name.
    pub fn time(&self) -> Option<Timestamp> {
        time_of(&self.backup)
    }

    /// Removes it: first its name, so that an interrupted removal leaves no half of a backup.
    pub fn remove(&self) -> Result<()> {
        let gone = self.folder.with_file_name(format!("{PARTIAL}{}", self.backup));
        files::remove_folder(&gone)?;
        std::fs::rename(&self.folder, &gone).with_context(|| format!("cannot remove `{}`", self.folder.display()))?;
        files::remove_folder(&gone)
    }
}

/// A backup that is being written; dropping it removes what is there.
#[derive(Debug)]
pub struct Begun {
    partial: PathBuf,
    whole: PathBuf,
    is_kept: bool,
}

impl Begun {
    pub fn folder(&self) -> &Path {
        &self.partial
    }

    pub fn parts(&self) -> PathBuf {
        self.partial.join(PARTS)
    }

    /// Puts everything on the disk. A backup that is not there after a power cut is no backup.
    pub fn sync(&self) -> Result<()> {
        files::sync_below(&self.partial)
    }

    /// From now on it is a backup.
    pub fn keep(mut self) -> Result<Kept> {
        std::fs::rename(&self.partial, &self.whole)
            .with_context(|| format!("cannot make `{}`", self.whole.display()))?;
        self.is_kept = true;
        let name =
            |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let parent = self.whole.parent();
        if let Some(folder) = parent {
            files::sync_folder(folder)?;
        }
        Ok(Kept { name: name(parent), backup: name(Some(&self.whole)), folder: self.whole.clone() })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_kept {
            // What stays behind, the next backup removes.
            drop(std::fs::remove_dir_all(&self.partial));
        }
    }
}

fn create_private(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))
}

/// `2026-11-22T09-53-43Z`, with the label behind it.
pub fn name_at(time: Timestamp, label: Option<&str>) -> String {
    let time = time.strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    match label {
        Some(label) => format!("{time}-{label}"),
        None => time,
    }
}

/// A name that no member of the set has a backup of yet; its second may have to pass.
pub async fn free_name(store: &Store, names: &[String], label: Option<&str>) -> String {
    loop {
        let backup = name_at(Timestamp::now(), label);
        if names.iter().all(|name| !store.folder.join(name).join(&backup).exists()) {
            return backup;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A label is part of a folder's name.
pub fn check_label(label: &str) -> Result<()> {
    let fits = label.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character));
    if label.is_empty() || label.len() > LABEL_LIMIT || !fits {
        bail!(
            Failure::new(Exit::Usage, format!("`{label}` cannot be a label"))
                .hint(format!("letters, digits, `.`, `_` and `-`, at most {LABEL_LIMIT} of them"))
        );
    }
    Ok(())
}

fn time_of(backup: &str) -> Option<Timestamp> {
    let time = backup.get(..20)?;
    let (date, clock) = time.split_once('T')?;
    format!("{date}T{}", clock.replace('-', ":")).parse().ok()
}

fn is_backup(name: &str) -> bool {
    time_of(name).is_some() && matches!(name.as_bytes().get(20), None | Some(b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_called_by_its_time() {
        let time: Timestamp = "2026-11-22T09:53:43Z".parse().unwrap();
        assert_eq!(name_at(time, Some("before-rename")), "2026-11-22T09-53-43Z-before-rename");
        assert_eq!(time_of(&name_at(time, Some("x"))), Some(time));
        assert!(is_backup("2026-11-22T09-53-43Z") && is_backup("2026-11-22T09-53-43Z-a"));
        for other in [".partial-2026-11-22T09-53-43Z", "2026-11-22", "2026-11-22T09-53-43Zx", "notes", "äöüäöüäöüäöü"]
        {
            assert!(!is_backup(other), "{other}");
        }
    }

    #[test]
    fn a_label_is_a_plain_word() {
        assert!(check_label("before-rename_2.0").is_ok());
        for bad in ["", "a b", "../x", "日本", &"x".repeat(41)] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }
}
