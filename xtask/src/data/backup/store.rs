//! All backups of a stack: found, listed, begun and removed. A folder that is being written has another name than a backup
//! has, so nothing that is half there is ever taken for one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use archive::part::{self, Seal};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::begun::{self, Begun, Writer};
use super::manifest::{self, MANIFEST, MANIFEST_HASH, Manifest, Part};
use super::place::Place;
use super::remote::{Entry, Remote};
use crate::files;
use crate::stack::Repository;
use crate::ui::{Exit, Failure, failure};

/// What the folder's name of a backup begins with that is being written.
pub const PARTIAL: &str = ".partial-";
/// What a person calls the latest one.
pub const LATEST: &str = "latest";
/// Nobody takes longer from one part of a backup to the next.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);
const VERIFIED: &str = "verified.json";
const LABEL_LIMIT: usize = 40;
/// How far another clock may be ahead of this one, in seconds, to be waited for.
const LATE_SECS: i64 = 5;

/// All backups of one stack in one place.
#[derive(Debug, Clone)]
pub struct Store {
    pub place: Place,
    /// Where their manifests can be read: the place itself, or a copy of those at a remote.
    folder: PathBuf,
    _copy: Option<Arc<TempDir>>,
}

/// A backup by its place; what it says of itself may be broken.
#[derive(Debug, Clone)]
pub struct Kept {
    pub name: String,
    pub backup: String,
    /// Where its parts lie.
    pub place: Place,
    /// Where its manifest can be read.
    folder: PathBuf,
    _copy: Option<Arc<TempDir>>,
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
    /// `backups/<stack>` of the checkout.
    pub fn of(repository: &Repository, stack: &str) -> Store {
        let folder = repository.root.join("backups").join(stack);
        Store { place: Place::Folder(folder.clone()), folder, _copy: None }
    }

    /// The stack's folder in another place. Of a remote, all manifests are fetched: they are small, and read again and again.
    pub fn at(place: &Place, stack: &str) -> Result<Store> {
        let place = place.join(stack);
        Ok(match &place {
            Place::Folder(folder) => Store { folder: folder.clone(), place, _copy: None },
            Place::Remote(remote) => {
                let copy = tempfile::Builder::new().prefix("xtask-manifests-").tempdir()?;
                let filters = [MANIFEST, MANIFEST_HASH, VERIFIED].map(|file| format!("/*/*/{file}"));
                remote
                    .copy_to(copy.path(), &filters.each_ref().map(String::as_str))
                    .with_context(|| format!("cannot read `{remote}`"))?;
                Store { folder: copy.path().to_owned(), place, _copy: Some(Arc::new(copy)) }
            }
        })
    }

