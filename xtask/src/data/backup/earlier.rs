//! What an incremental backup takes over from the latest one before it.
//!
//! Nothing is taken over on trust. Either the server proves that no table can have changed: the same transactions are visible
//! to both cuts, and the sequences stand where they stood. Or it proves that of [one table](super::unchanged), which is still
//! the same file of the server's. Or the table is read and hashed again, and its hash is the earlier one; what the server
//! counts of changes only tells which tables are worth reading before they are written. A part is proven by its own hash before it is
//! taken over, and taken over as a link to the same bytes: the earlier backup may go, and this one still has them.

use std::collections::HashSet;

use anyhow::{Context, Result};
use archive::content::Content;
use archive::custom::Entry;
use archive::split::Treatment;

use super::begun::Begun;
use super::cut::Facts;
use super::manifest::{Database, Evidence, Manifest, Part, Subject, Table};
use super::store::{Kept, Store};
use super::unchanged::{Candidate, Span};

/// The only encoding in which a name is the same to every program.
const ENCODING: &str = "UTF8";

/// From so many bytes on the server is asked to prove that a table is unchanged; below, reading it is as quick.
const WORTH_PROVING: u64 = 256 << 10;

/// A backup whose parts may be taken over.
#[derive(Debug, Clone)]
pub struct Earlier {
    kept: Kept,
    manifest: Manifest,
    pub database: Database,
    /// The parts that are what was written.
    sound: HashSet<String>,
}

impl Earlier {
    /// The latest backup of that name, if it is one of the same database of the same server version, for the same
    /// recipients. It reads all its files.
    pub fn find(store: &Store, name: &str, database: &str, facts: &Facts, recipients: &[String]) -> Option<Earlier> {
        let all = store.list(name).ok()?;
        let (kept, manifest) =
            all.into_iter().rev().find_map(|kept| kept.manifest().ok().map(|found| (kept, found)))?;
        let Subject::Database(subject) = &manifest.subject else { return None };
        let is_alike = subject.database == database
            && subject.encoding == facts.encoding
            && subject.encoding == ENCODING
            && manifest.server_version == facts.server_version
            && subject.system_identifier == facts.system_identifier
            && manifest.recipients == recipients;
        let subject = subject.clone();
        is_alike.then(|| {
            let is_sound = |part: &&Part| kept.prove(part).is_ok();
            let sound = manifest.parts.iter().filter(is_sound).map(|part| part.file.clone()).collect();
            Earlier { kept, manifest, database: subject, sound }
        })
    }

    /// Whether every table is proven to hold what it held then. `sequences` is what those of the earlier backup stand at.
    pub fn is_same(&self, facts: &Facts, sequences: &[String]) -> bool {
        let then = self.database.sequences.iter().map(|sequence| &sequence.value);
        self.may_be_same(facts) && then.eq(sequences) && self.manifest.parts.len() == self.sound.len()
    }

    /// As [`is_same`](Self::is_same), before anybody asked the sequences.
    pub fn may_be_same(&self, facts: &Facts) -> bool {
        facts.standing.is_some() && facts.standing == self.database.standing
    }

    /// Takes over all parts, for a database that [is the same](Self::is_same).
    pub fn link_all(&self, begun: &Begun) -> Result<Vec<Part>> {
        self.manifest.parts.iter().map(|part| self.link(&part.file, &part.file, begun)).collect()
    }

    /// What the server may prove to be unchanged, and since when; nothing where it cannot.
    pub fn candidates(&self, facts: &Facts) -> Option<(Span, Vec<Candidate>)> {
        let span = Span::between(self.database.standing.as_ref()?, facts.standing.as_ref()?)?;
        let worth = facts.counters.iter().filter(|counters| counters.bytes >= WORTH_PROVING);
        let candidates = worth.filter_map(|counters| {
            let table = self.of(&counters.schema, &counters.table)?;
            let is_alike = table.counters.as_ref() == Some(&counters.text);
            let (schema, name, rows) = (table.schema.clone(), table.name.clone(), table.evidence.rows);
            is_alike.then_some(Candidate { schema, table: name, rows })
        });
        Some((span, candidates.collect()))
    }

    /// Whether a table is worth the try to find it unchanged.
    pub fn treatment(&self, entry: &Entry, facts: &Facts) -> Treatment {
        let counters = facts.counters_of(&entry.schema, &entry.tag);
        match self.table(entry) {
            Some(table) if counters.is_some() && table.counters.as_deref() == counters => Treatment::Digest,
            _ => Treatment::Store,
        }
    }

    /// Takes over the table's rows if they are the ones that were just read.
    pub fn link_table(&self, entry: &Entry, content: Content, file: &str, begun: &Begun) -> Result<Option<Part>> {
        match self.table(entry) {
            Some(table) if table.evidence == Evidence::from(content) => self.link(&table.part, file, begun).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes over the rows of a table that is proven to be unchanged.
    pub fn link_unchanged(&self, entry: &Entry, file: &str, begun: &Begun) -> Result<Option<(Content, Part)>> {
        let Some(table) = self.table(entry) else { return Ok(None) };
        Ok(Some((Content::from(&table.evidence), self.link(&table.part, file, begun)?)))
    }

    fn table(&self, entry: &Entry) -> Option<&Table> {
        self.of(&entry.schema, &entry.tag).filter(|_| entry.is_rows())
    }

    fn of(&self, schema: &str, name: &str) -> Option<&Table> {
        let is_it = |table: &&Table| table.schema == schema && table.name == name;
        self.database.tables.iter().find(is_it).filter(|table| self.sound.contains(&table.part))
    }

    fn link(&self, from: &str, to: &str, begun: &Begun) -> Result<Part> {
        let part = self.manifest.part(from)?;
        begun
            .take_over(to, &self.kept.place, from)
            .with_context(|| format!("cannot take over `{from}` of {}", self.kept.shown()))?;
        Ok(Part { file: to.to_owned(), from: Some(self.kept.backup.clone()), ..part.clone() })
    }
}
