//! `cargo xtask restore --undo` and `--drop-old`: what restores have replaced, brought back or let go.

use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::json;

use super::redis::{Replacement, kept_before};
use super::{connected, name, name_of, places, server, service};
use crate::cli::RestoreArgs;
use crate::context::Context;
use crate::data::backup::store::Kept;
use crate::data::restore::database::Place;
use crate::data::restore::group::{self, Member};
use crate::data::restore::swap::Old;
use crate::engine::Engine;
use crate::engine::server::Server;
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, Failure, table, units};

/// What is brought back together.
#[derive(Debug, Default)]
struct Back {
    databases: Vec<(Place, Old)>,
    /// What was kept of it, and the server.
    redis: Option<(Kept, Server)>,
    /// What the same restore did not replace, where all are asked for.
    untouched: Vec<String>,
}

pub async fn undo(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Exit> {
    let back = match name(args) {
        None => of_latest_restore(cx, instance).await?,
        Some(asked) => of_one(cx, instance, service(cx, asked)?).await?,
    };
    if back.databases.is_empty() && back.redis.is_none() {
        if args.json {
            ui::json(&json!({ "stack": cx.stack.name, "undone": [], "untouched": back.untouched }))?;
        }
        ui::tell("nothing to go back to: no restore has replaced anything");
        return Ok(Exit::Done);
    }
    let check_clients = async || {
        for (place, _) in &back.databases {
            server(place).check_clients(&place.login.database, connected(args)).await?;
        }
        anyhow::Ok(())
    };
    check_clients().await?;
    let redis = match &back.redis {
        Some((kept, server)) => {
            let redis = Replacement::prepare(cx, instance, kept, None, server).await?;
            check_clients().await?;
            Some(redis)
        }
        None => None,
    };
    Known::forget(instance)?;
    let replaced = redis.as_ref().map_or_else(Timestamp::now, Replacement::time);
    let members = back.databases.iter().map(|(place, old)| Member {
        server: server(place),
        live: &place.login.database,
        new: &old.database,
        beside: String::new(),
    });
    let rest = async {
        match redis {
            Some(redis) => redis.swap().await.map(Some),
            None => Ok(None),
        }
    };
    let (swapped, keys) = group::swap(members.collect(), replaced, rest).await?;
    let took: Vec<Duration> = swapped.iter().map(|swapped| swapped.took).collect();
    tell_undone(cx, args, &back, &took, keys)
}

fn tell_undone(cx: &Context, args: &RestoreArgs, back: &Back, took: &[Duration], keys: Option<u64>) -> Result<Exit> {
    let (mut rows, mut undone) = (Vec::new(), Vec::new());
    let as_before = |time: Timestamp| format!("as it was before {}", units::clock(time));
    for ((place, old), took) in back.databases.iter().zip(took) {
        undone.push(json!({ "name": place.name, "replaced": old.replaced, "swap_seconds": took.as_secs_f64() }));
        let (bytes, took) = (units::megabytes(old.bytes), format!("{} ms", took.as_millis()));
        rows.push(vec![place.name.clone(), as_before(old.replaced), bytes, took]);
    }
    let mut what = match back.databases.len() {
        0 => Vec::new(),
        count => vec![units::plural(count, "database")],
    };
    if let (Some((kept, _)), Some(keys)) = (&back.redis, keys) {
        undone.push(json!({ "name": kept.name, "replaced": kept.time(), "backup": kept.backup, "keys": keys }));
        let keys = units::plural(keys, "key");
        rows.push(vec![kept.name.clone(), kept.time().map_or_else(String::new, as_before), keys]);
        what.push(kept.name.clone());
    }
    if args.json {
        ui::json(&json!({ "stack": cx.stack.name, "undone": undone, "untouched": back.untouched }))?;
    }
    ui::tell(table::columns(rows, &[2, 3]));
    let untouched = match back.untouched.is_empty() {
        true => String::new(),
        false => format!(". Not of that restore, and untouched: {}", back.untouched.join(", ")),
    };
    ui::tell(format!(
        "\n{} swapped back; what was restored is kept, and `--undo` again brings it back{untouched}",
        what.join(" and ")
    ));
    Ok(Exit::Done)
}

/// Of one service, whatever else was replaced together with it.
async fn of_one(cx: &Context, instance: &Instance, service: &Service) -> Result<Back> {
    let name = &service.short_name;
    let nothing = || {
        let title = format!("`{name}` has nothing to go back to: no restore has replaced it");
        Failure::new(Exit::Failed, title)
    };
    if matches!(service.kind, Kind::Redis(_)) {
        let Some(kept) = kept_before(cx, name)? else { bail!(nothing()) };
        return Ok(Back { redis: Some(with_server(cx, instance, kept).await?), ..Back::default() });
    }
    let mut databases = Vec::new();
    for place in places(cx, instance, std::slice::from_ref(name)).await? {
        let old = server(&place).latest(&place.login.database).await?;
        databases.push((place, old.ok_or_else(nothing)?));
    }
    Ok(Back { databases, ..Back::default() })
}

/// Of all that the latest restore, or the latest way back, has replaced at once. Another one's are left alone.
async fn of_latest_restore(cx: &Context, instance: &Instance) -> Result<Back> {
    let mut found = Vec::new();
    for place in running_places(cx, instance, &[]).await? {
        let old = server(&place).latest(&place.login.database).await?;
        found.push((place, old));
    }
    let redis = match cx.stack.find(|kind| matches!(kind, Kind::Redis(_))) {
        Some(redis) => kept_before(cx, &redis.short_name)?,
        None => None,
    };
    // Backups outlive what they are of.
    let redis = redis.filter(|kept| kept.time() >= Some(instance.identity.created));
    let times = found.iter().filter_map(|(_, old)| Some(old.as_ref()?.replaced));
    let latest = times.chain(redis.as_ref().and_then(Kept::time)).max();
    let mut back = Back::default();
    for (place, old) in found {
        match old.filter(|old| Some(old.replaced) == latest) {
            Some(old) => back.databases.push((place, old)),
            None => back.untouched.push(place.name),
        }
    }
    match redis.filter(|kept| kept.time() == latest) {
        Some(kept) => back.redis = Some(with_server(cx, instance, kept).await?),
        None => back.untouched.extend(running_redis(cx, instance).await?.map(|server| server.service)),
    }
    Ok(back)
}

/// With the server that it goes back to.
async fn with_server(cx: &Context, instance: &Instance, kept: Kept) -> Result<(Kept, Server)> {
    match running_redis(cx, instance).await?.filter(|server| server.service == kept.name) {
        Some(server) => Ok((kept, server)),
        None => bail!(Failure::new(Exit::Failed, format!("`{}` is not running", kept.name)).hint(format!(
            "`cargo xtask up {}{}`",
            kept.name,
            cx.stack_option()
        ))),
    }
}

async fn running_redis(cx: &Context, instance: &Instance) -> Result<Option<Server>> {
    let running = Engine::of(&cx.repository, &cx.stack, instance).running(&cx.stack).await?;
    let is_redis = |server: &Server| {
        cx.stack.service(&server.service).is_some_and(|service| matches!(service.kind, Kind::Redis(_)))
    };
    Ok(running.into_iter().find(is_redis))
}

async fn asked_places(cx: &Context, args: &RestoreArgs, instance: &Instance) -> Result<Vec<Place>> {
    match name(args) {
        Some(name) => places(cx, instance, &[service(cx, name)?.short_name.clone()]).await,
        None => running_places(cx, instance, &[]).await,
    }
}

/// Those of these databases that run; of all, where none is named.
pub async fn running_places(cx: &Context, instance: &Instance, names: &[String]) -> Result<Vec<Place>> {
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
