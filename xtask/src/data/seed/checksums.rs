//! Checksums that were computed before. As long as size and times of a file are the same, it is not read again: what is
//! seeded already is found to be so in the time that it takes to ask, however large its files are. A note, never the truth:
//! without it every file is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::files::SeedFile;
use crate::data::stamp::Stamp;
use crate::files;
use crate::instance::Instance;

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
            let Some(checksum) = seed.checksum.clone() else { continue };
            self.0.insert(seed.shown.clone(), Known { stamp: seed.stamp, checksum });
        }
        if self == before { Ok(()) } else { files::write_json(&path(instance), &self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_known_of_the_very_file() {
        let folder = tempfile::tempdir().unwrap();
        let stamp_of = |name: &str| {
            let path = folder.path().join(name);
            files::write_atomically(&path, b"x", 0o600).unwrap();
            Stamp::of(&std::fs::metadata(path).unwrap())
        };
        let stamp = stamp_of("one");
        let known = Known { stamp, checksum: "a".into() };
        let known = Checksums(BTreeMap::from([("seeds/0001_a.sql".into(), known)]));
        let of = |path: &str, stamp: Stamp| known.of(Path::new(path), &stamp);
        assert_eq!(of("seeds/0001_a.sql", stamp).as_deref(), Some("a"));
        assert_eq!(of("seeds/0002_b.sql", stamp), None);
        assert_eq!(of("seeds/0001_a.sql", stamp_of("other")), None);
    }
}
