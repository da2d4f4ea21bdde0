//! What a backup says of itself: `manifest.json`, and beside it the manifest's own BLAKE3 in the form that `b3sum --check`
//! reads. A part, a manifest or a hash that is not what was written makes the whole backup one that does not verify.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use archive::content::Content;
use archive::part::Written;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::ui::units;

/// Of the manifest. A newer one is refused, never guessed at.
pub const FORMAT: u32 = 2;
/// The oldest that is still read: it has no [`Origin`].
const OLDEST_FORMAT: u32 = 1;
pub const MANIFEST: &str = "manifest.json";
pub const MANIFEST_HASH: &str = "manifest.json.b3";
/// The folder of the parts.
pub const PARTS: &str = "parts";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub stack: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// A database as a person says it, `redis`, or `pubsub`.
    pub name: String,
    /// The folder's name.
    pub backup: String,
    pub label: Option<String>,
    /// The moment of the cut.
    pub taken: Timestamp,
    pub seconds: f64,
    pub set: Set,
    /// The version of the helper.
    pub helper: String,
    pub server_version: String,
    /// Whether parts can be read with the identity of a recipient only.
    pub is_encrypted: bool,
    /// The public keys that it is encrypted for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    pub parts: Vec<Part>,
    pub subject: Subject,
}

/// Where a backup comes from. Several may keep theirs in one place; those of one origin are one series, whatever became of
/// the instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The first word of its host name: the rest may change with the network.
    pub machine: String,
    pub checkout: String,
}

impl Origin {
    /// This machine's checkout.
    pub fn here(checkout: &Path) -> Origin {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let machine = name.split('.').next().unwrap_or_default().to_owned();
        Origin { machine, checkout: checkout.display().to_string() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.machine, self.checkout)
    }
}

/// Those that were taken in one cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    pub members: Vec<String>,
    /// Between the first and the last member's moment.
    pub skew_micros: u64,
}

/// One file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub file: String,
    pub bytes: u64,
    pub raw_bytes: u64,
    pub blake3: String,
    /// The earlier backup that it was taken over from, where it was not written anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Part {
    pub fn new(file: impl Into<String>, written: Written) -> Part {
        Part {
            file: file.into(),
            bytes: written.bytes,
            raw_bytes: written.raw_bytes,
            blake3: written.blake3,
            from: None,
        }
    }

    pub fn written(&self) -> Written {
        Written { bytes: self.bytes, raw_bytes: self.raw_bytes, blake3: self.blake3.clone() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a backup")]
pub enum Subject {
    Database(Database),
    Redis(Redis),
    PubSub(PubSub),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// As the server calls it.
    pub database: String,
    pub encoding: String,
    /// Of the server's cluster; copies of one template share it.
    pub system_identifier: String,
    pub pg_dump_version: String,
    /// Of the database on the server's disk, indexes included.
    pub size_bytes: u64,
    /// The part with the dump's table of contents.
    pub head: String,
    pub tables: Vec<Table>,
    pub large_objects: Vec<LargeObjects>,
    pub sequences: Vec<Sequence>,
    pub extensions: Vec<Extension>,
    pub migrations: Vec<History>,
    /// Roles that own something, have a right or a setting in it or on it. A server's first role counts for none.
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

/// What the server saw at the cut. Two cuts with the same standing saw the same rows in every table: in one database and one
/// run of its server the same transactions were visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Within what the numbers of transactions mean the same, and rows read the same: when the server and its checkpointer
    /// began (the latter is also renewed where the server recovers from a crash), which database it is, whatever its name,
    /// and with which settings rows are read.
    pub within: String,
    /// As `pg_current_snapshot()` gives it, with numbers that never wrap around.
    pub snapshot: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub dump_id: i64,
    pub schema: String,
    pub name: String,
    pub part: String,
    #[serde(flatten)]
    pub evidence: Evidence,
    /// What the server counts of its changes: the same again makes it likely, and no more, that its rows are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<String>,
}

/// Large objects that have one owner and the same rights, as pg_dump groups them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargeObjects {
    pub dump_id: i64,
    pub part: String,
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// [`Content`] as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub rows: u64,
    /// The sum of the rows' hashes, in hexadecimal.
    pub content: String,
}

impl From<Content> for Evidence {
    fn from(content: Content) -> Evidence {
        Evidence { rows: content.rows, content: format!("{:032x}", content.hash) }
    }
}

/// What is no hash is none that anything has.
impl From<&Evidence> for Content {
    fn from(evidence: &Evidence) -> Content {
        Content { rows: evidence.rows, hash: u128::from_str_radix(&evidence.content, 16).unwrap_or_default() }
    }
}

/// What the dump sets a sequence to, as it says it: `42, true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    pub schema: String,
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    pub name: String,
    pub version: String,
}

