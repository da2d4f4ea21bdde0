//! `cargo xtask restore`: brings back what a backup holds. Each database is restored beside the live one and compared with the
//! backup's evidence; then it takes the live one's place, which is kept.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use archive::part::Seal;
use serde_json::{Value, json};

use super::backup::{opened_by, sources};
use crate::cli::RestoreArgs;
use crate::context::{Context, unknown};
use crate::data::backup::manifest::Manifest;
use crate::data::backup::seal::Age;
use crate::data::backup::store::{Kept, Store};
use crate::data::restore::database::{self, Place, Ready};
use crate::data::restore::load::Source;
use crate::data::restore::swap::{self, Connected};
use crate::data::target;
use crate::engine::Engine;
use crate::engine::clients::Clients;
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &RestoreArgs) -> Result<Exit> {
    let begun = Instant::now();
    let Some(instance) = cx.instance()? else {
        let hint = format!("`cargo xtask up{}`", cx.stack_option());
        bail!(Failure::new(Exit::Failed, format!("{} is not running", cx.stack.name)).hint(hint));
    };
    let _lock = cx.lock().await?;
    if args.undo {
        return undo(cx, args, &instance).await;
    }
    if args.drop_old {
        return drop_old(cx, args, &instance).await;
    }
    let (store, seal) = sources(cx, &args.place)?;
    let seal = seal.map(Arc::new);
    let mut wanted: Vec<Kept> = match (name(args), &args.name) {
        (Some(name), _) => vec![store.find(&database(cx, name)?, &args.backup)?],
        (None, backup) => whole_set(&store, backup.as_deref().unwrap_or("latest"))?,
    };
    let position = |kept: &Kept| cx.stack.databases().position(|(service, _)| service.short_name == kept.name);
    wanted.retain(|kept| position(kept).is_some());
    wanted.sort_by_key(position);
    let names: Vec<String> = wanted.iter().map(|kept| kept.name.clone()).collect();
    let places = places(cx, &instance, &names).await?;
    let connected = if args.force { Connected::Cut } else { Connected::Refuse };
    let mut sources = Vec::new();
    for kept in wanted {
        let opened: Option<Arc<dyn Seal + Send + Sync>> = open(&kept.manifest()?, seal.as_ref())?;
        sources.push(database::source(kept, opened).await?);
    }
    for place in &places {
        server(place).check_clients(&place.login.database, connected).await?;
    }
    let ready = database::prepare_all(&sources, &places, "restoring").await?;
    for place in &places {
        server(place).check_clients(&place.login.database, connected).await?;
    }
    Known::forget(&instance)?;
    let swapped = swap_all(&sources, &places, ready).await?;
    report(cx, args, &sources, &swapped, begun)
}

/// The database that is asked for; with `--all` there is none.
fn name(args: &RestoreArgs) -> Option<&String> {
    args.name.as_ref().filter(|_| !args.all)
}

/// The short name of a database.
fn database(cx: &Context, name: &str) -> Result<String> {
    let found = cx.stack.databases().find(|(service, _)| service.short_name == name || service.name == name);
    match found {
        Some((service, _)) => Ok(service.short_name.clone()),
        None => {
            let known: Vec<&str> = cx.stack.databases().map(|(service, _)| service.short_name.as_str()).collect();
            bail!(unknown("database", name, known))
        }
    }
}

/// The latest set, or the one of that name, with all its members.
fn whole_set(store: &Store, backup: &str) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for name in store.names()? {
        all.extend(store.list(&name)?);
    }
    let names = all.iter().map(|kept| kept.backup.as_str());
    let Some(latest) = names.clone().max() else {
        bail!(Failure::new(Exit::Failed, "there is no backup").hint("`cargo xtask backup` takes one"))
    };
    let asked = if backup == "latest" { latest } else { backup };
    let mut fitting: Vec<&str> = names.filter(|name| name.starts_with(asked)).collect();
    fitting.sort_unstable();
    fitting.dedup();
    let chosen = match fitting[..] {
        [one] => one.to_owned(),
        [] => bail!(unknown("backup", asked, all.iter().map(|kept| kept.backup.as_str()))),
        _ => bail!(
            Failure::new(Exit::Usage, format!("`{asked}` begins several backups"))
                .body(format!("  {}", fitting.join("\n  ")))
        ),
    };
    let members: Vec<Kept> = all.into_iter().filter(|kept| kept.backup == chosen).collect();
    let expected = match members.first() {
        Some(first) => first.manifest()?.set.members,
        None => Vec::new(),
    };
    let missing: Vec<&String> = expected.iter().filter(|name| members.iter().all(|kept| kept.name != **name)).collect();
    if !missing.is_empty() {
        let missing = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        bail!(
            Failure::new(Exit::Refused, format!("the set `{chosen}` is not whole: {missing} is not there"))
                .hint("restore its members one by one, or another set: `cargo xtask backup list`")
        );
    }
    Ok(members)
}

