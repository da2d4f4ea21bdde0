//! pg_dump's output taken apart while it runs: what a database holds, as parts on the disk or as evidence alone.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, bail, ensure};
use archive::content::Content;
use archive::custom::{Entry, Head};
use archive::part::{Seal, Shelf, Writer};
use archive::split::{Data, Place, Split, Treatment, part_name, split};
use sql::identifier;

use super::begun::Begun;
use super::cut::Facts;
use super::earlier::Earlier;
use super::manifest::{LargeObjects, Part, Sequence, Table};
use super::unchanged::Unchanged;
use crate::engine::clients::Clients;
use crate::tools;

const HEAD: &str = "parts/head.zst";
const PREFIX: &str = "parts/";
/// Of what is dumped a second time: its numbers are those of another dump.
const AGAIN: &str = "parts/again-";

/// How long a dump waits for a table that somebody holds exclusively.
const LOCK_PATIENCE: &str = "--lock-wait-timeout=60s";

/// Rows must read the same in every dump, whatever a role, a database or a server has for its own; what pg_dump leaves to them
/// and a restore reads in either form.
pub const READS_THE_SAME: (&str, &str) = ("PGOPTIONS", "-c TimeZone=UTC -c bytea_output=hex");

/// What is dumped.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub clients: Clients,
    /// As the server calls it.
    pub database: String,
    /// Of a transaction that is open; without one, the dump takes its own.
    pub snapshot: Option<String>,
    pub rows: Rows,
}

/// Whose rows a dump has.
#[derive(Debug, Clone)]
pub enum Rows {
    /// Of all tables.
    All,
    /// Of these only, by schema and name, and nothing else at all.
    Only(Vec<(String, String)>),
    /// Of all tables but these.
    Without(Vec<(String, String)>),
}

impl Wanted {
    /// A whole database, as it is now.
    pub fn all_of(clients: &Clients, database: &str) -> Wanted {
        Wanted { clients: clients.clone(), database: database.to_owned(), snapshot: None, rows: Rows::All }
    }
}

/// Dumps to the end. It blocks: for a thread that may.
pub fn dump(
    wanted: &Wanted,
    place: Option<Place<'_>>,
    treat: &(dyn Fn(&Entry) -> Treatment + Sync),
    read: &AtomicU64,
) -> Result<Split> {
    let mut command = wanted.clients.command("pg_dump", &wanted.database, &[READS_THE_SAME]);
    command.args(["--format=custom", "--compress=0", "--no-password", LOCK_PATIENCE]);
    if let Some(snapshot) = &wanted.snapshot {
        command.arg(format!("--snapshot={snapshot}"));
    }
    let exact = |(schema, table): &(String, String)| format!("{}.{}", identifier(schema), identifier(table));
    match &wanted.rows {
        Rows::All => {}
        Rows::Only(tables) => {
            command.args(["--data-only", "--strict-names"]);
            command.args(tables.iter().map(|table| format!("--table={}", exact(table))));
        }
        Rows::Without(tables) => {
            command.args(tables.iter().map(|table| format!("--exclude-table-data={}", exact(table))));
        }
    }
    let (process, mut output) = tools::pipe(command, Stdio::null())?;
    let split = split(&mut output, place, treat, read);
    // A dump that nobody reads any more must not wait for one who does.
    drop(output);
    // Where the dump failed, its own words say more than the end of its output does.
    match (process.finish(), split) {
        (Ok(_), split) => split.context("cannot take the dump apart"),
        (Err(dump), Err(split)) if !is_cut_off(&split) => Err(split.context(dump.to_string())),
        (Err(dump), _) => Err(dump),
    }
}

/// Whether the trouble is that the dump ended too early.
fn is_cut_off(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("it ends within") || text.contains("ended within") || text.contains("could not be written")
}

