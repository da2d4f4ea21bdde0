//! `cargo xtask backup`: verified copies to keep. Without a word behind it, it takes one: a single cut through everything
//! that is asked for.

pub mod before;
mod list;
mod prune;
pub mod schedule;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use archive::part::Seal;
use serde_json::{Value, json};

use crate::cli::{BackupArgs, BackupPlaceArgs, BackupTakeArgs, BackupVerb};
use crate::commands::upgrade::state as upgrade;
use crate::context::{Context, unknown};
use crate::data::backup::manifest::{Manifest, Origin, Subject};
use crate::data::backup::place::Place;
use crate::data::backup::seal::Age;
use crate::data::backup::store::{self, Store};
use crate::data::backup::take::{self, Kind, Other, Recipe, Source, Taken};
use crate::data::target;
use crate::engine::clients::Clients;
use crate::engine::server::Server;
use crate::engine::{Engine, redis};
use crate::instance::Instance;
use crate::stack::{self, Service};
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &BackupArgs) -> Result<Exit> {
    match &args.verb {
        None => {
            let is_whole = args.take.all || !args.take.names.is_empty();
            let absent = if is_whole { Absent::Refused } else { Absent::LeftOut };
            take(cx, &args.take, absent).await.map(|_| Exit::Done)
        }
        Some(BackupVerb::List(args)) => list::list(cx, args),
        Some(BackupVerb::Show(args)) => list::show(cx, args),
        Some(BackupVerb::Verify(args)) => verify::run(cx, args).await,
        Some(BackupVerb::Prune(args)) => prune::run(cx, args).await,
        Some(BackupVerb::Schedule(args)) => schedule::run(cx, args),
        Some(BackupVerb::Scheduled) => schedule::run_scheduled(cx).await,
    }
}

/// Takes what a person asks for, and tells it.
async fn take(cx: &Context, args: &BackupTakeArgs, absent: Absent) -> Result<Vec<Taken>> {
    let begun = Instant::now();
    if let Some(label) = &args.label {
        store::check_label(label)?;
    }
    let services = asked(cx, &args.names)?;
    let instance = cx.running_instance()?;
    let _lock = cx.lock().await?;
    upgrade::refuse_if_interrupted(cx, &instance)?;
    let store = store(cx, args.to.as_deref())?;
    let order = Order {
        services: &services,
        absent,
        label: args.label.as_deref(),
        recipients: &args.recipient,
        kind: if args.incremental { Kind::Incremental } else { Kind::Full },
    };
    let (taken, skew_micros) = take_set(cx, &instance, &store, &order).await?;
    report(cx, args, &store, &taken, skew_micros, begun)?;
    Ok(taken)
}

/// What becomes of a service that does not run. Where none does, nothing is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    Refused,
    LeftOut,
}

/// What is to be backed up, and how.
#[derive(Debug)]
pub struct Order<'a> {
    pub services: &'a [&'a Service],
    pub absent: Absent,
    pub label: Option<&'a str>,
    pub recipients: &'a [String],
    pub kind: Kind,
}

impl<'a> Order<'a> {
    /// All of these, in full, with nobody but the owner of the files in mind.
    pub fn full(services: &'a [&'a Service], label: Option<&'a str>) -> Order<'a> {
        Order { services, absent: Absent::Refused, label, recipients: &[], kind: Kind::Full }
    }
}