/// What opens the parts of a backup on other threads.
pub fn open(manifest: &Manifest, seal: Option<&Arc<Age>>) -> Result<Option<Arc<dyn Seal + Send + Sync>>> {
    opened_by(manifest, seal.map(Arc::as_ref))?;
    Ok(seal.filter(|_| manifest.is_encrypted).map(|age| Arc::clone(age) as Arc<dyn Seal + Send + Sync>))
}

/// Where the databases of these names are, each proven to be the right one.
pub async fn places(cx: &Context, instance: &Instance, names: &[String]) -> Result<Vec<Place>> {
    let engine = Engine::of(&cx.repository, &cx.stack, instance);
    let targets = target::open(&engine, &cx.stack, names).await?;
    let running = engine.running(&cx.stack).await?;
    let mut places = Vec::new();
    for name in names {
        let target = targets.iter().find(|target| target.name() == name);
        let server = running.iter().find(|server| server.service == *name);
        let (Some(target), Some(server)) = (target, server) else {
            bail!(
                Failure::new(Exit::Failed, format!("`{name}` is not running")).hint(format!("`cargo xtask up {name}`"))
            );
        };
        places.push(Place {
            name: name.clone(),
            clients: Clients::of(server)?,
            door: target.door.clone(),
            login: target.login.clone(),
        });
    }
    for target in targets {
        sqlx::Connection::close(target.connection).await?;
    }
    Ok(places)
}

fn server(place: &Place) -> swap::Server<'_> {
    swap::Server { door: &place.door, user: &place.login.user, name: &place.name }
}

/// A database that has taken the live one's place.
struct Swapped {
    ready: std::time::Duration,
    swap: std::time::Duration,
    new_roles: Vec<String>,
}

