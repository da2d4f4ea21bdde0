//! Whether a database is what was backed up: it is dumped as the backup was, into nothing but evidence, and that is compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Result;
use archive::content::Content;
use archive::custom::{Entry, Head};
use archive::split::{Split, Treatment};

use super::load::Source;
use crate::data::backup::dump::{self, Wanted};
use crate::data::backup::manifest::Sequence;
use crate::engine::clients::Clients;
use crate::ui::units;

/// Differences that are told; more of them say nothing new.
const TOLD: usize = 20;

/// All that differs, in words; nothing where it is the same.
pub async fn compare(source: &Source, clients: &Clients, database: &str, read: &Arc<AtomicU64>) -> Result<Vec<String>> {
    let wanted = Wanted::all_of(clients, database);
    let read = Arc::clone(read);
    let split = tokio::task::spawn_blocking(move || dump::dump(&wanted, None, &|_| Treatment::Digest, &read)).await??;
    let mut differences = contents(source, &split);
    differences.extend(sequences(&source.database.sequences, &dump::sequences(&split.head)));
    if is_comparable(&source.head, &split.head) {
        differences.extend(definitions(&source.head, &split.head));
    }
    let more = differences.len().saturating_sub(TOLD);
    differences.truncate(TOLD);
    if more > 0 {
        differences.push(format!("and {} more", units::plural(more, "difference")));
    }
    Ok(differences)
}

/// Another version may list the same things under other headings.
fn is_comparable(backup: &Head, restored: &Head) -> bool {
    let major = |text: &str| text.split(['.', ' ']).next().unwrap_or_default().to_owned();
    (major(&backup.server_version), major(&backup.dump_version))
        == (major(&restored.server_version), major(&restored.dump_version))
}

fn contents(source: &Source, split: &Split) -> Vec<String> {
    let mut backed_up: BTreeMap<String, Content> = BTreeMap::new();
    for table in &source.database.tables {
        let name = place(source.head.entry(table.dump_id), &table.schema, &table.name);
        *backed_up.entry(name).or_default() += Content::from(&table.evidence);
    }
    let (mut restored, mut objects): (BTreeMap<String, Content>, Content) = Default::default();
    for data in &split.data {
        let Some(entry) = split.head.entry(data.dump_id) else { continue };
        match entry.is_rows() {
            true => *restored.entry(place(Some(entry), &entry.schema, &entry.tag)).or_default() += data.content,
            false => objects += data.content,
        }
    }
    let mut differences = Vec::new();
    for (name, was) in &backed_up {
        match restored.remove(name) {
            None => differences.push(format!("`{name}` is not there")),
            Some(is) if is.rows != was.rows => differences.push(format!(
                "`{name}` has {} rows, and {} were backed up",
                units::count(is.rows),
                units::count(was.rows)
            )),
            Some(is) if is != *was => {
                differences.push(format!("`{name}` has as many rows as were backed up, with other contents"));
            }
            Some(_) => {}
        }
    }
    differences.extend(restored.keys().map(|name| format!("`{name}` was not in the backup")));
    let mut backed_up = Content::default();
    source.database.large_objects.iter().for_each(|one| backed_up += Content::from(&one.evidence));
    if backed_up != objects {
        differences.push("the large objects are not those that were backed up".to_owned());
    }
    differences
}

/// Where rows belong: rows of some partitions may lie in any of them.
fn place(entry: Option<&Entry>, schema: &str, table: &str) -> String {
    match entry.and_then(Entry::partition_root) {
        Some(root) => root.to_owned(),
        None => format!("{schema}.{table}"),
    }
}

fn sequences(backup: &[Sequence], restored: &[Sequence]) -> Vec<String> {
    let differing = backup.iter().filter(|sequence| !restored.contains(sequence));
    differing
        .map(|sequence| format!("the sequence `{}.{}` is not at {}", sequence.schema, sequence.name, sequence.value))
        .collect()
}

/// Everything but rows: tables, indexes, functions, rights, comments, … must be there, and nothing else. Their texts may
/// differ: a server shows what it has read, and some expressions read back in other words (`ROW(…) IS DISTINCT FROM ROW(…)`
/// becomes one comparison for each column). Those of the database itself carry its name and are set when it is swapped.
fn definitions(backup: &Head, restored: &Head) -> Vec<String> {
    type Key<'a> = (&'a str, &'a str, &'a str, &'a str);
    fn all(head: &Head) -> BTreeMap<Key<'_>, usize> {
        let is_own = |entry: &&Entry| !entry.kind.starts_with("DATABASE") && !entry.tag.starts_with("DATABASE ");
        let mut all: BTreeMap<Key<'_>, usize> = BTreeMap::new();
        for entry in head.entries.iter().filter(is_own).filter(|entry| !entry.has_data) {
            *all.entry((&entry.kind, &entry.schema, &entry.tag, &entry.owner)).or_default() += 1;
        }
        all
    }
    let (backup, restored) = (all(backup), all(restored));
    let shown = |(kind, schema, tag, owner): &Key<'_>| {
        let dot = if schema.is_empty() { "" } else { "." };
        format!("{} `{schema}{dot}{tag}` of `{owner}`", kind.to_lowercase())
    };
    let less = backup.iter().filter(|(key, count)| restored.get(*key).is_none_or(|there| there < count));
    let more = restored.iter().filter(|(key, count)| backup.get(*key).is_none_or(|there| there < count));
    let less = less.map(|(key, _)| format!("{} is not there", shown(key)));
    less.chain(more.map(|(key, _)| format!("{} was not in the backup", shown(key)))).collect()
}
