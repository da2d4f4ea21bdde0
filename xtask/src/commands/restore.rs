//! `cargo xtask restore`: brings back what a backup holds. Each database is restored beside the live one and compared with the
//! backup's evidence; then it takes the live one's place, which is kept.

mod beside;
mod foreign;
pub mod old;
mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use archive::part::Seal;
use jiff::Timestamp;
use redis::Replacement;
use serde_json::{Value, json};

use super::backup::{asked, opened_by, sources};
use crate::cli::RestoreArgs;
use crate::commands::upgrade::state as upgrade;
use crate::context::{Context, unknown};
use crate::data::backup::manifest::{self, Manifest, Subject};
use crate::data::backup::seal::Age;
use crate::data::backup::store::{Kept, LATEST, Store};
use crate::data::locale::OtherLocale;
use crate::data::restore::database::{self, Place, Ready};
use crate::data::restore::group::{self, Member};
use crate::data::restore::load::Source;
use crate::data::restore::swap::{self, Connected};
use crate::data::target;
use crate::engine::clients::Clients;
use crate::engine::server::Server;
use crate::engine::{Engine, pubsub};
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::stack::model::{PubSub, Subscription, Topic};
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &RestoreArgs) -> Result<Exit> {
    let begun = Instant::now();
    let instance = cx.running_instance()?;
    let _lock = cx.lock().await?;
    upgrade::refuse_if_interrupted(cx, &instance)?;
    if args.undo {
        return old::undo(cx, args, &instance).await;
    }
    if args.drop_old {
        return old::drop_old(cx, args, &instance).await;
    }
    if let Some(file) = &args.from {
        return foreign::run(cx, args, &instance, &cx.folder.join(file)).await;
    }
    let (store, seal) = sources(cx, &args.place)?;
    let seal = seal.map(Arc::new);
    let wanted: Vec<Kept> = match (name(args), &args.name) {
        (Some(name), _) => vec![store.find(&service(cx, name)?.short_name, &args.backup)?],
        (None, backup) => whole_set(cx, &store, backup.as_deref().unwrap_or(LATEST))?,
    };
    let set = Members::find(cx, &instance, wanted, seal.as_ref()).await?;
    if args.table.is_some() || args.into.is_some() {
        return beside::run(cx, args, &set).await;
    }
    for place in &set.places {
        server(place).check_clients(&place.login.database, connected(args)).await?;
    }
    let ready = database::prepare_all(&set.sources, &set.places, "restoring").await?;
    let redis = match &set.redis {
        Some((kept, server)) => {
            let opened = open(&kept.manifest()?, seal.as_ref())?;
            Some(Replacement::prepare(cx, &instance, kept, opened, server).await?)
        }
        None => None,
    };
    for place in &set.places {
        server(place).check_clients(&place.login.database, connected(args)).await?;
    }
    Known::forget(&instance)?;
    let replaced = redis.as_ref().map_or_else(Timestamp::now, Replacement::time);
    let others = replace_others(&set, redis);
    let (swapped, others) = swap_with(&set.sources, &set.places, ready, replaced, others).await?;
    report(cx, args, &set.sources, &swapped, others, begun)
}

/// What is restored, each with where it goes.
struct Members {
    sources: Vec<Source>,
    places: Vec<Place>,
    redis: Option<(Kept, Server)>,
    pubsub: Option<(Kept, PubSub, u16)>,
}

impl Members {
    /// Reads and proves the backups; what the stack no longer has is left out.
    async fn find(cx: &Context, instance: &Instance, wanted: Vec<Kept>, seal: Option<&Arc<Age>>) -> Result<Members> {
        let position = |kept: &Kept| cx.stack.services.iter().position(|service| service.short_name == kept.name);
        let mut wanted: Vec<(usize, Kept)> =
            wanted.into_iter().filter_map(|kept| position(&kept).map(|position| (position, kept))).collect();
        wanted.sort_by_key(|(position, _)| *position);
        let running = Engine::of(&cx.repository, &cx.stack, instance).running(&cx.stack).await?;
        let server = |name: &str| match running.iter().find(|server| server.service == name) {
            Some(server) => Ok(server.clone()),
            None => bail!(
                Failure::new(Exit::Failed, format!("`{name}` is not running"))
                    .hint(format!("`cargo xtask up {name}{}`", cx.stack_option()))
            ),
        };
        let mut members = Members { sources: Vec::new(), places: Vec::new(), redis: None, pubsub: None };
        for (position, kept) in wanted {
            let manifest = kept.manifest()?;
            match (&cx.stack.services[position].kind, &manifest.subject) {
                (Kind::Postgres(_), Subject::Database(_)) => {
                    members.sources.push(database::source(kept, open(&manifest, seal)?).await?);
                }
                (Kind::Redis(_), Subject::Redis(_)) => {
                    let server = server(&kept.name)?;
                    members.redis = Some((kept, server));
                }
                (Kind::PubSub(_), Subject::PubSub(topics)) => {
                    let server = server(&kept.name)?;
                    members.pubsub = Some((kept, model_of(topics, server.project.as_deref()), server.port));
                }
                _ => bail!(Failure::new(Exit::Refused, format!("`{}` is a backup of something else", kept.shown()))),
            }
        }
        let names: Vec<String> = members.sources.iter().map(|source| source.kept.name.clone()).collect();
        members.places = places(cx, instance, &names).await?;
        Ok(members)
    }
}

