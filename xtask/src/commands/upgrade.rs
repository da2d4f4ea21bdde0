//! `cargo xtask upgrade`: moves databases to the major version of PostgreSQL that the manifest asks for. The old server
//! runs once more and is backed up; a new one is made and gets the backup, compared as every restore is; the old data
//! are kept until somebody drops them. What was interrupted, the next call finishes.

pub mod kept;
pub mod state;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::backup::{Order, take_set};
use super::restore::{places, swap_all, tell_locales};
use super::up;
use crate::cli::UpgradeArgs;
use crate::context::{Context, configuration_failure};
use crate::data::backup::store::{Kept, Store, Verified};
use crate::data::backup::verify;
use crate::data::restore::database;
use crate::engine::Engine;
use crate::engine::aside::Note;
use crate::engine::docker::Docker;
use crate::engine::native::Native;
use crate::files;
use crate::instance::known::Known;
use crate::instance::lock::Lock;
use crate::instance::{EngineKind, Instance};
use crate::stack::fault::Faults;
use crate::stack::{Service, Stack, images};
use crate::ui::{self, Exit, Failure, table, units};
use state::State;

/// Beside the committed file, for as long as the old server runs.
const COMPOSE_FILE: &str = ".compose-upgrade.yaml";

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
    let state = match State::read(&instance)? {
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
                for (name, major) in &from {
                    ui::data(&format!("  {name}: PostgreSQL {major} → {to}\n"))?;
                }
                return Ok(Exit::Done);
            }
            let backup = back_up(cx, &instance, &from, to, &store, &lock).await?;
            let state = State::of(&instance, from, to, backup);
            state.write(&instance)?;
            state
        }
    };
    let services: Vec<&Service> = cx
        .stack
        .databases()
        .map(|(service, _)| service)
        .filter(|one| state.from.contains_key(&one.short_name))
        .collect();
    let names: Vec<String> = services.iter().map(|service| service.short_name.clone()).collect();
    let majors = engine.majors(&cx.stack).await?;
    for service in &services {
        let major = state.from.get(&service.short_name).copied().unwrap_or_default();
        if majors.get(&service.short_name) == Some(&major) {
            engine.stop(std::slice::from_ref(&service.short_name), &lock).await?;
            engine.put_aside(service, &Note { major, backup: state.backup.clone() }).await?;
        }
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
    State::forget(&instance)?;
    if args.json {
        let upgraded: Vec<Value> = sources
            .iter()
            .zip(&swapped)
            .map(|(source, swapped)| {
                json!({
                    "name": source.kept.name,
                    "from": state.from.get(&source.kept.name),
                    "to": state.to,
                    "rows": source.manifest.rows(),
                    "seconds": swapped.ready().as_secs_f64(),
                    "other_locale": swapped.other_locale,
                })
            })
            .collect();
        ui::json(&json!({ "stack": cx.stack.name, "backup": state.backup, "upgraded": upgraded }))?;
    }
    let rows = sources.iter().zip(&swapped).map(|(source, swapped)| {
        let from = state.from.get(&source.kept.name).copied().unwrap_or_default();
        vec![
            source.kept.name.clone(),
            format!("PostgreSQL {from} → {}", state.to),
            units::plural(source.database.tables.len(), "table"),
            format!("{} rows", units::count(source.manifest.rows())),
            units::seconds(swapped.ready()),
        ]
    });
    ui::tell(table::columns(rows.collect(), &[2, 3, 4]));
    tell_locales(sources.iter().zip(&swapped).map(|(source, swapped)| (&*source.kept.name, &swapped.other_locale)));
    let option = cx.stack_option();
    ui::tell(format!(
        "\n{} upgraded and compared with the backup `{}`, in {}. The old data are kept: \
         `cargo xtask upgrade --drop-old{option}` drops them. Next: `cargo xtask up{option}`",
        units::plural(names.len(), "database"),
        state.backup,
        units::seconds(begun.elapsed()),
    ));
    Ok(Exit::Done)
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

/// Runs the old servers and backs them up, proven byte for byte. Gives the backup's name.
async fn back_up(
    cx: &Context,
    instance: &Instance,
    from: &BTreeMap<String, u32>,
    to: u32,
    store: &Store,
    lock: &Lock,
) -> Result<String> {
    let mut majors: Vec<u32> = from.values().copied().collect();
    majors.dedup();
    let [major] = majors[..] else {
        bail!(Failure::new(Exit::Failed, "the databases are of several older versions: upgrade them one by one"))
    };
    let services: Vec<&Service> =
        cx.stack.databases().map(|(service, _)| service).filter(|one| from.contains_key(&one.short_name)).collect();
    let names: Vec<String> = services.iter().map(|service| service.short_name.clone()).collect();
    ui::tell(format!("{}: PostgreSQL {major} → {to}, with a backup in between\n\n", names.join(", ")));
    let stack = old_stack(cx, &services, major)?;
    let old: Vec<&Service> = stack.services.iter().filter(|one| from.contains_key(&one.short_name)).collect();
    let engine = match instance.identity.engine {
        EngineKind::Native => Engine::Native(Native { repository: &cx.repository, stack: &stack, instance }),
        EngineKind::Docker => {
            let mut docker = Docker::new(&cx.repository, &stack, instance);
            docker.compose_file.set_file_name(COMPOSE_FILE);
            Engine::Docker(docker)
        }
    };
    if let Engine::Docker(docker) = &engine {
        docker.write_compose_file()?;
    }
    let started = up::start(cx, &engine, &old, lock).await;
    let label = format!("before-upgrade-{major}-to-{to}");
    let taken = match started {
        Ok(()) => take_set(cx, instance, store, &Order::full(&services, Some(&label))).await,
        Err(error) => Err(error),
    };
    if let Engine::Docker(docker) = &engine {
        files::remove_if_present(&cx.repository.root.join(&docker.compose_file))?;
    }
    let (taken, _) = taken?;
    let kept: Vec<Kept> = taken.into_iter().map(|taken| taken.kept).collect();
    let backup = kept.first().context("nothing was backed up")?.backup.clone();
    tokio::task::spawn_blocking(move || {
        for kept in &kept {
            verify::content(kept, None)?;
            kept.note_verified(&Verified { at: jiff::Timestamp::now(), was_restored: false })?;
        }
        Ok::<_, anyhow::Error>(())
    })
    .await??;
    Ok(backup)
}

/// The stack as it was: with the old major version, from a pinned image of it.
fn old_stack(cx: &Context, services: &[&Service], major: u32) -> Result<Stack> {
    let mut faults = Faults::default();
    let images = images::read(&cx.repository.root, &mut faults);
    if !faults.0.is_empty() {
        bail!(configuration_failure(faults));
    }
    let service = services.first().context("there is nothing to upgrade")?;
    let is_old = |image: &&images::Image| {
        image.name == service.image.name && image.tag.split(['.', '-']).next() == Some(&major.to_string())
    };
    let image = images.values().find(is_old).cloned().unwrap_or_else(|| service.image.clone());
    // Whoever runs images of their own, without a digest, has the old one without it as well.
    let reference = match cx.stack.image_of(service).contains('@') {
        true => image.to_string(),
        false => format!("{}:{}", image.name, image.tag),
    };
    Ok(cx.stack.with_postgres(major, &image, &reference))
}
