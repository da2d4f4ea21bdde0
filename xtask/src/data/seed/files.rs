//! The files of a folder of seeds: what is there, the checksum of each, and everything that is wrong with them at once.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sql::identifier;

use super::checksums::Checksums;
use super::csv;
use super::refused::refused;
use crate::data::stamp::Stamp;
use crate::files;
use crate::stack::fault::Fault;

/// What is read of a file at once, so that memory does not grow with it.
const PIECE: usize = 256 * 1024;
/// An `.sql` file is one message, held in memory here and by the server. More is data, and data is streamed as CSV.
const SQL_LIMIT: u64 = 8_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFile {
    pub name: String,
    pub path: PathBuf,
    /// From the repository's root.
    pub shown: PathBuf,
    pub bytes: u64,
    /// Of one that was not read yet, nothing.
    pub checksum: Option<String>,
    pub kind: Kind,
    /// When it was listed, or read for its checksum.
    pub stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Sql,
    /// The table, as SQL writes it.
    Csv(String),
}

impl SeedFile {
    /// Whether it is no longer the file that the checksum is of.
    pub fn has_changed(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|now| Stamp::of(&now) != self.stamp)
    }
}

/// Whether there is anything in a folder of seeds.
pub fn has_some(root: &Path, folder: &Path) -> Result<bool> {
    Ok(!names(root, folder)?.is_empty())
}

