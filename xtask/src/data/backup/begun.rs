//! A backup that is being written. It counts for nothing until its last step, which is one that happens or does not: a rename in
//! a folder, the writing of the manifest at a remote.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use archive::part::{self, Pipe, Shelf};

use super::manifest::{MANIFEST, MANIFEST_HASH, Manifest, PARTS, hash_line};
use super::place::Place;
use super::store::{Kept, PARTIAL};
use super::verify;
use crate::files;

/// How often a folder is removed that somebody still writes to.
const ATTEMPTS: usize = 10;

/// Dropping it removes what is there.
#[derive(Debug)]
pub struct Begun {
    kept: Kept,
    /// Where it is written until it is whole.
    place: Place,
    /// Says to others that somebody is at it.
    #[expect(dead_code, reason = "its being open is its use")]
    claim: Option<File>,
    manifest: Vec<u8>,
    is_kept: bool,
}

impl Begun {
    /// Begins what will be `kept`.
    pub fn new(kept: Kept) -> Result<Begun> {
        let (place, claim) = match &kept.place {
            Place::Folder(whole) => {
                let partial = partial(whole, &kept.backup);
                create_private(whole.parent().unwrap_or(whole))?;
                let made = DirBuilder::new().mode(0o700).create(&partial);
                made.with_context(|| format!("cannot make the folder `{}`", partial.display()))?;
                let claim = claim(&partial);
                create_private(&partial.join(PARTS))?;
                (Place::Folder(partial), claim)
            }
            Place::Remote(remote) => {
                if !remote.entries()?.is_empty() {
                    bail!("somebody is writing to `{remote}` at the same time");
                }
                (kept.place.clone(), None)
            }
        };
        Ok(Begun { kept, place, claim, manifest: Vec::new(), is_kept: false })
    }

    /// Whether a file that is taken over needs no room.
    pub fn has_links(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// Makes a file the same as one of an earlier backup, in place of what was written there.
    pub fn take_over(&self, file: &str, from: &Place, theirs: &str) -> Result<()> {
        self.place.take_over(file, from, theirs)
    }

    /// Puts everything but the last step where it lasts. A backup that is not there after a power cut is none, nor is one that
    /// a remote gives back otherwise than it took it.
    pub fn settle(&mut self, manifest: &Manifest) -> Result<()> {
        self.manifest = manifest.text()?;
        let line = hash_line(&self.manifest)?;
        match &self.place {
            Place::Folder(partial) => {
                self.place.write(MANIFEST, &self.manifest)?;
                self.place.write(MANIFEST_HASH, line.as_bytes())?;
                files::sync_below(partial)
            }
            Place::Remote(remote) => {
                let faults = verify::each(&manifest.parts, |part| {
                    part::prove(&part.file, self.place.open(&part.file)?, &part.written())
                });
                ensure!(faults.is_empty(), "`{remote}` does not hold what was written:\n  {}", faults.join("\n  "));
                self.place.write(MANIFEST_HASH, line.as_bytes())
            }
        }
    }

    /// The last step.
    pub fn keep(mut self) -> Result<Kept> {
        match (&self.place, &self.kept.place) {
            (Place::Folder(partial), Place::Folder(whole)) => {
                std::fs::rename(partial, whole).with_context(|| format!("cannot make `{}`", whole.display()))?;
                self.is_kept = true;
                files::sync_folder(whole.parent().unwrap_or(whole))?;
            }
            (place, _) => {
                place.write(MANIFEST, &self.manifest)?;
                self.is_kept = true;
                self.kept.copy_manifest()?;
            }
        }
        Ok(self.kept.clone())
    }
}

impl Shelf for Begun {
    fn create(&self, file: &str) -> Result<Box<dyn Pipe>> {
        self.place.create(file)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_kept {
            // What stays behind, the next backup or `prune` removes.
            drop(self.place.remove());
        }
    }
}

fn partial(whole: &Path, backup: &str) -> PathBuf {
    whole.with_file_name(format!("{PARTIAL}{backup}"))
}

/// Removes what was begun, though a thread may still write to it that nobody waits for: in a folder that is gone it makes no
/// file any more.
pub fn abandon(kept: &Kept) {
    if let Place::Folder(whole) = &kept.place {
        // A file that was made after the folder was read keeps it; what stays behind, the next backup or `prune` removes.
        let begun = Place::Folder(partial(whole, &kept.backup));
        let _is_gone = (0..ATTEMPTS).any(|_| begun.remove().is_ok());
    }
}

/// Who began a backup, as its folder's lock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    AtWork,
    Gone,
    /// The file system has no locks.
    Unknown,
}

/// Locks a folder until the file is dropped. Where the file system cannot do that, its age has to tell.
fn claim(folder: &Path) -> Option<File> {
    File::open(folder).ok().filter(|folder| folder.try_lock().is_ok())
}

/// Whether somebody is writing a backup in the folder.
pub fn writer(folder: &Path) -> Writer {
    match File::open(folder).map(|folder| folder.try_lock()) {
        Ok(Ok(())) => Writer::Gone,
        Ok(Err(TryLockError::WouldBlock)) => Writer::AtWork,
        Ok(Err(TryLockError::Error(_))) | Err(_) => Writer::Unknown,
    }
}

pub fn create_private(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder `{}`", folder.display()))
}
