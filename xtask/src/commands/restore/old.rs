//! `cargo xtask restore --undo` and `--drop-old`: what restores have replaced, brought back or let go.

use std::time::Instant;

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::json;

use super::{BEFORE_RESTORE, connected, keep_redis, name, name_of, places, server, service};
use crate::cli::RestoreArgs;
use crate::context::Context;
use crate::data::backup::store::Store;
use crate::data::restore::database::Place;
use crate::data::restore::redis;
use crate::data::restore::swap::Old;
use crate::engine::Engine;
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::stack::Kind;
use crate::ui::{self, Exit, Failure, table, units};

/// The databases and Redis of one restore are swapped one after the other, within this time.
const TOGETHER: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

pub async fn undo(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Exit> {
    if let Some(asked) = name(args)
        && matches!(service(cx, asked)?.kind, Kind::Redis(_))
    {
        return undo_redis(cx, args, instance, asked).await;
    }
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
        server(place).check_clients(&place.login.database, connected(args)).await?;
    }
    Known::forget(instance)?;
    let (mut rows, mut undone) = (Vec::new(), Vec::new());
    for (place, old) in &found {
        let begun = Instant::now();
        server(place).swap_back(&old.database, &place.login.database).await?;
        undone.push(json!({
            "name": place.name,
            "replaced": old.replaced,
            "swap_seconds": begun.elapsed().as_secs_f64(),
        }));
        rows.push(vec![
            place.name.clone(),
            format!("as it was before {}", units::clock(old.replaced)),
            units::megabytes(old.bytes),
            format!("{} ms", begun.elapsed().as_millis()),
        ]);
    }
    if name(args).is_none()
        && let Some(asked) = redis_restored_with(cx, &found)?
    {
        undo_redis(cx, args, instance, &asked).await?;
    }
    if args.json {
        ui::json(&json!({ "stack": cx.stack.name, "undone": undone }))?;
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
    match name(args) {
        Some(name) => places(cx, instance, &[service(cx, name)?.short_name.clone()]).await,
        None => running_places(cx, instance, &[]).await,
    }
}

/// Those of these databases that run; of all, where none is named.
async fn running_places(cx: &Context, instance: &Instance, names: &[String]) -> Result<Vec<Place>> {
    let running = Engine::of(&cx.repository, &cx.stack, instance).running(&cx.stack).await?;
    let databases = cx.stack.databases().map(|(service, _)| service.short_name.clone());
    let asked = databases.filter(|name| names.is_empty() || names.contains(name));
    let asked: Vec<String> = asked.filter(|name| running.iter().any(|server| server.service == *name)).collect();
    places(cx, instance, &asked).await
}

/// What restores have replaced, on one server.
#[derive(Debug)]
pub struct Replaced {
    place: Place,
    all: Vec<Old>,
}

impl Replaced {
    /// On those of the places that have any.
    async fn on(places: Vec<Place>) -> Result<Vec<Replaced>> {
        let mut found = Vec::new();
        for place in places {
            let all = server(&place).old(&place.login.database).await?;
            if !all.is_empty() {
                found.push(Replaced { place, all });
            }
        }
        Ok(found)
    }

    /// On servers that run, of those names; of all, where none is given.
    pub async fn of(cx: &Context, instance: &Instance, names: &[String]) -> Result<Vec<Replaced>> {
        Replaced::on(running_places(cx, instance, names).await?).await
    }

    /// Database, when it was replaced, bytes.
    pub fn each(&self) -> impl Iterator<Item = (&str, Timestamp, u64)> {
        self.all.iter().map(|old| (self.place.name.as_str(), old.replaced, old.bytes))
    }

    /// Drops all of them; how many there were.
    pub async fn let_go(&self) -> Result<usize> {
        server(&self.place).drop_old(&self.all).await?;
        Ok(self.all.len())
    }
}

pub async fn drop_old(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Exit> {
    let found = Replaced::on(asked_places(cx, args, instance).await?).await?;
    if found.is_empty() {
        ui::tell("no restore has left an old database");
        return Ok(Exit::Done);
    }
    let rows = found.iter().flat_map(Replaced::each).map(|(name, replaced, bytes)| {
        vec![name.to_owned(), format!("replaced {}", units::clock(replaced)), units::megabytes(bytes)]
    });
    ui::tell(format!("This drops what restores have replaced:\n\n{}", table::columns(rows.collect(), &[2])));
    if !args.yes {
        let command = format!("cargo xtask restore{} --drop-old --yes{}", name_of(args), cx.stack_option());
        cx.agree(&command, "nothing was done").await?;
    }
    let mut count = 0;
    for replaced in &found {
        count += replaced.let_go().await?;
    }
    ui::tell(format!("{} dropped", units::plural(count, "old database")));
    Ok(Exit::Done)
}

/// Redis, if it was replaced together with the latest of these databases.
fn redis_restored_with(cx: &Context, found: &[(Place, Old)]) -> Result<Option<String>> {
    let Some(replaced) = found.iter().map(|(_, old)| old.replaced).max() else { return Ok(None) };
    let Some(redis) = cx.stack.find(|kind| matches!(kind, Kind::Redis(_))) else { return Ok(None) };
    let store = Store::of(&cx.repository, &cx.stack.name);
    let kept = store.list(&redis.short_name)?.into_iter().rfind(|kept| kept.backup.ends_with(BEFORE_RESTORE));
    let is_together =
        kept.and_then(|kept| kept.time()).is_some_and(|time| time.duration_since(replaced).abs() < TOGETHER);
    Ok(is_together.then(|| redis.short_name.clone()))
}

/// The latest of what was kept of Redis before a restore; what it has now is kept the same way.
async fn undo_redis(cx: &Context, args: &RestoreArgs, instance: &Instance, asked: &String) -> Result<Exit> {
    let asked = &service(cx, asked)?.short_name;
    let store = Store::of(&cx.repository, &cx.stack.name);
    let kept = store.list(asked)?.into_iter().rfind(|kept| kept.backup.ends_with(BEFORE_RESTORE));
    let Some(kept) = kept else {
        bail!(Failure::new(Exit::Failed, format!("`{asked}` has nothing to go back to: no restore has replaced it")));
    };
    let running = Engine::of(&cx.repository, &cx.stack, instance).running(&cx.stack).await?;
    let Some(server) = running.iter().find(|server| server.service == *asked) else {
        let hint = format!("`cargo xtask up {asked}{}`", cx.stack_option());
        bail!(Failure::new(Exit::Failed, format!("`{asked}` is not running")).hint(hint));
    };
    let side = redis::prepare(&kept, None, server, instance).await?;
    keep_redis(cx, instance).await?;
    let keys = side.keys;
    side.swap(server.port).await?;
    if args.json {
        ui::json(&serde_json::json!({ "stack": cx.stack.name, "undone": [{ "name": asked, "backup": kept.backup }] }))?;
    }
    ui::tell(format!(
        "{asked} is as it was: {} keys. `--undo` again brings the restored ones back",
        units::count(keys)
    ));
    Ok(Exit::Done)
}