/// The sequences that a dump sets.
pub fn sequences(head: &Head) -> Vec<Sequence> {
    let set = head.entries.iter().filter(|entry| entry.kind == "SEQUENCE SET");
    set.map(|entry| {
        // `SELECT pg_catalog.setval('public.users_id_seq', 42, true);`
        let arguments = entry.definition.trim().trim_end_matches(");").rsplit("', ").next().unwrap_or_default();
        Sequence { schema: entry.schema.clone(), name: entry.tag.clone(), value: arguments.to_owned() }
    })
    .collect()
}

/// A database as parts, for the manifest.
#[derive(Debug)]
pub struct Inventory {
    pub pg_dump_version: String,
    pub parts: Vec<Part>,
    /// The part with the table of contents.
    pub head: String,
    pub tables: Vec<Table>,
    pub large_objects: Vec<LargeObjects>,
    pub sequences: Vec<Sequence>,
}

impl Inventory {
    /// Dumps the database into the begun backup. What the earlier one proves to hold already is taken over from it:
    /// `unchanged` is what of it need not even be read.
    pub fn take(
        wanted: &Wanted,
        begun: &Begun,
        seal: Option<&dyn Seal>,
        facts: &Facts,
        earlier: Option<(&Earlier, &[Unchanged])>,
        read: &AtomicU64,
    ) -> Result<Inventory> {
        let (earlier, unchanged) = earlier.unzip();
        let unchanged = unchanged.unwrap_or_default();
        let place = Place { shelf: begun, prefix: PREFIX, seal };
        let treat = |entry: &Entry| earlier.map_or(Treatment::Store, |earlier| earlier.treatment(entry, facts));
        let named = unchanged.iter().map(|table| (table.schema.clone(), table.table.clone()));
        let wanted = Wanted { rows: Rows::Without(named.collect()), ..wanted.clone() };
        let mut split = dump(&wanted, Some(place), &treat, read)?;
        split.head = with_unchanged(&split.head, unchanged)?;
        let mut inventory = Inventory {
            pg_dump_version: split.head.dump_version.split_whitespace().next().unwrap_or_default().to_owned(),
            head: HEAD.to_owned(),
            sequences: sequences(&split.head),
            parts: Vec::new(),
            tables: Vec::new(),
            large_objects: Vec::new(),
        };
        let mut changed = Vec::new();
        for data in &split.data {
            let entry = split.head.entry(data.dump_id).context("data without an entry")?;
            let file = format!("{PREFIX}{}", part_name(entry));
            // Of what was stored, a link to the same rows saves the room; a remote has none.
            let worth = earlier.filter(|_| data.stored.is_none() || begun.has_links());
            let linked = worth.map(|earlier| earlier.link_table(entry, data.content, &file, begun)).transpose()?;
            let stored = || data.stored.as_ref().map(|(file, written)| Part::new(file, written.clone()));
            match linked.flatten().or_else(stored) {
                Some(part) => inventory.add(entry, data.content, part, facts),
                None => changed.push((entry, data.content)),
            }
        }
        if !changed.is_empty() {
            for (entry, content, part) in dump_again(&wanted, begun, seal, changed, read)? {
                inventory.add(entry, content, part, facts);
            }
        }
        let without = |entry: &&Entry| entry.is_rows() && entry.has_data && split.data_of(entry.dump_id).is_none();
        for entry in split.head.entries.iter().filter(without) {
            let is_it = |one: &Unchanged| one.schema == entry.schema && one.table == entry.tag;
            let earlier = earlier.filter(|_| unchanged.iter().any(is_it));
            let file = format!("{PREFIX}{}", part_name(entry));
            let taken_over = earlier.map(|earlier| earlier.link_unchanged(entry, &file, begun)).transpose()?.flatten();
            let (content, part) = taken_over.with_context(|| format!("the dump lacks the rows of `{}`", entry.tag))?;
            inventory.add(entry, content, part, facts);
        }
        let mut writer = Writer::new(begun.create(&inventory.head)?, seal)?;
        writer.write_all(split.head.bytes())?;
        inventory.parts.push(Part::new(inventory.head.clone(), writer.finish()?));
        // In the order of the head, which is that of a restore.
        let place_of = |dump_id: i64| split.head.entries.iter().position(|entry| entry.dump_id == dump_id);
        inventory.tables.sort_by_key(|table| place_of(table.dump_id));
        Ok(inventory)
    }