/// Topics as the emulator is asked to make them, in the project that it has now.
fn model_of(topics: &manifest::PubSub, project: Option<&str>) -> PubSub {
    PubSub {
        project: project.unwrap_or(&topics.project).to_owned(),
        topics: topics.topics.iter().map(|id| Topic { id: id.clone(), events: Vec::new() }).collect(),
        subscriptions: topics
            .subscriptions
            .iter()
            .map(|one| Subscription {
                id: one.id.clone(),
                topic: one.topic.clone(),
                application: String::new(),
                ordering: one.ordering,
            })
            .collect(),
    }
}

/// Topics come first, for they are only added. Gives a row of the report for each.
async fn replace_others(set: &Members, redis: Option<Replacement>) -> Result<Vec<Vec<String>>> {
    let mut topics = None;
    if let Some((kept, wanted, port)) = &set.pubsub {
        let created = pubsub::create_topics(*port, wanted.clone()).await;
        created.with_context(|| format!("the topics of `{}` could not be made", kept.name))?;
        let count = units::plural(wanted.topics.len(), "topic");
        topics = Some(vec![kept.name.clone(), kept.backup.clone(), count]);
    }
    let mut rows = Vec::new();
    if let (Some(redis), Some((kept, _))) = (redis, &set.redis) {
        let keys = units::plural(redis.swap().await?, "key");
        rows.push(vec![kept.name.clone(), kept.backup.clone(), String::new(), keys]);
    }
    Ok(rows.into_iter().chain(topics).collect())
}

fn connected(args: &RestoreArgs) -> Connected {
    if args.force { Connected::Cut } else { Connected::Refuse }
}

/// The database that is asked for; with `--all` there is none.
fn name(args: &RestoreArgs) -> Option<&String> {
    args.name.as_ref().filter(|_| !args.all)
}

/// The service of that name that can have backups.
fn service<'a>(cx: &'a Context, name: &String) -> Result<&'a Service> {
    match asked(cx, std::slice::from_ref(name))?[..] {
        [service] => Ok(service),
        _ => bail!(Failure::new(Exit::Usage, format!("`{name}` is not one service"))),
    }
}