    fn kept(&self, name: &str, backup: &str) -> Kept {
        Kept {
            name: name.to_owned(),
            backup: backup.to_owned(),
            place: self.place.join(name).join(backup),
            folder: self.folder.join(name).join(backup),
            _copy: self._copy.clone(),
        }
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
            if is_backup(&backup) && entry.file_type()?.is_dir() && self.may_be_whole(&entry.path()) {
                kept.push(self.kept(name, &backup));
            }
        }
        kept.sort_by(|one, other| one.backup.cmp(&other.backup));
        Ok(kept)
    }

    /// In a folder a backup has its name once it is whole; at a remote, its manifest is its last file.
    fn may_be_whole(&self, folder: &Path) -> bool {
        match self.place {
            Place::Folder(_) => true,
            Place::Remote(_) => folder.join(MANIFEST).exists(),
        }
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
        if asked == LATEST {
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

    /// Begins a backup, which counts for nothing until [`Begun::keep`].
    pub fn begin(&self, name: &str, backup: &str) -> Result<Begun> {
        Begun::new(self.kept(name, backup))
    }

    /// Removes what the caller has begun, and nobody waits for.
    pub fn abandon(&self, name: &str, backup: &str) {
        begun::abandon(&self.kept(name, backup));
    }

    /// What interrupted backups have left. Only who holds the instance's lock may ask for it; what the helper of another
    /// checkout is writing into the same place is none.
    pub fn partials(&self, names: &[String]) -> Result<Vec<Partial>> {
        let mut partials = match &self.place {
            Place::Folder(folder) => partials_in(folder, names)?,
            Place::Remote(remote) => partials_at(remote, &self.folder, names)?,
        };
        partials.sort_by(|one, other| (&one.name, &one.shown).cmp(&(&other.name, &other.shown)));
        Ok(partials)
    }

    pub fn remove_partials(&self, names: &[String]) -> Result<()> {
        self.partials(names)?.iter().try_for_each(Partial::remove)
    }
}

fn partials_in(folder: &Path, names: &[String]) -> Result<Vec<Partial>> {
    let mut partials = Vec::new();
    for name in names {
        let Ok(entries) = std::fs::read_dir(folder.join(name)) else { continue };
        for entry in entries.flatten() {
            let shown = entry.file_name().to_string_lossy().into_owned();
            // A link to elsewhere is nothing that a backup leaves.
            if shown.starts_with(PARTIAL)
                && entry.file_type()?.is_dir()
                && is_left(begun::writer(&entry.path()), || files::unwritten_for(&entry.path()))
            {
                partials.push(Partial { name: name.clone(), shown, place: Place::Folder(entry.path()) });
            }
        }
    }
    Ok(partials)
}

/// Where nobody can say whether somebody is at work, who is at work writes now and then.
fn is_left(writer: Writer, age: impl FnOnce() -> Duration) -> bool {
    match writer {
        Writer::AtWork => false,
        Writer::Gone => true,
        Writer::Unknown => age() > LEFT_BEHIND,
    }
}

/// At a remote they have the names of backups, and no manifest, or only the begin of one. One that was written to a short
/// while ago may become a backup. The manifests are in `folder`.
fn partials_at(remote: &Remote, folder: &Path, names: &[String]) -> Result<Vec<Partial>> {
    let entries = remote.entries()?;
    let mut partials = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        let Some((name, backup)) = entry.path.split_once('/') else { continue };
        if !names.iter().any(|known| known == name) || !is_backup(backup) {
            continue;
        }
        let below = || entries.iter().filter(|one| one.path.starts_with(&format!("{}/", entry.path)));
        let is_whole = below().any(|one| one.path == format!("{}/{MANIFEST}", entry.path))
            && !is_cut_off(&folder.join(&entry.path));
        let age = below().filter(|one| !one.is_dir).map(Entry::age).min().unwrap_or_else(|| entry.age());
        if !is_whole && age > LEFT_BEHIND {
            let place = Place::Remote(remote.join(&entry.path));
            partials.push(Partial { name: name.to_owned(), shown: backup.to_owned(), place });
        }
    }
    Ok(partials)
}

/// Whether the writing of the manifest was interrupted, so that the backup never was one. What was verified once is damaged,
/// and not for a rule to remove.
fn is_cut_off(folder: &Path) -> bool {
    !folder.join(VERIFIED).exists() && manifest::is_begin(folder)
}

/// What an interrupted run has left.
#[derive(Debug)]
pub struct Partial {
    pub name: String,
    /// The folder's name.
    pub shown: String,
    place: Place,
}

impl Partial {
    pub fn is(&self, kept: &Kept) -> bool {
        (&self.name, &self.shown) == (&kept.name, &kept.backup)
    }

    pub fn remove(&self) -> Result<()> {
        self.place.remove()
    }
}

