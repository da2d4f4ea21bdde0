//! Checksums that were computed before. As long as size and times of a file are the same, it is not read again: what is
//! seeded already is found to be so in the time that it takes to ask, however large its files are. A note, never the truth:
//! without it every file is read.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::files::SeedFile;
use crate::files;
use crate::instance::Instance;

/// A file that was changed in this time before it was read may be changed again with the same times: some file systems
/// count in steps of two seconds.
const TOO_NEW: Duration = Duration::from_secs(3);

/// What a file's content does not change without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    bytes: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            bytes: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let latest = self.modified.max(self.changed).0;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(latest).is_ok_and(|latest| Duration::from_secs(latest) + TOO_NEW < now)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    checksum: String,
}

/// By path, from the repository's root.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums(BTreeMap<PathBuf, Known>);

fn path(instance: &Instance) -> PathBuf {
    instance.folder.join("seeds.json")
}

impl Checksums {
    /// A note that cannot be read is none.
    pub fn read(instance: &Instance) -> Checksums {
        files::read_json(&path(instance)).ok().flatten().unwrap_or_default()
    }

    pub fn of(&self, shown: &Path, stamp: &Stamp) -> Option<String> {
        self.0.get(shown).filter(|known| known.stamp == *stamp).map(|known| known.checksum.clone())
    }

    /// Keeps those of files that are read for a while.
    pub fn keep<'a>(mut self, instance: &Instance, seeds: impl Iterator<Item = &'a SeedFile>) -> Result<()> {
        let before = self.clone();
        for seed in seeds.filter(|seed| seed.stamp.is_settled()) {
            let known = Known { stamp: seed.stamp, checksum: seed.checksum.clone() };
            self.0.insert(seed.shown.clone(), known);
        }
        if self == before { Ok(()) } else { files::write_json(&path(instance), &self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_no_longer_change_unseen_is_known() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let at = |ago: u64| (i64::try_from(now - ago).unwrap(), 5);
        let old = Stamp { bytes: 1, inode: 1, modified: at(100), changed: at(90) };
        assert!(old.is_settled());
        assert!(!Stamp { changed: at(1), ..old }.is_settled() && !Stamp { modified: at(0), ..old }.is_settled());
        let known = Known { stamp: old, checksum: "a".into() };
        let known = Checksums(BTreeMap::from([("seeds/0001_a.sql".into(), known)]));
        let of = |path: &str, stamp: Stamp| known.of(Path::new(path), &stamp);
        assert_eq!(of("seeds/0001_a.sql", old).as_deref(), Some("a"));
        assert_eq!(of("seeds/0002_b.sql", old), None);
        for changed in [Stamp { bytes: 2, ..old }, Stamp { inode: 2, ..old }, Stamp { changed: at(50), ..old }] {
            assert_eq!(of("seeds/0001_a.sql", changed), None);
        }
    }
}
