//! Migrations as their files say them. Format and names are sqlx's; what sqlx would pass over in silence is a fault here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;
use sha2::{Digest, Sha384};

use super::fault::{Fault, FaultKind};
use super::script::{self, Reading};
use crate::data::stamp::Stamp;
use crate::files;

/// One folder of migrations, with the table that remembers which of them were applied.
#[derive(Debug, Clone)]
pub struct Source {
    /// Relative to the repository's root.
    pub folder: PathBuf,
    pub table: String,
    /// By version.
    pub migrations: Vec<Migration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub version: i64,
    pub description: String,
    pub up: Script,
    /// What undoes it; a migration of a single file has none.
    pub down: Option<Script>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Relative to the repository's root.
    pub path: PathBuf,
    pub text: String,
    /// Of the file's bytes, as sqlx computes it, in hexadecimal.
    pub checksum: String,
    /// It must not run in a transaction.
    pub no_transaction: bool,
    /// Done when somebody asks: a file that was applied long ago is not searched.
    reading: OnceLock<Reading>,
}

impl Script {
    pub fn new(path: PathBuf, text: String) -> Script {
        let checksum = hex::encode(Sha384::digest(&text));
        let no_transaction = text.starts_with(script::NO_TRANSACTION);
        Script { path, text, checksum, no_transaction, reading: OnceLock::new() }
    }

    pub fn reading(&self) -> &Reading {
        self.reading.get_or_init(|| script::read(&self.text))
    }
}

/// What tells, without reading them, that the files of these folders are the same as before: their names and stamps. Nothing
/// where some are so new that they may still change unseen.
pub fn state(root: &Path, folders: &[PathBuf]) -> Result<Option<String>> {
    let mut hash = blake3::Hasher::new();
    for folder in folders {
        hash.update(folder.as_os_str().as_bytes()).update(&[0]);
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        let mut entries: Vec<DirEntry> = entries.collect::<Result<_, std::io::Error>>()?;
        entries.sort_by_cached_key(DirEntry::file_name);
        for entry in entries {
            // Of a link, its target counts.
            let metadata = entry.metadata().and_then(|metadata| match metadata.is_symlink() {
                true => std::fs::metadata(entry.path()),
                false => Ok(metadata),
            });
            let stamp = metadata.map(|metadata| Stamp::of(&metadata));
            let Some(stamp) = stamp.ok().filter(Stamp::is_settled) else { return Ok(None) };
            hash.update(entry.file_name().as_bytes()).update(&[0]).update(&stamp.bytes());
        }
    }
    Ok(Some(hash.finalize().to_hex().to_string()))
}

/// The table of sqlx, for the first source of a database.
pub const HISTORY: &str = "_sqlx_migrations";

/// The history table of each source. The first has sqlx's own; every other's is named after its folder, `migrations`
/// itself left out: `services/billing/migrations` has `_sqlx_migrations_billing`. A service says the same in its `sqlx.toml`.
pub fn tables(folders: &[PathBuf]) -> Vec<String> {
    let named = folders.iter().enumerate().map(|(index, folder)| {
        let parts: Vec<&str> = folder.iter().filter_map(|part| part.to_str()).collect();
        let name = parts.iter().rev().find(|part| **part != "migrations");
        match (index, name) {
            (0, _) | (_, None) => HISTORY.to_owned(),
            (_, Some(name)) => {
                let name = name.to_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "_");
                format!("{HISTORY}_{name}")
            }
        }
    });
    named.collect()
}

/// Reads all sources of a database. Everything that is wrong with the files is told at once.
pub fn read(root: &Path, database: &str, folders: &[PathBuf]) -> (Vec<Source>, Vec<Fault>) {
    let mut faults = Vec::new();
    let tables = tables(folders);
    let sources = folders.iter().zip(&tables).map(|(folder, table)| {
        let migrations = read_folder(root, folder, database, &mut faults);
        Source { folder: folder.clone(), table: table.clone(), migrations }
    });
    let sources: Vec<Source> = sources.collect();
    for (index, table) in tables.iter().enumerate() {
        if let Some(other) = tables[..index].iter().position(|other| other == table) {
            faults.push(shared_table(database, &sources[other], &sources[index]));
        }
    }
    (sources, faults)
}

/// Two sources whose folders give them one table: what they clash on, if they do.
fn shared_table(database: &str, first: &Source, second: &Source) -> Fault {
    let versions = |source: &Source| source.migrations.iter().map(|one| one.version).collect::<Vec<_>>();
    let clash: Vec<String> =
        versions(first).into_iter().filter(|one| versions(second).contains(one)).map(|one| one.to_string()).collect();
    let clash = match clash.is_empty() {
        true => String::new(),
        false => format!(", and both have {}", clash.join(", ")),
    };
    Fault {
        database: database.to_owned(),
        kind: FaultKind::Duplicate,
        version: None,
        files: vec![first.folder.clone(), second.folder.clone()],
        what: format!("two sources would share the table `{}`{clash}", first.table),
        detail: String::new(),
        fix: "give one of the folders another name".into(),
    }
}

/// The parts of a file name.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    version: i64,
    description: String,
    is_down: bool,
}