/// Takes a backup of these services, all in one cut.
pub async fn take_set(
    cx: &Context,
    instance: &Instance,
    store: &Store,
    order: &Order<'_>,
) -> Result<(Vec<Taken>, u64)> {
    let Order { services, label, recipients, .. } = *order;
    let seal = match recipients.is_empty() {
        true => None,
        false => Some(Arc::new(Age::for_recipients(recipients)?) as Arc<dyn Seal + Send + Sync>),
    };
    let engine = Engine::of(&cx.repository, &cx.stack, instance);
    let running = engine.running(&cx.stack).await?;
    let server = |service: &Service| running.iter().find(|server| server.service == service.short_name);
    let absent: Vec<&str> = services
        .iter()
        .filter(|service| server(service).is_none())
        .map(|service| service.short_name.as_str())
        .collect();
    if order.absent == Absent::Refused && !absent.is_empty() || absent.len() == services.len() {
        let hint = format!("`cargo xtask up {}{}`", absent.join(" "), cx.stack_option());
        bail!(Failure::new(Exit::Failed, format!("not running: {}", absent.join(", "))).hint(hint));
    }
    let present: Vec<(&Service, &Server)> =
        services.iter().filter_map(|service| Some((*service, server(service)?))).collect();
    let databases: Vec<String> = present
        .iter()
        .filter(|(service, _)| service.postgres().is_some())
        .map(|(service, _)| service.short_name.clone())
        .collect();
    let targets = target::open(&engine, &cx.stack, &databases).await?;
    let mut sources = Vec::new();
    for target in targets {
        let Some(server) = server(target.service) else { continue };
        sources.push(Source { clients: Clients::of(server)?, target });
    }
    let others: Vec<Other> = present.iter().filter_map(|(service, server)| other(service, server)).collect();
    release(&others).await?;
    check_space(store, &mut sources).await?;
    let names: Vec<String> = present.iter().map(|(service, _)| service.short_name.clone()).collect();
    store.remove_partials(&names)?;
    let backup = store::free_name(store, &names, label).await?;
    let origin = Origin::here(&cx.repository.root);
    let recipe = Recipe {
        store,
        stack: &cx.stack.name,
        origin: &origin,
        backup: &backup,
        label,
        seal,
        recipients,
        kind: order.kind,
    };
    let (taken, moment) = take::set(sources, &others, &recipe).await?;
    Ok((taken, moment.skew_micros))
}

/// What an interrupted restore has left of Redis gives nobody its data.
async fn release(others: &[Other]) -> Result<()> {
    for other in others {
        if let Other::Redis { name, port } = other
            && redis::release(*port).await.with_context(|| format!("cannot back up `{name}`"))?
        {
            ui::tell(format!("note: {name} {}", redis::RELEASED));
        }
    }
    Ok(())
}

/// The services that can be backed up, of those names or all.
pub fn asked<'a>(cx: &'a Context, names: &[String]) -> Result<Vec<&'a Service>> {
    let holds_data = |service: &&Service| !matches!(service.kind, stack::Kind::Tool(_));
    if names.is_empty() {
        return Ok(cx.stack.services.iter().filter(holds_data).collect());
    }
    let services = cx.services(names)?;
    if let Some(tool) = services.iter().find(|service| !holds_data(service)) {
        let all = cx.stack.services.iter().filter(holds_data).map(|service| service.short_name.as_str());
        bail!(unknown("backup of", &tool.short_name, all.collect::<Vec<_>>()));
    }
    Ok(services)
}

/// The backups in the place that a person names, or in the checkout.
pub fn store(cx: &Context, named: Option<&Path>) -> Result<Store> {
    match named {
        Some(named) => Store::at(&Place::named(named, &cx.folder)?, &cx.stack.name),
        None => Ok(Store::of(&cx.repository, &cx.stack.name)),
    }
}

/// Where a verb that reads backups looks, and what opens encrypted ones.
pub fn sources(cx: &Context, args: &BackupPlaceArgs) -> Result<(Store, Option<Age>)> {
    let store = store(cx, args.at.as_deref())?;
    let seal = match args.identity.is_empty() {
        true => None,
        false => Some(Age::with_identities(&args.identity, &cx.folder)?),
    };
    Ok((store, seal))
}

/// What opens the parts of a backup; an error where it is encrypted and nothing does.
pub fn opened_by<'a>(manifest: &Manifest, seal: Option<&'a Age>) -> Result<Option<&'a dyn Seal>> {
    match (manifest.is_encrypted, seal) {
        (false, _) => Ok(None),
        (true, Some(age)) => Ok(Some(age)),
        (true, None) => bail!(
            Failure::new(Exit::Usage, format!("backup `{}` of `{}` is encrypted", manifest.backup, manifest.name))
                .hint("name the file of the private key: `--identity key.txt`")
        ),
    }
}

fn other(service: &Service, server: &Server) -> Option<Other> {
    let name = service.short_name.clone();
    match &service.kind {
        stack::Kind::Redis(_) => Some(Other::Redis { name, port: server.port }),
        stack::Kind::PubSub(pubsub) => {
            let project = server.project.clone().unwrap_or_else(|| pubsub.project.clone());
            Some(Other::PubSub { name, port: server.port, project })
        }
        _ => None,
    }
}

