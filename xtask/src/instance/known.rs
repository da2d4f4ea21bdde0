//! What was proven of a running server once and need not be asked of it again while server and files are the same: that is
//! what makes a second `up` quick. A note, never the truth: without it everything is asked anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Instance;
use crate::files;

/// Subject → what it was proven for.
#[derive(Debug, Default, PartialEq, Eq, Clone, Serialize, Deserialize)]
pub struct Known(BTreeMap<String, String>);

fn path(instance: &Instance) -> PathBuf {
    instance.folder.join("known.json")
}

impl Known {
    /// A note that cannot be read is none.
    pub fn read(instance: &Instance) -> Known {
        files::read_json(&path(instance)).ok().flatten().unwrap_or_default()
    }

    pub fn holds(&self, subject: &str, of: &str) -> bool {
        self.of(subject) == Some(of)
    }

    /// What it was proven for.
    pub fn of(&self, subject: &str) -> Option<&str> {
        self.0.get(subject).map(String::as_str)
    }

    pub fn note(&mut self, subject: &str, of: &str) {
        self.0.insert(subject.to_owned(), of.to_owned());
    }

    pub fn write(&self, instance: &Instance) -> Result<()> {
        match *self == Known::read(instance) {
            true => Ok(()),
            false => files::write_json(&path(instance), self),
        }
    }

    /// Forgets everything: something is about to change.
    pub fn forget(instance: &Instance) -> Result<()> {
        files::remove_if_present(&path(instance))
    }
}
