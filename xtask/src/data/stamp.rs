//! What tells, without reading a file, that it is still the one that was read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

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

    /// Whether it can no longer change unseen.
    pub fn is_settled(&self) -> bool {
        let latest = self.modified.max(self.changed).0;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(latest).is_ok_and(|latest| Duration::from_secs(latest) + TOO_NEW < now)
    }

    /// For a hash of many.
    pub fn bytes(&self) -> [u8; 48] {
        let Stamp { bytes, inode, modified, changed } = self;
        let mut all = [0; 48];
        let numbers = [*bytes, *inode].map(u64::to_le_bytes);
        let times = [modified.0, modified.1, changed.0, changed.1].map(i64::to_le_bytes);
        for (place, number) in all.chunks_exact_mut(8).zip(numbers.iter().chain(&times)) {
            place.copy_from_slice(number);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_no_longer_change_unseen_is_settled() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let at = |ago: u64| (i64::try_from(now - ago).unwrap(), 5);
        let old = Stamp { bytes: 1, inode: 1, modified: at(100), changed: at(90) };
        assert!(old.is_settled());
        assert!(!Stamp { changed: at(1), ..old }.is_settled() && !Stamp { modified: at(0), ..old }.is_settled());
        for changed in [Stamp { bytes: 2, ..old }, Stamp { inode: 2, ..old }, Stamp { changed: at(50), ..old }] {
            assert_ne!(changed.bytes(), old.bytes());
        }
    }
}