/// What is in a folder, sorted. Hidden files are nobody's seeds; no folder is no seeds.
fn names(root: &Path, folder: &Path) -> Result<Vec<OsString>> {
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The files of a folder in the order of their names. One whose checksum is known is not read, and a CSV file not before
/// somebody asks for it: it may be large, and whoever sends it reads it.
pub fn list(root: &Path, folder: &Path, known: &Checksums, faults: &mut Vec<Fault>) -> Result<Vec<SeedFile>> {
    let place = root.join(folder);
    let names = names(root, folder)?;
    let mut seeds = Vec::new();
    for name in names {
        let shown = folder.join(&name);
        let Some(kind) = name.to_str().and_then(kind_of) else {
            faults.push(fault(
                &shown,
                None,
                "name",
                "a file that is no seed",
                "`NNNN_<what>.sql` or `NNNN_<table>.csv`, four digits or more",
            ));
            continue;
        };
        let path = place.join(&name);
        let metadata = std::fs::metadata(&path).with_context(|| format!("cannot read `{}`", shown.display()))?;
        let stamp = Stamp::of(&metadata);
        let mut seed = SeedFile {
            name: name.to_string_lossy().into_owned(),
            path,
            bytes: metadata.len(),
            checksum: known.of(&shown, &stamp),
            shown,
            kind,
            stamp,
        };
        if seed.kind == Kind::Sql {
            check(&mut seed, faults)?;
            if seed.bytes > SQL_LIMIT {
                let found = format!("{:.0} MB of SQL", seed.bytes as f64 / 1e6);
                let expected = "at most 8 MB: rows in number go into an `NNNN_<table>.csv`, which is streamed";
                faults.push(fault(&seed.shown, None, "size", &found, expected));
            }
        }
        seeds.push(seed);
    }
    Ok(seeds)
}

/// Reads a file for its checksum and its encoding, unless the checksum is known: then both are well.
pub fn check(seed: &mut SeedFile, faults: &mut Vec<Fault>) -> Result<()> {
    if seed.checksum.is_some() {
        return Ok(());
    }
    let read = read(&seed.path).with_context(|| format!("cannot read `{}`", seed.shown.display()))?;
    if let Some(at) = read.bad_byte {
        let (line, found) = (line_of(&seed.path, at), "a byte that is not UTF-8");
        faults.push(fault(&seed.shown, line, "encoding", found, "UTF-8 throughout"));
    }
    (seed.bytes, seed.stamp, seed.checksum) = (read.bytes, read.stamp, Some(read.checksum));
    Ok(())
}

/// What only a look into the files finds: for those that are about to run.
pub fn inspect(seeds: &[SeedFile], faults: &mut Vec<Fault>) -> Result<()> {
    for seed in seeds {
        match seed.kind {
            Kind::Sql => {
                let text = text(seed)?;
                for refused in refused(&text) {
                    faults.push(fault(&seed.shown, Some(refused.line), "statement", &refused.found, refused.expected));
                }
            }
            Kind::Csv(_) => {
                if let Err(found) = csv::header(&seed.path)? {
                    faults.push(fault(&seed.shown, Some(1), "header", &found, "the names of the columns"));
                }
            }
        }
    }
    Ok(())
}

pub fn text(seed: &SeedFile) -> Result<String> {
    let read = files::read_text(&seed.path);
    read.map_err(|unreadable| anyhow::anyhow!("`{}` is {}", seed.shown.display(), unreadable.found))
}

fn fault(file: &Path, line: Option<usize>, key: &str, found: &str, expected: &str) -> Fault {
    let (found, expected) = (found.to_owned(), expected.to_owned());
    Fault { file: file.to_owned(), line, key: key.to_owned(), found, expected, fix: None }
}

fn kind_of(name: &str) -> Option<Kind> {
    let (number, rest) = name.split_once('_')?;
    if number.len() < 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match rest.rsplit_once('.')? {
        ("", _) => None,
        (_, "sql") => Some(Kind::Sql),
        (table, "csv") => Some(Kind::Csv(table.split('.').map(identifier).collect::<Vec<_>>().join("."))),
        _ => None,
    }
}

struct Checked {
    bytes: u64,
    checksum: String,
    stamp: Stamp,
    /// Where the first byte is that is not UTF-8.
    bad_byte: Option<u64>,
}

fn read(path: &Path) -> io::Result<Checked> {
    let stamp = Stamp::of(&std::fs::metadata(path)?);
    let mut file = File::open(path)?;
    let mut hash = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    // What the last piece left of a character that goes on in the next one.
    let mut held = 0;
    let mut bytes = 0;
    let mut bad_byte = None;
    loop {
        let read = file.read(&mut piece[held..])?;
        if read == 0 {
            break;
        }
        hash.update(&piece[held..held + read]);
        let filled = held + read;
        let begin = bytes - held as u64;
        bytes += read as u64;
        held = 0;
        if let Err(error) = std::str::from_utf8(&piece[..filled]) {
            let valid = error.valid_up_to();
            if error.error_len().is_some() {
                bad_byte = bad_byte.or(Some(begin + valid as u64));
            } else {
                piece.copy_within(valid..filled, 0);
                held = filled - valid;
            }
        }
    }
    if held > 0 {
        bad_byte = bad_byte.or(Some(bytes - held as u64));
    }
    let checksum = hash.finalize().to_hex().to_string();
    Ok(Checked { bytes, checksum, stamp, bad_byte })
}

/// The 1-based line of a byte.
fn line_of(path: &Path, at: u64) -> Option<usize> {
    let mut before = BufReader::new(File::open(path).ok()?.take(at));
    let mut line = Vec::new();
    let mut number = 1;
    while before.read_until(b'\n', &mut line).ok()? > 0 {
        number += usize::from(line.ends_with(b"\n"));
        line.clear();
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_seed_is() {
        assert_eq!(kind_of("0001_people.sql"), Some(Kind::Sql));
        assert_eq!(kind_of("0010_users.csv"), Some(Kind::Csv("\"users\"".into())));
        assert_eq!(kind_of("0010_shop.Orders.csv"), Some(Kind::Csv("\"shop\".\"Orders\"".into())));
        for name in ["people.sql", "1_people.sql", "0001_people.txt", "0001_.sql", "0001people.sql"] {
            assert_eq!(kind_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_character_across_two_pieces_is_none_that_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut text = "x".repeat(PIECE - 1) + "語\n" + &"y".repeat(PIECE);
        files::write_atomically(&path, text.as_bytes(), 0o600).unwrap();
        assert_eq!(read(&path).unwrap().bad_byte, None);
        text.push('\n');
        let mut bytes = text.into_bytes();
        let at = bytes.len() as u64;
        bytes.extend(b"ok \xe8\xaa");
        files::write_atomically(&path, &bytes, 0o600).unwrap();
        assert_eq!(read(&path).unwrap().bad_byte, Some(at + 3));
        assert_eq!(line_of(&path, at + 3), Some(3));
    }
}
