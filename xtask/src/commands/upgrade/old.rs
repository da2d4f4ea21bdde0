//! The old servers: run once more, backed up, and kept from changing since.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use super::services_of;
use crate::commands::backup::{Order, take_set};
use crate::commands::restore::{places, server};
use crate::commands::up;
use crate::context::{Context, configuration_failure};
use crate::data::backup::manifest::Standing;
use crate::data::backup::store::{Kept, Store, Verified};
use crate::data::backup::take::Taken;
use crate::data::backup::verify;
use crate::data::hold::Held;
use crate::data::others;
use crate::data::restore::database::Place;
use crate::data::restore::swap::Connected;
use crate::engine::Engine;
use crate::engine::aside::Behind;
use crate::engine::docker::Docker;
use crate::engine::native::Native;
use crate::files;
use crate::instance::lock::Lock;
use crate::instance::{EngineKind, Instance};
use crate::stack::fault::Faults;
use crate::stack::{Service, Stack, images};
use crate::ui::{self, Exit, Failure, units};

/// Beside the committed file, for as long as the old server runs.
const COMPOSE_FILE: &str = ".compose-upgrade.yaml";
/// How many backups are taken of databases that do not stay as they are.
const ROUNDS: usize = 3;

/// Old databases that are what a backup has, and stay so.
pub struct BackedUp {
    pub backup: String,
    /// Short name → the databases that it does not have.
    pub behind: BTreeMap<String, Vec<Behind>>,
    /// Until the servers are stopped.
    _held: Vec<Held>,
}

/// Runs the old servers and backs them up, proven byte for byte.
pub async fn back_up(
    cx: &Context,
    instance: &Instance,
    from: &BTreeMap<String, u32>,
    to: u32,
    store: &Store,
    connected: Connected,
    lock: &Lock,
) -> Result<BackedUp> {
    let services = services_of(cx, from);
    let names: Vec<String> = services.iter().map(|service| service.short_name.clone()).collect();
    let majors: BTreeSet<u32> = from.values().copied().collect();
    for major in &majors {
        let of_major: Vec<&Service> =
            services.iter().copied().filter(|one| from.get(&one.short_name) == Some(major)).collect();
        let shown: Vec<&str> = of_major.iter().map(|service| service.short_name.as_str()).collect();
        ui::tell(format!("{}: PostgreSQL {major} → {to}, with a backup in between\n\n", shown.join(", ")));
        start(cx, instance, &of_major, *major, lock).await?;
    }
    let places = places(cx, instance, &names).await?;
    check_clients(&places, connected).await?;
    let behind = behind(&places).await?;
    for (name, behind) in &behind {
        ui::tell(ui::paint(
            ui::WARNING,
            format!("not moved, but kept in the old data of `{name}`: {}\n", listed(behind)),
        ));
    }
    let majors: Vec<String> = majors.iter().map(u32::to_string).collect();
    let label = format!("before-upgrade-{}-to-{to}", majors.join("-"));
    let mut held = Vec::new();
    let mut changed = Vec::new();
    for _ in 0..ROUNDS {
        let taken = take_verified(cx, instance, store, &Order::full(&services, Some(&label))).await?;
        if held.is_empty() {
            check_clients(&places, connected).await?;
            for place in &places {
                held.push(Held::take(place, connected).await?);
            }
        }
        changed.clear();
        for (place, held) in places.iter().zip(&mut held) {
            if !is_the_same(&taken, &place.name, held.standing().await?) {
                changed.push(format!("`{}`", place.name));
            }
        }
        if changed.is_empty() {
            let backup = taken.first().context("nothing was backed up")?.kept.backup.clone();
            return Ok(BackedUp { backup, behind, _held: held });
        }
        ui::tell(format!("{} changed since the backup began: it is taken once more", changed.join(", ")));
    }
    let mut clients = Vec::new();
    for held in &mut held {
        clients.extend(held.other_clients().await?);
    }
    let title = format!("{} changed while each of {ROUNDS} backups was taken, nothing was moved", changed.join(", "));
    bail!(
        Failure::new(Exit::Refused, title)
            .body(clients.iter().map(|client| format!("  {client}\n")).collect::<String>())
            .hint(format!(
                "once nobody writes to a database of that server, `cargo xtask upgrade{}`",
                cx.stack_option()
            ))
    )
}

/// Runs databases with the old version that their data are of.
async fn start(cx: &Context, instance: &Instance, services: &[&Service], major: u32, lock: &Lock) -> Result<()> {
    let stack = old_stack(cx, services, major)?;
    let is_asked = |one: &&Service| services.iter().any(|service| service.short_name == one.short_name);
    let old: Vec<&Service> = stack.services.iter().filter(is_asked).collect();
    let engine = match instance.identity.engine {
        EngineKind::Native => Engine::Native(Native { repository: &cx.repository, stack: &stack, instance }),
        EngineKind::Docker => {
            let mut docker = Docker::new(&cx.repository, &stack, instance);
            docker.compose_file.set_file_name(COMPOSE_FILE);
            docker.write_compose_file()?;
            Engine::Docker(docker)
        }
    };
    let started = async {
        up::provide(cx, &engine, &old).await?;
        up::start(cx, &engine, &old, lock).await
    };
    let started = started.await;
    if let Engine::Docker(docker) = &engine {
        files::remove_if_present(&cx.repository.root.join(&docker.compose_file))?;
    }
    started
}

/// Short name → the databases that an upgrade does not move, where there are some.
pub async fn behind(places: &[Place]) -> Result<BTreeMap<String, Vec<Behind>>> {
    let mut all = BTreeMap::new();
    for place in places {
        let behind = others::beside(place).await?;
        if !behind.is_empty() {
            all.insert(place.name.clone(), behind);
        }
    }
    Ok(all)
}

/// `reports (7.5 MB), …`.
pub fn listed(behind: &[Behind]) -> String {
    let each = behind.iter().map(|one| format!("`{}` ({})", one.database, units::megabytes(one.bytes)));
    each.collect::<Vec<_>>().join(", ")
}

async fn check_clients(places: &[Place], connected: Connected) -> Result<()> {
    for place in places {
        server(place).check_clients(&place.login.database, connected).await?;
    }
    Ok(())
}

/// Takes the backup, and reads all of it again.
async fn take_verified(cx: &Context, instance: &Instance, store: &Store, order: &Order<'_>) -> Result<Vec<Taken>> {
    let (taken, _) = take_set(cx, instance, store, order).await?;
    let kept: Vec<Kept> = taken.iter().map(|taken| taken.kept.clone()).collect();
    tokio::task::spawn_blocking(move || {
        for kept in &kept {
            verify::content(kept, None)?;
            kept.note_verified(&Verified { at: jiff::Timestamp::now(), was_restored: false })?;
        }
        Ok::<_, anyhow::Error>(())
    })
    .await??;
    Ok(taken)
}

/// Whether a backup has what the server sees now. What nobody can tell counts as another.
fn is_the_same(taken: &[Taken], name: &str, now: Option<Standing>) -> bool {
    let taken = taken.iter().find(|taken| taken.manifest.name == name);
    let then = taken.and_then(|taken| taken.manifest.database()?.standing.as_ref());
    now.is_some() && now.as_ref() == then
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
