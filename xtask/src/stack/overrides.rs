//! What a person sets without touching the manifest: process environment over the stack's `.env` file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::env_file::{Assignment, EnvFile};
use super::fault::Faults;
use super::repository::Repository;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Manifest,
    EnvFile { path: PathBuf, line: usize },
    Environment,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Manifest => write!(formatter, "manifest"),
            Source::EnvFile { path, line } => write!(formatter, "{}:{line}", path.display()),
            Source::Environment => write!(formatter, "environment"),
        }
    }
}

#[derive(Debug, Default)]
pub struct Overrides {
    pub env_file: EnvFile,
    pub assignments: Vec<Assignment>,
    process: BTreeMap<String, String>,
}

impl Overrides {
    /// Reads the stack's `.env` file and keeps of the process environment what belongs to this stack.
    ///
    /// `.env` is the default stack's. Tools such as direnv load it into the shell, so a variable of the process that
    /// says the same as `.env` came from there, and means nothing to another stack.
    pub fn read(
        repository: &Repository,
        stack: &str,
        process: &BTreeMap<String, String>,
        faults: &mut Faults,
    ) -> Overrides {
        let env_file = EnvFile::read(&repository.root, &repository.env_file_of(stack), faults);
        let assignments = env_file.assignments(faults);
        let mut process = process.clone();
        // What says the same as the stack's own file came from it, and can be changed there.
        for assignment in &assignments {
            if process.get(&assignment.name) == Some(&assignment.value) {
                process.remove(&assignment.name);
            }
        }
        if stack != repository.default_stack() {
            let default = repository.default_stack();
            let mut ignored = Faults::default();
            let others = EnvFile::read(&repository.root, &repository.env_file_of(default), &mut ignored);
            for other in others.assignments(&mut ignored) {
                if process.get(&other.name) == Some(&other.value) {
                    process.remove(&other.name);
                }
            }
        }
        Overrides { env_file, assignments, process }
    }

    /// The value in effect for a variable, and where it was set. An empty value counts as not set, as in Compose's
    /// `${NAME:-default}`.
    pub fn get(&self, name: &str) -> Option<(&str, Source)> {
        if let Some(value) = self.process.get(name).filter(|value| !value.is_empty()) {
            return Some((value, Source::Environment));
        }
        let found = self.assignments.iter().find(|one| one.name == name && !one.value.is_empty())?;
        Some((&found.value, Source::EnvFile { path: self.env_file.path.clone(), line: found.line }))
    }
}
