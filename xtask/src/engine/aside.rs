//! Data that an upgrade has replaced, kept until somebody drops them.

use serde::{Deserialize, Serialize};

/// What is written down with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub major: u32,
    /// The backup that was made of them. They are named after it: no other upgrade has one of that name.
    pub backup: String,
    /// What this backup does not have.
    #[serde(default)]
    pub behind: Vec<Behind>,
}

/// A database that an upgrade does not move: it stays behind in the old data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// As the server calls it.
    pub database: String,
    pub bytes: u64,
}

/// Where they are now.
#[derive(Debug, Clone)]
pub struct Aside {
    /// As a person says it.
    pub service: String,
    /// A folder, or a volume.
    pub place: String,
    pub bytes: Option<u64>,
    /// Earlier versions of the helper wrote none.
    pub note: Option<Note>,
}