/// A dump is smaller than its database, as a rule by far: what the databases take must be free. Asked over the connections
/// that are open: another login costs more than the question.
async fn check_space(store: &Store, sources: &mut [Source<'_>]) -> Result<()> {
    let Some(free) = store.place.free_space() else { return Ok(()) };
    let sizes = sources.iter_mut().map(async |source| {
        let size = sqlx::query_scalar::<_, i64>("SELECT pg_database_size(current_database())");
        size.fetch_one(&mut source.target.connection).await
    });
    let sizes = futures_util::future::try_join_all(sizes).await?;
    let needed = sizes.into_iter().filter_map(|size| u64::try_from(size).ok()).sum();
    if free < needed {
        bail!(
            Failure::new(
                Exit::Failed,
                format!("the databases have {}, and {} are free", units::megabytes(needed), units::megabytes(free))
            )
            .body(format!("  on the disk of {}", store.place))
            .hint("free some space, or put the backup elsewhere: `--to FOLDER`")
        );
    }
    Ok(())
}

fn report(
    cx: &Context,
    args: &BackupTakeArgs,
    store: &Store,
    taken: &[Taken],
    skew_micros: u64,
    begun: Instant,
) -> Result<()> {
    if args.json {
        let backups: Vec<Value> = taken
            .iter()
            .map(
                |taken| json!({ "name": taken.manifest.name, "folder": taken.kept.place.to_string(), "manifest": taken.manifest }),
            )
            .collect();
        ui::json(&json!({ "stack": cx.stack.name, "backups": backups }))?;
    }
    let rows = taken.iter().map(|taken| {
        let mut row = vec![taken.manifest.name.clone()];
        row.extend(described(&taken.manifest));
        row.extend(args.incremental.then(|| taken.manifest.taken_over().unwrap_or_default()));
        row.push(units::seconds(std::time::Duration::from_secs_f64(taken.manifest.seconds)));
        row
    });
    ui::tell(table::columns(rows.collect(), &[1, 3, 4, 5, 6, 7]));
    let databases = taken.iter().filter(|taken| taken.manifest.database().is_some()).count();
    let rest =
        taken.iter().filter(|taken| taken.manifest.database().is_none()).map(|taken| taken.manifest.name.as_str());
    let mut what: Vec<String> = Vec::new();
    if databases > 0 {
        what.push(units::plural(databases, "database"));
    }
    what.extend(rest.map(str::to_owned));
    let cut = match taken.len() {
        0 | 1 => String::new(),
        _ => format!(" in one cut ({} ms apart)", skew_micros.div_ceil(1000)),
    };
    let bytes = taken.iter().map(|taken| taken.manifest.bytes()).sum();
    let new = match args.incremental {
        true => format!("{} new of ", units::megabytes(taken.iter().map(|taken| taken.manifest.new_bytes()).sum())),
        false => String::new(),
    };
    let folder = match taken {
        [one] => one.kept.place.shown(&cx.folder),
        _ => {
            let backup = taken.first().map_or("", |taken| &taken.kept.backup);
            store.place.join("*").join(backup).shown(&cx.folder)
        }
    };
    ui::tell(format!(
        "\n{}{cut}, {new}{} in {} → {}",
        what.join(" and "),
        units::megabytes(bytes),
        units::seconds(begun.elapsed()),
        folder
    ));
    Ok(())
}

/// `41.0 MB`, `→`, `6.2 MB`, `5 tables`, `210,442 rows`: the columns of a table.
pub fn described(manifest: &Manifest) -> Vec<String> {
    let raw: u64 = manifest.parts.iter().map(|part| part.raw_bytes).sum();
    let (raw, bytes) = (units::megabytes(raw), units::megabytes(manifest.bytes()));
    let (first, second) = match &manifest.subject {
        Subject::Database(database) => {
            (units::plural(database.tables.len(), "table"), units::plural(manifest.rows(), "row"))
        }
        Subject::Redis(redis) => (String::new(), units::plural(redis.keys, "key")),
        Subject::PubSub(pubsub) => {
            let topics = units::plural(pubsub.topics.len(), "topic");
            return vec![
                String::new(),
                String::new(),
                String::new(),
                topics,
                units::plural(pubsub.subscriptions.len(), "subscription"),
            ];
        }
    };
    vec![raw, "→".to_owned(), bytes, first, second]
}
