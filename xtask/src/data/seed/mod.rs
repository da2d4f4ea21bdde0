//! Seeds: the rows that a new database begins with, the same on every machine.
//!
//! A database's seeds are the files of one folder, run in the order of their names, in one transaction on one connection:
//! what one file makes for the transaction (temporary tables, `SET LOCAL`), the next may use. `NNNN_<what>.sql` is sent as
//! one message, `NNNN_<table>.csv` goes through COPY in pieces, a large one before the indexes of its table are made. All
//! databases run at once, and none commits before all have succeeded; what is left open is the moment of the commits
//! themselves, which are sent together: who is killed in it may leave some databases with all their seeds and others with
//! none, and the next run does the others.
//!
//! What ran is recorded in the same transaction, in `_xtask_seeds`, so that a second run has nothing to do. The folder is
//! the unit: files build on each other, so one that changed means all of them again, in emptied tables. Since that
//! destroys rows, it needs `--again`, and without it the run is refused (exit code 4).
//!
//! Seeds read their size with `current_setting('xtask.scale')::integer`.

pub mod checksums;
pub mod csv;
pub mod files;
pub mod indexes;
pub mod record;
pub mod refused;
pub mod run;
pub mod trouble;

use super::target::Target;
use files::SeedFile;
use record::Recorded;

/// One database with its seeds, and what is known of both.
#[derive(Debug)]
pub struct Job<'a> {
    pub target: Target<'a>,
    pub files: Vec<SeedFile>,
    pub recorded: Recorded,
    pub scale: u32,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No seed has run, or the tables of those that have are gone.
    Fresh,
    /// These very seeds have run.
    Same,
    /// Others have run; the differences.
    Changed(Vec<String>),
}

impl State {
    /// Whatever the files are.
    pub fn is_fresh(recorded: &Recorded) -> bool {
        let entries = &recorded.entries;
        entries.is_empty() || entries.iter().any(|entry| entry.filled > 0) && recorded.tables().next().is_none()
    }

    /// Files that were not read yet count as changed: they are to be read before, unless all is [fresh](Self::is_fresh).
    pub fn of(files: &[SeedFile], recorded: &Recorded, scale: u32) -> State {
        let entries = &recorded.entries;
        if State::is_fresh(recorded) {
            return State::Fresh;
        }
        let mut differences = Vec::new();
        for file in files {
            match entries.iter().find(|entry| entry.file == file.name) {
                None => differences.push(format!("`{}` is new", file.name)),
                Some(entry) if Some(&entry.checksum) != file.checksum.as_ref() => {
                    differences.push(format!("`{}` was changed", file.name));
                }
                Some(_) => {}
            }
        }
        for entry in entries {
            if !files.iter().any(|file| file.name == entry.file) {
                differences.push(format!("`{}` is gone", entry.file));
            }
            if entry.tables.len() < entry.filled {
                differences.push(format!("a table that `{}` filled is gone", entry.file));
            }
        }
        if let Some(before) = entries.iter().map(|entry| entry.scale).find(|before| *before != scale) {
            differences.push(format!("the scale was {before}, and {scale} is asked for"));
        }
        if differences.is_empty() { State::Same } else { State::Changed(differences) }
    }
}
