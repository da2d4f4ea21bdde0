//! Where backups lie: a folder here, or one at a remote. What differs between the two is said here, and, of what
//! becomes a backup or ceases to be one, in [`super::begun`] and [`super::store`].

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use archive::part::{self, Pipe, Shelf};

use super::remote::Remote;
use crate::files;

/// What a person writes before a remote.
const REMOTE: &str = "rclone:";

#[derive(Debug, Clone)]
pub enum Place {
    Folder(PathBuf),
    Remote(Remote),
}

impl Place {
    /// The place that a person names, standing in `from`: a folder, or `rclone:remote:path`.
    pub fn named(name: &Path, from: &Path) -> Result<Place> {
        match name.to_str().and_then(|name| name.strip_prefix(REMOTE)) {
            Some(remote) => Ok(Place::Remote(Remote::new(remote)?)),
            None => Ok(Place::Folder(from.join(name))),
        }
    }

    pub fn join(&self, below: &str) -> Place {
        match self {
            Place::Folder(folder) => Place::Folder(folder.join(below)),
            Place::Remote(remote) => Place::Remote(remote.join(below)),
        }
    }

    /// As a person standing in `from` would write it.
    pub fn shown(&self, from: &Path) -> String {
        match self {
            Place::Folder(folder) => files::relative_to(folder, from).display().to_string(),
            Place::Remote(remote) => remote.to_string(),
        }
    }

    /// The bytes that fit; `None` where nobody says.
    pub fn free_space(&self) -> Option<u64> {
        match self {
            Place::Folder(folder) => files::free_space(folder),
            Place::Remote(_) => None,
        }
    }

    /// A file's bytes.
    pub fn open(&self, file: &str) -> Result<Box<dyn Read + Send>> {
        match self {
            Place::Folder(folder) => {
                let path = folder.join(file);
                let opened = File::open(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
                Ok(Box::new(opened))
            }
            Place::Remote(remote) => remote.join(file).open(),
        }
    }

    /// Makes a file here the same as one of another place of the same sort.
    pub fn take_over(&self, file: &str, from: &Place, theirs: &str) -> Result<()> {
        match (self, from) {
            (Place::Folder(folder), Place::Folder(from)) => {
                Ok(files::link_or_copy(&from.join(theirs), &folder.join(file))?)
            }
            (Place::Remote(remote), Place::Remote(from)) => remote.join(file).copy_from(&from.join(theirs)),
            (place, from) => {
                let mut pipe = place.create(file)?;
                std::io::copy(&mut from.open(theirs)?, &mut pipe)?;
                pipe.finish()
            }
        }
    }

    /// Removes the place and all below it, and the folder around it that has nothing else.
    pub fn remove(&self) -> Result<()> {
        match self {
            Place::Folder(folder) => {
                files::remove_folder(folder)?;
                files::remove_if_empty(folder.parent().unwrap_or(folder));
                Ok(())
            }
            Place::Remote(remote) => remote.remove(),
        }
    }

    /// A small file, whole or not at all where the place can do that.
    pub fn write(&self, file: &str, content: &[u8]) -> Result<()> {
        match self {
            Place::Folder(folder) => files::write_atomically(&folder.join(file), content, 0o600),
            Place::Remote(remote) => remote.join(file).write(content),
        }
    }
}

impl Shelf for Place {
    fn create(&self, file: &str) -> Result<Box<dyn Pipe>> {
        match self {
            Place::Folder(folder) => Ok(Box::new(part::create(&folder.join(file))?)),
            Place::Remote(remote) => remote.join(file).create(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(folder) => folder.display().fmt(formatter),
            Place::Remote(remote) => remote.fmt(formatter),
        }
    }
}
