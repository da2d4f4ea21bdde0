//! What was found migrated once, so that nobody need look again: by `up`, for as long as a server runs and the files are the
//! same; by `migrate`, which still asks each database what its histories hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::postgres::PgRow;

use crate::context::Context;
use crate::data::migrate::{self, Set, source};
use crate::data::target::{self, Target};
use crate::engine::Engine;
use crate::engine::server::Server;
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::stack::Service;
use crate::stack::model::Postgres;

/// Well below the time in which a file may change unseen.
const SOON: Duration = Duration::from_secs(1);

/// What `up` takes for known is about to change.
pub fn forget(cx: &Context) -> Result<()> {
    cx.instance()?.map_or(Ok(()), |instance| Known::forget(&instance))
}

/// What `up` notes of a database that it found migrated: this server, with these files.
pub fn of_server(
    cx: &Context,
    service: &Service,
    postgres: &Postgres,
    server: &Server,
) -> Result<Option<(String, String)>> {
    let files = source::state(&cx.repository.root, &postgres.migrations)?;
    let subject = format!("migrations of {}", service.short_name);
    Ok(files.map(|files| (subject, format!("{} {files}", server.identity()))))
}

/// The files of each database, as [`source::state`] tells them apart. Nothing where some may still change unseen.
fn files_of(cx: &Context, names: &[String]) -> Result<Option<BTreeMap<String, String>>> {
    let wanted = cx.stack.databases().filter(|(service, _)| names.contains(&service.short_name));
    let states = wanted.map(|(service, postgres)| {
        let state = source::state(&cx.repository.root, &postgres.migrations)?;
        Ok(state.map(|state| (service.short_name.clone(), state)))
    });
    states.collect()
}

fn subject(name: &str) -> String {
    format!("histories of {name}")
}

/// What [`look`] found.
#[derive(Debug)]
pub enum Found<'a> {
    /// Nothing is to be done.
    Done,
    /// What the long way finds out; these databases are open already.
    Changed(Vec<Target<'a>>),
    /// What the long way finds out, or what is wrong.
    Unknown,
}

/// Whether the databases were found migrated with these very files, and their histories have not changed since: then no file
/// need be read, and no row be sent.
pub async fn look<'a>(cx: &'a Context, instance: &Instance, names: &[String]) -> Result<Found<'a>> {
    let known = Known::read(instance);
    if names.iter().any(|name| known.of(&subject(name)).is_none()) {
        return Ok(Found::Unknown);
    }
    let engine = Engine::of(&cx.repository, &cx.stack, instance);
    let read = async |row: PgRow, target: &mut Target<'_>| migrate::read_fingerprint(&row, target.postgres);
    let opening = target::open_asking(&engine, &cx.stack, names, migrate::fingerprint, read);
    // The servers begin first: what they do for a connection takes longer than to look at hundreds of files.
    let looking = async {
        // Connected, they are told the user; only then do they begin.
        tokio::task::yield_now().await;
        files_of(cx, names)
    };
    let (opened, files) = tokio::join!(opening, looking);
    let (Ok(opened), Some(files)) = (opened, files?) else { return Ok(Found::Unknown) };
    let is_same = |(target, fingerprint): &(Target<'_>, String)| {
        let files = files.get(target.name()).map(String::as_str).unwrap_or_default();
        known.holds(&subject(target.name()), &format!("{files} {fingerprint}"))
    };
    if opened.iter().all(is_same) {
        target::leave_to_exit(opened);
        return Ok(Found::Done);
    }
    Ok(Found::Changed(opened.into_iter().map(|(target, _)| target).collect()))
}

/// Notes what [`look`] looks for, of a set that was read after the verb had `begun`. Files that were changed since then
/// may still change unseen, and nothing is noted: but for a verb that took long.
pub async fn note_done(
    cx: &Context,
    instance: &Instance,
    names: &[String],
    set: &mut Set<'_>,
    begun: Instant,
) -> Result<()> {
    if begun.elapsed() > SOON {
        return Ok(());
    }
    let Some(files) = files_of(cx, names)? else { return Ok(()) };
    // A database without migrations has no history to note.
    let Ok(fingerprints) = set.fingerprints().await else { return Ok(()) };
    let mut known = Known::read(instance);
    for (name, fingerprint) in fingerprints {
        let files = files.get(name).map(String::as_str).unwrap_or_default();
        known.note(&subject(name), &format!("{files} {fingerprint}"));
    }
    known.write(instance)
}