/// As sqlx reads it: `<version>_<description>.sql`, `.up.sql` or `.down.sql`.
fn parse(name: &str) -> Result<Name, String> {
    let expected = "expected is `<version>_<name>.up.sql`, `.down.sql` or `.sql`";
    let (version, rest) = name.split_once('_').ok_or_else(|| format!("has no version; {expected}"))?;
    if !rest.ends_with(".sql") {
        return Err(format!("is not SQL; {expected}"));
    }
    let number: i64 = version.parse().map_err(|_| format!("has `{version}` for a version, which is no number"))?;
    if number <= 0 {
        return Err(format!("has the version {number}; versions begin at 1"));
    }
    let is_down = rest.ends_with(".down.sql");
    let suffix = if is_down {
        ".down.sql"
    } else if rest.ends_with(".up.sql") {
        ".up.sql"
    } else {
        ".sql"
    };
    Ok(Name { version: number, description: rest.trim_end_matches(suffix).replace('_', " "), is_down })
}

fn read_folder(root: &Path, folder: &Path, database: &str, faults: &mut Vec<Fault>) -> Vec<Migration> {
    let fault = |kind: FaultKind, files: Vec<PathBuf>, what: String, fix: String| Fault {
        database: database.to_owned(),
        kind,
        version: None,
        files,
        what,
        detail: String::new(),
        fix,
    };
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) => {
            let fix = format!("`cargo xtask migrate new {database} <name>` makes the folder and a first migration");
            faults.push(fault(FaultKind::Unreadable, vec![folder.to_owned()], format!("cannot be read: {error}"), fix));
            return Vec::new();
        }
    };
    // Of most entries the folder says itself what they are; a link's target is looked at.
    let is_folder = |entry: &DirEntry| match entry.file_type() {
        Ok(kind) if !kind.is_symlink() => kind.is_dir(),
        _ => entry.path().is_dir(),
    };
    let mut names: Vec<(OsString, bool)> =
        entries.flatten().map(|entry| (entry.file_name(), is_folder(&entry))).collect();
    names.sort();
    let mut ups: BTreeMap<i64, (String, Vec<Script>)> = BTreeMap::new();
    let mut downs: BTreeMap<i64, Vec<Script>> = BTreeMap::new();
    for (name, is_folder) in names {
        let (path, name) = (folder.join(&name), name.to_string_lossy().into_owned());
        // What people and editors keep in any folder.
        if name.starts_with('.') || name.ends_with(".md") || name.ends_with('~') {
            continue;
        }
        let parsed = match is_folder {
            true => Err("is a folder".to_owned()),
            false => parse(&name),
        };
        let read = parsed.map_err(|what| (FaultKind::NotAMigration, what)).and_then(|parsed| {
            let unreadable = |error: files::Unreadable| (FaultKind::Unreadable, format!("holds {}", error.found));
            Ok((parsed, files::read_exactly(&root.join(&path)).map_err(unreadable)?))
        });
        match read {
            Err((kind, what)) => {
                faults.push(fault(kind, vec![path], what, "rename it, or move it out of the folder".into()));
            }
            Ok((_, text)) if text.starts_with('\u{feff}') => {
                let what = "begins with a byte order mark, which PostgreSQL does not read".to_owned();
                faults.push(fault(FaultKind::Unreadable, vec![path], what, "save it as UTF-8 without one".into()));
            }
            Ok((name, text)) if name.is_down => {
                downs.entry(name.version).or_default().push(Script::new(path, text));
            }
            Ok((name, text)) => {
                let entry = ups.entry(name.version).or_insert((name.description, Vec::new()));
                entry.1.push(Script::new(path, text));
            }
        }
    }
    let every_down = downs.iter().map(|(version, scripts)| (*version, scripts, true));
    let every_up = ups.iter().map(|(version, (_, scripts))| (*version, scripts, false));
    for (version, scripts, is_down) in every_up.chain(every_down) {
        let paths = || scripts.iter().map(|script| script.path.clone()).collect::<Vec<_>>();
        if scripts.len() > 1 {
            let what = format!("have one version, {version}");
            let fix = "rename one of them to a version that is free".into();
            faults.push(Fault { version: Some(version), ..fault(FaultKind::Duplicate, paths(), what, fix) });
        }
        if is_down && !ups.contains_key(&version) {
            let fix = "bring the `.up.sql` file back, or remove this one".into();
            let what = "undoes a migration that is not there".into();
            faults.push(Fault { version: Some(version), ..fault(FaultKind::NotAMigration, paths(), what, fix) });
        }
    }
    let migrations = ups.into_iter().filter_map(|(version, (description, scripts))| {
        let up = scripts.into_iter().next()?;
        let down = downs.remove(&version).and_then(|downs| downs.into_iter().next());
        Some(Migration { version, description, up, down })
    });
    migrations.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sqlx_reads_them() {
        let name = |version, description: &str, is_down| Name { version, description: description.into(), is_down };
        assert_eq!(parse("1_a_b.sql").unwrap(), name(1, "a b", false));
        assert_eq!(parse("0002_a.up.sql").unwrap(), name(2, "a", false));
        assert_eq!(parse("20251103090000_a.down.sql").unwrap(), name(20_251_103_090_000, "a", true));
        for wrong in ["notes.sql", "1_a.txt", "x_a.sql", "0_a.sql"] {
            parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn each_source_has_a_table_of_its_own() {
        let folders: Vec<PathBuf> =
            ["services/a/migrations", "services/b-2/migrations", "more/c"].map(PathBuf::from).to_vec();
        assert_eq!(tables(&folders), ["_sqlx_migrations", "_sqlx_migrations_b_2", "_sqlx_migrations_c"]);
    }
}