    /// All of the earlier backup, which is proven to be the database as it is.
    pub fn take_over(earlier: &Earlier, begun: &Begun, facts: &Facts) -> Result<Inventory> {
        let database = &earlier.database;
        let counters = |table: &Table| facts.counters_of(&table.schema, &table.name).map(str::to_owned);
        Ok(Inventory {
            pg_dump_version: database.pg_dump_version.clone(),
            parts: earlier.link_all(begun)?,
            head: database.head.clone(),
            tables: database.tables.iter().map(|table| Table { counters: counters(table), ..table.clone() }).collect(),
            large_objects: database.large_objects.clone(),
            sequences: database.sequences.clone(),
        })
    }

    fn add(&mut self, entry: &Entry, content: Content, part: Part, facts: &Facts) {
        let (dump_id, evidence, file) = (entry.dump_id, content.into(), part.file.clone());
        self.parts.push(part);
        match entry.is_rows() {
            true => self.tables.push(Table {
                dump_id,
                schema: entry.schema.clone(),
                name: entry.tag.clone(),
                part: file,
                evidence,
                counters: facts.counters_of(&entry.schema, &entry.tag).map(str::to_owned),
            }),
            false => self.large_objects.push(LargeObjects { dump_id, part: file, evidence }),
        }
    }
}

/// The head as it would be if the rows of these tables were in the dump.
fn with_unchanged(head: &Head, unchanged: &[Unchanged]) -> Result<Head> {
    let table_of = |one: &Unchanged| {
        let is_it = |entry: &&Entry| entry.kind == "TABLE" && entry.schema == one.schema && entry.tag == one.table;
        head.entries.iter().find(is_it).with_context(|| format!("the dump lacks `{}.{}`", one.schema, one.table))
    };
    let tables = unchanged.iter().map(|one| Ok((table_of(one)?, one.copy.as_str()))).collect::<Result<Vec<_>>>()?;
    head.with_rows(&tables)
}

/// Dumps the rows of tables that were taken for unchanged and are not, out of the same snapshot.
fn dump_again<'a>(
    wanted: &Wanted,
    begun: &Begun,
    seal: Option<&dyn Seal>,
    changed: Vec<(&'a Entry, Content)>,
    read: &AtomicU64,
) -> Result<Vec<(&'a Entry, Content, Part)>> {
    let tables = changed.iter().map(|(entry, _)| (entry.schema.clone(), entry.tag.clone())).collect();
    let wanted = Wanted { rows: Rows::Only(tables), ..wanted.clone() };
    let place = Place { shelf: begun, prefix: AGAIN, seal };
    let split = dump(&wanted, Some(place), &|_| Treatment::Store, read)?;
    let mut parts = Vec::new();
    for (entry, content) in changed {
        let is_it = |data: &&Data| {
            let found = split.head.entry(data.dump_id);
            found.is_some_and(|found| found.is_rows() && (&found.schema, &found.tag) == (&entry.schema, &entry.tag))
        };
        let data = split.data.iter().find(is_it);
        let Some((data, (name, written))) = data.and_then(|data| data.stored.as_ref().map(|stored| (data, stored)))
        else {
            bail!("the second dump lacks `{}.{}`", entry.schema, entry.tag)
        };
        ensure!(data.content == content, "`{}.{}` was read twice with different rows", entry.schema, entry.tag);
        parts.push((entry, content, Part::new(name, written.clone())));
    }
    Ok(parts)
}
