//! `cargo xtask upgrade`: moves databases to the major version of PostgreSQL that the manifest asks for. The old server
//! runs once more and is backed up; a new one is made and gets the backup, compared as every restore is; the old data
//! are kept until somebody drops them. What was interrupted, the next call finishes.

pub mod kept;
mod old;
pub mod state;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::restore::old::running_places;
use super::restore::{Swapped, places, server, swap_all, tell_locales, tell_new_roles};
use super::up;
use crate::cli::UpgradeArgs;
use crate::context::Context;
use crate::data::backup::store::Store;
use crate::data::others;
use crate::data::restore::database::{self, Place};
use crate::data::restore::load::Source;
use crate::data::restore::swap::Connected;
use crate::engine::Engine;
use crate::engine::aside::Aside;
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::instance::lock::Lock;
use crate::stack::Service;
use crate::ui::{self, Exit, Failure, table, units};
use state::State;

pub async fn run(cx: &Context, args: &UpgradeArgs) -> Result<Exit> {
    let begun = Instant::now();
    let Some(instance) = cx.instance()? else {
        ui::tell(format!("{} has no data to upgrade", cx.stack.name));
        return Ok(Exit::Done);
    };
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    let lock = cx.lock().await?;
    if args.drop_old {
        return kept::drop_old(cx, args, &instance, &engine).await;
    }
    let store = Store::of(&cx.repository, &cx.stack.name);
    let state = match interrupted(cx, args, &instance, &engine, &lock).await? {
        Some(state) if args.dry_run => {
            let backup = state.backup;
            ui::data(&format!("  an upgrade was interrupted: it goes on from its backup `{backup}`\n"))?;
            return Ok(Exit::Done);
        }
        Some(state) => {
            ui::tell("an upgrade was interrupted; it goes on from its backup");
            state
        }
        None => {
            let Some((from, to)) = outdated(cx, &engine).await? else {
                ui::tell(format!(
                    "nothing to upgrade: the data of {} are of the version that the manifest asks for",
                    cx.stack.name
                ));
                return Ok(Exit::Done);
            };
            if args.dry_run {
                let names: Vec<String> = from.keys().cloned().collect();
                let behind = old::behind(&running_places(cx, &instance, &names).await?).await?;
                for (name, major) in &from {
                    let behind = behind.get(name).map_or_else(String::new, |behind| {
                        format!(", without {}, which the old data keep", old::listed(behind))
                    });
                    ui::data(&format!("  {name}: PostgreSQL {major} → {to}{behind}\n"))?;
                }
                return Ok(Exit::Done);
            }
            // Before anything is moved.
            up::provide(cx, &engine, &services_of(cx, &from)).await?;
            let connected = if args.force { Connected::Cut } else { Connected::Refuse };
            let backed_up = old::back_up(cx, &instance, &from, to, &store, connected, &lock).await?;
            let state = State::of(&instance, from, to, &backed_up);
            state.write(&instance)?;
            engine.stop(&state.names(), &lock).await?;
            state
        }
    };
    let services = services_of(cx, &state.from);
    let names: Vec<String> = services.iter().map(|service| service.short_name.clone()).collect();
    let majors = engine.majors(&cx.stack).await?;
    // All of them are stopped by now.
    let is_old = |service: &&&Service| majors.get(&service.short_name) == state.from.get(&service.short_name);
    for service in services.iter().filter(is_old) {
        let major = state.from.get(&service.short_name).copied().unwrap_or_default();
        engine.put_aside(service, &state.note(&service.short_name, major)).await?;
    }
    Known::forget(&instance)?;
    if let Engine::Docker(docker) = &engine {
        docker.refresh_compose_file()?;
    }
    up::start(cx, &engine, &services, &lock).await?;
    let mut sources = Vec::new();
    for name in &names {
        sources.push(database::source(store.find(name, &state.backup)?, None).await?);
    }
    let places = places(cx, &instance, &names).await?;
    let ready = database::prepare_all(&sources, &places, "restoring").await?;
    let swapped = swap_all(&sources, &places, ready).await?;
    drop_empty(&places).await?;
    State::forget(&instance)?;
    report(cx, args, &state, &sources, &swapped, begun)
}

/// The services of those short names.
fn services_of<'c>(cx: &'c Context, from: &BTreeMap<String, u32>) -> Vec<&'c Service> {
    cx.stack.databases().map(|(service, _)| service).filter(|one| from.contains_key(&one.short_name)).collect()
}