impl Kept {
    /// What it says of itself; whatever is wrong with that, the backup is broken.
    pub fn manifest(&self) -> Result<Manifest> {
        let manifest = Manifest::read(&self.folder).map_err(|error| self.broken(&[failure::in_a_line(&error)]))?;
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

    /// Says it beside the backup, for everybody who looks there.
    pub fn note_verified(&self, verified: &Verified) -> Result<()> {
        let noted = Noted { verified: verified.clone(), proof: self.proof(verified)? };
        files::write_json(&self.folder.join(VERIFIED), &noted)?;
        match &self.place {
            Place::Folder(_) => Ok(()),
            Place::Remote(_) => self.place.write(VERIFIED, &serde_json::to_vec_pretty(&noted)?),
        }
    }

    fn proof(&self, verified: &Verified) -> Result<String> {
        let hash = std::fs::read(self.folder.join(MANIFEST_HASH))?;
        let (proof, _) = part::digest([hash, serde_json::to_vec(verified)?].concat().as_slice())?;
        Ok(proof)
    }

    /// A backup that turned out to be broken is verified no longer.
    pub fn forget_verified(&self) -> Result<()> {
        let was_verified = self.verified().is_some();
        files::remove_if_present(&self.folder.join(VERIFIED))?;
        match &self.place {
            Place::Remote(remote) if was_verified => remote.join(VERIFIED).remove_file(),
            _ => Ok(()),
        }
    }

    /// A file of it, while it is read.
    pub fn open(&self, file: &str) -> Result<Box<dyn Read + Send>> {
        self.place.open(file)
    }

    /// What a part of it holds.
    pub fn read(&self, file: &str, seal: Option<&dyn Seal>) -> Result<Box<dyn Read>> {
        part::decode(self.open(file)?, seal).with_context(|| format!("cannot read `{file}` of {}", self.shown()))
    }

    /// Says what a part is instead of what was written.
    pub fn prove(&self, part: &Part) -> Result<()> {
        let path = self.folder.join(&part.file);
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        ensure!(!is_link, "`{}` is a link to elsewhere, and no part of the backup", path.display());
        part::prove(&format!("{}/{}", self.place, part.file), self.open(&part.file)?, &part.written())
    }

    /// Makes the manifest of a backup that was just written to a remote readable here.
    pub fn copy_manifest(&self) -> Result<()> {
        begun::create_private(&self.folder)?;
        for file in [MANIFEST, MANIFEST_HASH] {
            let mut text = Vec::new();
            self.open(file)?.read_to_end(&mut text)?;
            files::write_atomically(&self.folder.join(file), &text, 0o600)?;
        }
        self.manifest().map(drop)
    }

    /// When it was taken, by its name.
    pub fn time(&self) -> Option<Timestamp> {
        time_of(&self.backup)
    }

    /// Removes it: first what makes it a backup, so that an interrupted removal leaves no half of one.
    pub fn remove(&self) -> Result<()> {
        match &self.place {
            Place::Folder(folder) => {
                let gone = folder.with_file_name(format!("{PARTIAL}{}", self.backup));
                files::remove_folder(&gone)?;
                std::fs::rename(folder, &gone).with_context(|| format!("cannot remove `{}`", folder.display()))?;
                Place::Folder(gone).remove()
            }
            Place::Remote(remote) => {
                remote.join(MANIFEST).remove_file()?;
                remote.remove()
            }
        }
    }
}

/// `2026-11-22T09-53-43Z`, with the label behind it.
pub fn name_at(time: Timestamp, label: Option<&str>) -> String {
    let time = time.strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    match label {
        Some(label) => format!("{time}-{label}"),
        None => time,
    }
}

/// A name for a second that no member of the set has a backup of yet, so that names sort as times do. It may have to pass.
pub async fn free_name(store: &Store, names: &[String], label: Option<&str>) -> Result<String> {
    let mut taken = Vec::new();
    for name in names {
        taken.extend(store.list(name)?.into_iter().filter_map(|kept| kept.time()));
    }
    loop {
        let now = Timestamp::now();
        let backup = name_at(now, label);
        // Another checkout may be writing to the same place.
        let is_begun = names.iter().any(|name| store.folder.join(name).join(format!("{PARTIAL}{backup}")).exists());
        if !is_begun && taken.iter().all(|time| time.as_second() < now.as_second()) {
            return Ok(backup);
        }
        if taken.iter().any(|time| time.as_second() > now.as_second() + LATE_SECS) {
            bail!(
                Failure::new(Exit::Failed, "there is a backup of a later time than now").hint(
                    "set this machine's clock right, or move that backup away: `cargo xtask backup list` shows it"
                )
            );
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
    fn what_nobody_is_proven_to_have_left_has_its_time() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(is_left(Writer::Gone, || Duration::ZERO));
        assert!(!is_left(Writer::AtWork, || day * 2));
        assert!(!is_left(Writer::Unknown, || day) && is_left(Writer::Unknown, || day * 2));
    }

    #[test]
    fn a_label_is_a_plain_word() {
        assert!(check_label("before-rename_2.0").is_ok());
        for bad in ["", "a b", "../x", "日本", &"x".repeat(41)] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }
}
