//! The one door to files that people or other runs of the helper read: reading names the path, writing is atomic.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Why a text file could not be read, in words for a person.
#[derive(Debug)]
pub struct Unreadable {
    pub found: String,
    /// 1-based line of the first byte that is not UTF-8.
    pub line: Option<usize>,
}

/// Reads a whole file that must be UTF-8. A byte order mark is dropped.
pub fn read_text(path: &Path) -> Result<String, Unreadable> {
    let text = read_exactly(path)?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// As [`read_text`], with every byte.
pub fn read_exactly(path: &Path) -> Result<String, Unreadable> {
    let bytes = std::fs::read(path).map_err(|error| Unreadable { found: read_error(&error), line: None })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            Err(Unreadable {
                found: format!("the byte 0x{:02x}, which is not UTF-8", bytes[valid]),
                line: Some(bytes[..valid].iter().filter(|byte| **byte == b'\n').count() + 1),
            })
        }
    }
}

fn read_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "a file that you may not read".into(),
        std::io::ErrorKind::IsADirectory => "a folder".into(),
        _ => error.to_string(),
    }
}

/// Writes a file whole or not at all: beside it, to the disk, then renamed. `mode` is the permission bits.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Owner-only JSON, whole or not at all.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    write_atomically(path, &text, 0o600)
}

/// A JSON file of ours; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("`{}` is not what this helper writes", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// Removes a file; one that is not there is as good.
pub fn remove_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder `{}`", path.display()))
}

/// Sets permission bits.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the permissions of `{}`", path.display()))
}

/// Says that the folders made in this one have nothing to do with each other, as the data of several databases have not. On
/// ext4 each then gets a region of the disk of its own, by its name; in a shared one, making the thousand files of a cluster
/// takes four times as long soon after as many were deleted. Elsewhere, or where it is not allowed, nothing happens.
pub fn keep_apart(folder: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(folder) = std::fs::File::open(folder)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&folder)
    {
        use rustix::fs::IFlags;
        let _no_more_than_a_hint = rustix::fs::ioctl_setflags(&folder, flags | IFlags::TOPDIR);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = folder;
}

/// Removes a folder and all below it; one that is not there is as good.
pub fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a folder in which nothing is.
pub fn remove_if_empty(folder: &Path) {
    // The system removes no other, and says so.
    drop(std::fs::remove_dir(folder));
}

/// How long nobody has written to a folder or anything below it; no time where the system does not say.
pub fn unwritten_for(path: &Path) -> Duration {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Duration::ZERO };
    let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
    let below = metadata.is_dir().then(|| std::fs::read_dir(path)).into_iter().flatten().flatten().flatten();
    below.map(|entry| unwritten_for(&entry.path())).fold(age, Duration::min)
}

/// Makes a file the same as another: a second name of the same bytes, or a copy where the file system has no such names. What
/// had the name before is gone first: its bytes may be another file's as well.
pub fn link_or_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::remove_file(to).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop))
}

/// Puts a folder's entries on the disk: a rename lasts only then.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let synced = std::fs::File::open(folder).and_then(|file| file.sync_all());
    synced.with_context(|| format!("cannot sync `{}`", folder.display()))
}

/// Puts every file below a folder on the disk.
pub fn sync_below(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_below(&path)?,
            false => sync_folder(&path)?,
        }
    }
    sync_folder(folder)
}

/// The bytes that whoever runs the helper may still write to the disk of a folder; `None` where the system does not say.
pub fn free_space(folder: &Path) -> Option<u64> {
    let nearest = folder.ancestors().find(|ancestor| ancestor.exists())?;
    let space = rustix::fs::statvfs(nearest).ok()?;
    Some(space.f_bavail * space.f_frsize)
}

/// Removes the folders in `parent` whose names begin so: what killed runs left.
pub fn remove_leftovers(parent: &Path, prefix: &str) -> Result<()> {
    let entries = std::fs::read_dir(parent).with_context(|| format!("cannot look into `{}`", parent.display()))?;
    for leftover in entries.flatten() {
        if leftover.file_name().to_string_lossy().starts_with(prefix) {
            remove_folder(&leftover.path())?;
        }
    }
    Ok(())
}

/// The bytes below a folder, as the disk holds them.
pub fn size_on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    let below = match metadata.is_dir() {
        true => std::fs::read_dir(path)
            .map(|entries| entries.flatten().map(|entry| size_on_disk(&entry.path())).sum())
            .unwrap_or(0),
        false => 0,
    };
    metadata.blocks() * 512 + below
}

/// Sixteen hexadecimal digits that another list of texts does not have.
pub fn short_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..8])
}

/// A path as a person standing in `from` would write it.
pub fn relative_to(path: &Path, from: &Path) -> PathBuf {
    if let Ok(below) = path.strip_prefix(from) {
        return if below.as_os_str().is_empty() { PathBuf::from(".") } else { below.to_owned() };
    }
    let common = from.ancestors().find(|ancestor| path.starts_with(ancestor));
    match common {
        Some(ancestor) if ancestor != Path::new("/") => {
            let up = from.strip_prefix(ancestor).map(|rest| rest.components().count()).unwrap_or(0);
            let down = path.strip_prefix(ancestor).unwrap_or(path);
            std::iter::repeat_n("..", up).map(PathBuf::from).chain([down.to_owned()]).collect()
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_read_as_typed() {
        let at = Path::new("/home/a/src/effect");
        assert_eq!(relative_to(Path::new("/home/a/src/effect/.env"), at), Path::new(".env"));
        assert_eq!(relative_to(Path::new("/home/a/src/effect-review"), at), Path::new("../effect-review"));
        assert_eq!(relative_to(Path::new("/var/lib/x"), at), Path::new("/var/lib/x"));
    }

    #[test]
    fn a_file_that_is_not_utf8_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_atomically(&path, b"ok\nbad \xff\n", 0o600).unwrap();
        assert_eq!(read_text(&path).unwrap_err().line, Some(2));
    }
}