/// The latest set that has every database of the stack, or the one of that name; with all its members.
fn whole_set(cx: &Context, store: &Store, asked: &str) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for name in store.names()? {
        all.extend(store.list(&name)?);
    }
    let mut names: Vec<&str> = all.iter().map(|kept| kept.backup.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let has = |name: &str, backup: &str| all.iter().any(|kept| kept.name == name && kept.backup == backup);
    let is_whole = |backup: &&str| cx.stack.databases().all(|(service, _)| has(&service.short_name, backup));
    let fitting: Vec<&str> = match asked {
        LATEST => names.iter().copied().rfind(is_whole).into_iter().collect(),
        asked => names.iter().copied().filter(|name| name.starts_with(asked)).collect(),
    };
    let chosen = match fitting[..] {
        [one] => one.to_owned(),
        [] if asked == LATEST => {
            let title = format!("there is no backup of all databases of {}", cx.stack.name);
            bail!(
                Failure::new(Exit::Failed, title)
                    .hint(format!("`cargo xtask backup --all{}` takes one", cx.stack_option()))
            )
        }
        [] => bail!(unknown("backup", asked, names)),
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

pub fn server(place: &Place) -> swap::Server<'_> {
    swap::Server { door: &place.door, user: &place.login.user, name: &place.name }
}

/// A database that has taken the live one's place.
pub struct Swapped {
    filling: Duration,
    proving: Duration,
    swap: Duration,
    pub new_roles: Vec<String>,
    pub other_locale: Option<OtherLocale>,
}

impl Swapped {
    /// How long it took to be ready for the swap.
    pub fn ready(&self) -> Duration {
        self.filling + self.proving
    }
}

/// Swaps all of them, or none.
pub async fn swap_all(sources: &[Source], places: &[Place], ready: Vec<Ready>) -> Result<Vec<Swapped>> {
    let nothing_else = async { Ok(()) };
    Ok(swap_with(sources, places, ready, Timestamp::now(), nothing_else).await?.0)
}

/// As [`swap_all`], with the rest that is replaced together with them: either all of it is, or no database.
async fn swap_with<T>(
    sources: &[Source],
    places: &[Place],
    ready: Vec<Ready>,
    replaced: Timestamp,
    rest: impl Future<Output = Result<T>>,
) -> Result<(Vec<Swapped>, T)> {
    let members = sources.iter().zip(places).zip(&ready).map(|((source, place), ready)| Member {
        server: server(place),
        live: &place.login.database,
        new: &ready.side.name,
        beside: source.settings(&place.login.database),
    });
    let (swapped, rest) = group::swap(members.collect(), replaced, rest).await?;
    let took: Vec<Duration> = swapped.iter().map(|swapped| swapped.took).collect();
    let swapped = ready.into_iter().zip(took).map(|(ready, swap)| {
        ready.side.keep();
        Swapped {
            filling: ready.filling,
            proving: ready.proving,
            swap,
            new_roles: ready.loaded.new_roles,
            other_locale: ready.loaded.other_locale,
        }
    });
    Ok((swapped.collect(), rest))
}

fn name_of(args: &RestoreArgs) -> String {
    name(args).map_or_else(|| " --all".to_owned(), |name| format!(" {name}"))
}

/// The roles that backups name without their passwords.
pub fn tell_new_roles(swapped: &[Swapped]) {
    let mut roles: Vec<&str> =
        swapped.iter().flat_map(|swapped| swapped.new_roles.iter().map(String::as_str)).collect();
    roles.sort_unstable();
    roles.dedup();
    if !roles.is_empty() {
        ui::tell(format!("\nnew roles, that nobody can log in as: {}", roles.join(", ")));
    }
}

/// What a person must know who takes a restored database for the one that was backed up, each with its name.
pub fn tell_locales<'a>(others: impl IntoIterator<Item = (&'a str, &'a Option<OtherLocale>)>) {
    let told = others.into_iter().filter_map(|(name, other)| Some(other.as_ref()?.told(name)));
    let told: Vec<String> = told.map(|told| ui::paint(ui::WARNING, told)).collect();
    if !told.is_empty() {
        ui::tell(format!("\n{}", told.join("\n")));
    }
}

fn report(
    cx: &Context,
    args: &RestoreArgs,
    sources: &[Source],
    swapped: &[Swapped],
    others: Vec<Vec<String>>,
    begun: Instant,
) -> Result<Exit> {
    if args.json {
        let restored: Vec<Value> = sources
            .iter()
            .zip(swapped)
            .map(|(source, swapped)| {
                json!({
                    "name": source.kept.name,
                    "backup": source.kept.backup,
                    "rows": source.manifest.rows(),
                    "seconds": swapped.ready().as_secs_f64(),
                    "proving_seconds": swapped.proving.as_secs_f64(),
                    "swap_seconds": swapped.swap.as_secs_f64(),
                    "new_roles": swapped.new_roles,
                    "other_locale": swapped.other_locale,
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
            units::plural(source.manifest.rows(), "row"),
            units::seconds(swapped.ready()),
            format!("swapped in {} ms", swapped.swap.as_millis()),
        ]
    });
    let count = sources.len() + others.len();
    ui::tell(table::columns(rows.chain(others).collect(), &[2, 3, 4]));
    tell_new_roles(swapped);
    tell_locales(sources.iter().zip(swapped).map(|(source, swapped)| (&*source.kept.name, &swapped.other_locale)));
    let option = cx.stack_option();
    let name = name_of(args);
    ui::tell(format!(
        "\n{} restored and compared, in {}. What was there is kept: `cargo xtask restore{name} --undo{option}` brings \
        it back, `--drop-old` drops it. Next: `cargo xtask migrate status{option}`",
        units::plural(count, "backup"),
        units::seconds(begun.elapsed()),
    ));
    Ok(Exit::Done)
}
