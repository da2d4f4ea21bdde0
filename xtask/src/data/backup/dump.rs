//! pg_dump's output taken apart while it runs: what a database holds, as parts on the disk or as evidence alone.

use std::process::Stdio;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result};
use archive::custom::{Entry, Head};
use archive::split::{Place, Split, Treatment, split};

use super::manifest::{LargeObjects, Part, Sequence, Table};
use crate::engine::clients::Clients;
use crate::tools;

/// How long a dump waits for a table that somebody holds exclusively.
const LOCK_PATIENCE: &str = "--lock-wait-timeout=60s";

/// What is dumped.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub clients: Clients,
    /// As the server calls it.
    pub database: String,
    /// Of a transaction that is open; without one, the dump takes its own.
    pub snapshot: Option<String>,
}

/// Dumps to the end. It blocks: for a thread that may.
pub fn dump(
    wanted: &Wanted,
    place: Option<Place<'_>>,
    treat: &(dyn Fn(&Entry) -> Treatment + Sync),
    read: &AtomicU64,
) -> Result<Split> {
    let mut command = wanted.clients.command("pg_dump", &wanted.database, &[]);
    command.args(["--format=custom", "--compress=0", "--no-password", LOCK_PATIENCE]);
    if let Some(snapshot) = &wanted.snapshot {
        command.arg(format!("--snapshot={snapshot}"));
    }
    let (process, output) = tools::pipe(command, Stdio::null())?;
    let split = split(output, place, treat, read);
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

/// The parts of a dump for the manifest; `folder` is theirs, as the manifest names it.
pub fn inventory(split: &Split, folder: &str) -> Result<(Vec<Part>, Vec<Table>, Vec<LargeObjects>)> {
    let (mut parts, mut tables, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    for data in &split.data {
        let entry = split.head.entry(data.dump_id).context("data without an entry")?;
        let (name, written) = data.stored.clone().context("data that were not stored")?;
        let part = format!("{folder}/{name}");
        parts.push(Part::new(part.clone(), written));
        let evidence = data.content.into();
        match entry.is_rows() {
            true => tables.push(Table {
                dump_id: data.dump_id,
                schema: entry.schema.clone(),
                name: entry.tag.clone(),
                part,
                evidence,
            }),
            false => objects.push(LargeObjects { dump_id: data.dump_id, part, evidence }),
        }
    }
    Ok((parts, tables, objects))
}