/// What was applied, by the table that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub table: String,
    pub versions: Vec<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub keys: u64,
    /// Those of the keys that end by themselves.
    pub expiring: u64,
    pub part: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PubSub {
    pub project: String,
    pub topics: Vec<String>,
    pub subscriptions: Vec<Subscription>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    pub id: String,
    pub topic: String,
    pub ordering: bool,
}

impl Manifest {
    pub fn database(&self) -> Option<&Database> {
        match &self.subject {
            Subject::Database(database) => Some(database),
            _ => None,
        }
    }

    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Of the files that were written for it, and not taken over.
    pub fn new_bytes(&self) -> u64 {
        self.parts.iter().filter(|part| part.from.is_none()).map(|part| part.bytes).sum()
    }

    /// `3 of 7 tables unchanged`, of a database.
    pub fn taken_over(&self) -> Option<String> {
        let tables = &self.database()?.tables;
        let is_taken_over = |table: &&Table| self.part(&table.part).is_ok_and(|part| part.from.is_some());
        let count = tables.iter().filter(is_taken_over).count();
        Some(format!("{count} of {} unchanged", units::plural(tables.len(), "table")))
    }

    /// Of all tables.
    pub fn rows(&self) -> u64 {
        self.database().map_or(0, |database| database.tables.iter().map(|table| table.evidence.rows).sum())
    }

    pub fn part(&self, file: &str) -> Result<&Part> {
        self.parts.iter().find(|part| part.file == file).with_context(|| format!("there is no part `{file}`"))
    }

    /// As it is written.
    pub fn text(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads and proves the manifest of a backup's folder.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST);
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
        let (text, line) = (read(&path)?, read(&folder.join(MANIFEST_HASH))?);
        if line != hash_line(&text)?.as_bytes() {
            bail!("`{}` is not what was written: its BLAKE3 differs from that in `{MANIFEST_HASH}`", path.display());
        }
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version =
            serde_json::from_slice(&text).with_context(|| format!("`{}` is no manifest", path.display()))?;
        ensure!(
            (OLDEST_FORMAT..=FORMAT).contains(&version.format),
            "`{}` has format {}, and this helper knows {OLDEST_FORMAT} to {FORMAT}: use the one that made it",
            path.display(),
            version.format
        );
        let manifest: Manifest =
            serde_json::from_slice(&text).with_context(|| format!("`{}` is no manifest", path.display()))?;
        for part in &manifest.parts {
            let is_inside =
                Path::new(&part.file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            ensure!(is_inside, "`{}` names a part outside of the backup: `{}`", path.display(), part.file);
        }
        Ok(manifest)
    }
}

/// Whether the manifest in that folder is no more than the begin of the one that was to be written.
pub fn is_begin(folder: &Path) -> bool {
    let (text, line) = (std::fs::read(folder.join(MANIFEST)), std::fs::read(folder.join(MANIFEST_HASH)));
    let (Ok(text), Ok(line)) = (text, line) else { return false };
    hash_line(&text).is_ok_and(|hash| hash.as_bytes() != line)
        && serde_json::from_slice::<IgnoredAny>(&text).is_err_and(|error| error.is_eof())
}

/// The text's hash, as the file beside it says it.
pub fn hash_line(text: &[u8]) -> Result<String> {
    let (blake3, _) = archive::part::digest(text)?;
    Ok(format!("{blake3}  {MANIFEST}\n"))
}