/// The upgrade that goes on. One that has put nothing aside yet is begun anew: the old servers may have run on since its
/// backup.
async fn interrupted(
    cx: &Context,
    args: &UpgradeArgs,
    instance: &Instance,
    engine: &Engine<'_>,
    lock: &Lock,
) -> Result<Option<State>> {
    let Some(state) = State::read(instance)? else { return Ok(None) };
    if !args.dry_run {
        // One that was told to end may not have ended yet: it could neither be asked nor started.
        engine.stop(&state.names(), lock).await?;
    }
    let majors = engine.majors(&cx.stack).await?;
    if state.from.iter().all(|(name, major)| majors.get(name) == Some(major)) {
        if !args.dry_run {
            let aside = engine.aside().await?;
            let is_copy = |one: &&Aside| one.note.as_ref().is_some_and(|note| note.backup == state.backup);
            for copy in aside.iter().filter(is_copy) {
                engine.drop_aside(copy).await?;
            }
            State::forget(instance)?;
        }
        return Ok(None);
    }
    let asked = cx.stack.databases().filter(|(service, _)| state.from.contains_key(&service.short_name));
    if let Some((_, postgres)) = asked.into_iter().find(|(_, postgres)| postgres.major != state.to) {
        let (names, to, option) = (state.shown(), state.to, cx.stack_option());
        let title = format!("an upgrade of {names} to PostgreSQL {to} was interrupted");
        bail!(
            Failure::new(Exit::Refused, title)
                .body(format!(
                    "  the manifest asks for {} now, and some of the data are put aside already\n",
                    postgres.major
                ))
                .hint(format!(
                    "set `postgres.major = {to}` to go on; `cargo xtask down --volumes{option}` gives it up, and the \
                     backup `{}` stays",
                    state.backup
                ))
        );
    }
    Ok(Some(state))
}

/// What a new server had in the restored database's place is nothing to go back to.
async fn drop_empty(places: &[Place]) -> Result<()> {
    for place in places {
        for old in server(place).old(&place.login.database).await? {
            if old.is_half_dropped || others::is_empty(place, &old.database).await? {
                server(place).drop_old(&[old]).await?;
            }
        }
    }
    Ok(())
}

/// Databases whose data are older than the manifest asks for, and what it asks for.
async fn outdated(cx: &Context, engine: &Engine<'_>) -> Result<Option<(BTreeMap<String, u32>, u32)>> {
    let mut from = BTreeMap::new();
    let mut wanted = 0;
    let majors = engine.majors(&cx.stack).await?;
    for (service, postgres) in cx.stack.databases() {
        let Some(found) = majors.get(&service.short_name).copied() else { continue };
        if found > postgres.major {
            let title =
                format!("the data of `{}` are PostgreSQL {found}'s, newer than {}", service.short_name, postgres.major);
            bail!(
                Failure::new(Exit::Refused, title)
                    .hint(format!("there is no way back by this: set `postgres.major = {found}`, or restore a backup"))
            );
        }
        if found < postgres.major {
            from.insert(service.short_name.clone(), found);
            wanted = postgres.major;
        }
    }
    Ok((!from.is_empty()).then_some((from, wanted)))
}

fn report(
    cx: &Context,
    args: &UpgradeArgs,
    state: &State,
    sources: &[Source],
    swapped: &[Swapped],
    begun: Instant,
) -> Result<Exit> {
    if args.json {
        let upgraded: Vec<Value> = sources
            .iter()
            .zip(swapped)
            .map(|(source, swapped)| {
                json!({
                    "name": source.kept.name,
                    "from": state.from.get(&source.kept.name),
                    "to": state.to,
                    "rows": source.manifest.rows(),
                    "seconds": swapped.ready().as_secs_f64(),
                    "new_roles": swapped.new_roles,
                    "other_locale": swapped.other_locale,
                    "behind": state.behind.get(&source.kept.name).map_or(&[][..], Vec::as_slice),
                })
            })
            .collect();
        ui::json(&json!({ "stack": cx.stack.name, "backup": state.backup, "upgraded": upgraded }))?;
    }
    let rows = sources.iter().zip(swapped).map(|(source, swapped)| {
        let from = state.from.get(&source.kept.name).copied().unwrap_or_default();
        vec![
            source.kept.name.clone(),
            format!("PostgreSQL {from} → {}", state.to),
            units::plural(source.database.tables.len(), "table"),
            units::plural(source.manifest.rows(), "row"),
            units::seconds(swapped.ready()),
        ]
    });
    ui::tell(table::columns(rows.collect(), &[2, 3, 4]));
    tell_new_roles(swapped);
    tell_locales(sources.iter().zip(swapped).map(|(source, swapped)| (&*source.kept.name, &swapped.other_locale)));
    let option = cx.stack_option();
    ui::tell(format!(
        "\n{} upgraded and compared with the backup `{}`, in {}. The old data are kept: \
         `cargo xtask upgrade --drop-old{option}` drops them. Next: `cargo xtask up{option}`",
        units::plural(sources.len(), "database"),
        state.backup,
        units::seconds(begun.elapsed()),
    ));
    Ok(Exit::Done)
}