/// Swaps them one after another; where one cannot be, those before it are swapped back.
async fn swap_all(sources: &[Source], places: &[Place], ready: Vec<Ready>) -> Result<Vec<Swapped>> {
    let mut swapped = Vec::new();
    let mut done: Vec<(&Place, Option<String>)> = Vec::new();
    for ((source, place), ready) in sources.iter().zip(places).zip(ready) {
        let begun = Instant::now();
        let beside = settings(source, &place.login.database);
        match server(place).swap(&ready.side.name, &place.login.database, &beside).await {
            Ok(old) => {
                ready.side.keep();
                done.push((place, old));
                swapped.push(Swapped { ready: ready.took, swap: begun.elapsed(), new_roles: ready.loaded.new_roles });
            }
            Err(error) => {
                for (place, old) in done.iter().rev() {
                    if let Some(old) = old {
                        server(place).swap_back(old, &place.login.database).await?;
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(swapped)
}

/// What a dump says of the database itself, which only holds once it has its name.
fn settings(source: &Source, live: &str) -> String {
    if source.database.database != live {
        return String::new();
    }
    let own = source.head.entries.iter().filter(|entry| {
        entry.kind == "DATABASE PROPERTIES"
            || ["COMMENT", "ACL"].contains(&entry.kind.as_str()) && entry.tag.starts_with("DATABASE ")
    });
    own.map(|entry| entry.definition.as_str()).collect()
}

async fn undo(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Exit> {
    let connected = if args.force { Connected::Cut } else { Connected::Refuse };
    let mut found = Vec::new();
    for place in asked_places(cx, args, instance).await? {
        let old = server(&place).old(&place.login.database).await?.into_iter().next();
        match old {
            Some(old) => found.push((place, old)),
            None if name(args).is_some() => {
                let title = format!("`{}` has nothing to go back to: no restore has replaced it", place.name);
                bail!(Failure::new(Exit::Failed, title));
            }
            None => {}
        }
    }
    for (place, _) in &found {
        server(place).check_clients(&place.login.database, connected).await?;
    }
    Known::forget(instance)?;
    let mut rows = Vec::new();
    for (place, old) in &found {
        let begun = Instant::now();
        server(place).swap_back(&old.database, &place.login.database).await?;
        rows.push(vec![
            place.name.clone(),
            format!("as it was before {}", units::clock(old.replaced)),
            units::megabytes(old.bytes),
            format!("{} ms", begun.elapsed().as_millis()),
        ]);
    }
    if rows.is_empty() {
        ui::tell("nothing to go back to: no restore has replaced anything");
        return Ok(Exit::Done);
    }
    ui::tell(table::columns(rows, &[2, 3]));
    ui::tell(format!(
        "\n{} swapped back; the restored ones are kept, and `--undo` again brings them back",
        units::plural(found.len(), "database")
    ));
    Ok(Exit::Done)
}

async fn asked_places(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Vec<Place>> {
    let names = match name(args) {
        Some(name) => vec![database(cx, name)?],
        None => {
            let engine = Engine::of(&cx.repository, &cx.stack, instance);
            let running = engine.running(&cx.stack).await?;
            let databases = cx.stack.databases().map(|(service, _)| service.short_name.clone());
            databases.filter(|name| running.iter().any(|server| server.service == *name)).collect()
        }
    };
    places(cx, instance, &names).await
}

async fn drop_old(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Exit> {
    let mut found = Vec::new();
    for place in asked_places(cx, args, instance).await? {
        let old = server(&place).old(&place.login.database).await?;
        if !old.is_empty() {
            found.push((place, old));
        }
    }
    if found.is_empty() {
        ui::tell("no restore has left an old database");
        return Ok(Exit::Done);
    }
    let rows = found.iter().flat_map(|(place, old)| {
        old.iter().map(|old| {
            vec![place.name.clone(), format!("replaced {}", units::clock(old.replaced)), units::megabytes(old.bytes)]
        })
    });
    ui::tell(format!("This drops what restores have replaced:\n\n{}", table::columns(rows.collect(), &[2])));
    super::down::agree_by_name(cx, args.yes, &format!("cargo xtask restore{} --drop-old --yes", name_of(args))).await?;
    for (place, old) in &found {
        server(place).drop_old(old).await?;
    }
    let count = found.iter().map(|(_, old)| old.len()).sum();
    ui::tell(format!("{} dropped", units::plural(count, "old database")));
    Ok(Exit::Done)
}

fn name_of(args: &RestoreArgs) -> String {
    name(args).map_or_else(|| " --all".to_owned(), |name| format!(" {name}"))
}

fn report(cx: &Context, args: &RestoreArgs, sources: &[Source], swapped: &[Swapped], begun: Instant) -> Result<Exit> {
    if args.json {
        let restored: Vec<Value> = sources
            .iter()
            .zip(swapped)
            .map(|(source, swapped)| {
                json!({
                    "name": source.kept.name,
                    "backup": source.kept.backup,
                    "rows": source.manifest.rows(),
                    "seconds": swapped.ready.as_secs_f64(),
                    "swap_seconds": swapped.swap.as_secs_f64(),
                    "new_roles": swapped.new_roles,
                })
            })
            .collect();
        ui::json(&json!({ "stack": cx.stack.name, "restored": restored }))?;
    }
    let rows = sources.iter().zip(swapped).map(|(source, swapped)| {
        vec![
            source.kept.name.clone(),
            source.kept.backup.clone(),
            units::plural(source.database.tables.len(), "table"),
            format!("{} rows", units::count(source.manifest.rows())),
            units::seconds(swapped.ready),
            format!("swapped in {} ms", swapped.swap.as_millis()),
        ]
    });
    ui::tell(table::columns(rows.collect(), &[2, 3, 4]));
    let mut roles: Vec<&str> =
        swapped.iter().flat_map(|swapped| swapped.new_roles.iter().map(String::as_str)).collect();
    roles.sort_unstable();
    roles.dedup();
    if !roles.is_empty() {
        ui::tell(format!("\nnew roles, that nobody can log in as: {}", roles.join(", ")));
    }
    let option = cx.stack_option();
    let name = name_of(args);
    ui::tell(format!(
        "\n{} restored and compared with the backup, in {}. What was there is kept: `cargo xtask restore{name} --undo{option}` brings \
        it back, `--drop-old` drops it. Next: `cargo xtask migrate status{option}`",
        units::plural(sources.len(), "database"),
        units::seconds(begun.elapsed()),
    ));
    Ok(Exit::Done)
}
