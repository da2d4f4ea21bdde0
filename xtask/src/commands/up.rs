//! `cargo xtask up`: brings services up, and does nothing where nothing is to be done.
//!
//! Validate, lock, observe, plan; look for everything that could stand in the way (programs, ports, space) and tell it all
//! at once; only then start, in parallel, and wait until each server answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::cli::UpArgs;
use crate::commands::ports::{fix, tell_change};
use crate::commands::upgrade::state as upgrade;
use crate::context::Context;
use crate::engine::choice::{self, Choice};
use crate::engine::docker::images::Image;
use crate::engine::docker::project;
use crate::engine::native::programs::Programs;
use crate::engine::plan::{Action, Started, Step};
use crate::engine::{self, Engine, docker, native, redis};
use crate::instance::lock::Lock;
use crate::instance::{EngineKind, Instance, random_id, registry};
use crate::ports;
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, Failure, failure, progress::Waiting, table, units};

/// How long one service may take that another verb needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what a restarted engine left may take to end.
const LEFTOVERS: Duration = Duration::from_secs(5);

pub async fn run(cx: &mut Context, args: &UpArgs) -> Result<Exit> {
    let begun = Instant::now();
    let selected = select(cx, args)?;
    if args.dry_run {
        return dry_run(cx, args, &selected).await;
    }
    let lock = cx.lock().await?;
    let existing = cx.instance()?;
    if let Some(instance) = &existing {
        upgrade::refuse_if_interrupted(cx, instance)?;
    }
    let choice = choose(cx, args, existing.as_ref(), &selected, cx.offline).await?;
    let is_first = existing.is_none();
    let _name_is_chosen = match choice.engine {
        EngineKind::Docker if is_first && cx.stack.project.is_none() => Some(project::lock().await?),
        _ => None,
    };
    let instance = match existing {
        Some(instance) => instance,
        None => create(cx, choice.engine).await?,
    };
    if is_first {
        upgrade::forget_of_another(&instance)?;
    }
    instance.save()?;
    if let Err(error) = registry::note(&instance) {
        ui::tell(format!("note: other checkouts cannot look this instance up: {}", failure::in_a_line(&error)));
    }
    let names = runnable(cx, args, choice.engine, &selected)?;
    if args.auto_ports {
        move_ports(cx, &instance, &names).await?;
    }
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    if let Engine::Docker(docker) = &engine {
        docker.refresh_compose_file()?;
    }
    let steps = engine.plan(&services(cx, &names)).await?;
    if steps.iter().all(|step| matches!(step.action, Action::Keep { .. })) {
        return unchanged(cx, args, &engine, &lock, &steps).await;
    }
    let taken = lasting_conflicts(&steps).await;
    if !taken.is_empty() {
        let asked = steps.iter().filter(|step| step.action.starts()).map(|step| step.service.ports.len()).sum();
        bail!(ports::conflict_failure(&cx.stack, &taken, asked));
    }
    let ready = prepare(cx, &engine, &steps, choice.images).await?;
    let why = if is_first { format!(" ({})", choice.reason) } else { String::new() };
    let whence = match &ready {
        Ready::Native(programs) if steps.iter().any(|step| step.action.starts()) => {
            format!(" · {}", programs.describe())
        }
        Ready::Native(_) => String::new(),
        Ready::Docker(_) => format!(" · project {}", instance.identity.project.as_deref().unwrap_or_default()),
    };
    ui::tell(format!("{} on the {} engine{why}{whence}\n\n", cx.stack.name, choice.engine));
    let mut results = carry_out(cap_of(args), &engine, &steps, &ready, &lock).await?;
    let migrated = migrate(cx, args, &steps, &mut results).await;
    drop(lock);
    report(cx, args, choice.engine, &steps, results, migrated, begun)
}

/// What came of the migrations.
#[derive(Debug, Default)]
struct Migrated {
    /// By short name, where something was applied.
    counts: Vec<(String, usize)>,
    error: Option<anyhow::Error>,
}

/// Applies what is pending in the databases, once all services are ready. What goes wrong here is told after them.
async fn migrate(cx: &Context, args: &UpArgs, steps: &[Step<'_>], results: &mut [Result<Started>]) -> Migrated {
    if args.no_migrate || results.iter().any(Result::is_err) {
        return Migrated::default();
    }
    let ran = match super::migrate::of_up(cx, steps).await {
        Ok(ran) => ran,
        Err(error) => return Migrated { error: Some(error), ..Migrated::default() },
    };
    let counts: Vec<(String, usize)> = ran.into_iter().map(|ran| (ran.database, ran.steps.len())).collect();
    for (step, started) in steps.iter().zip(results.iter_mut().flatten()) {
        if let Some((_, count)) = counts.iter().find(|(name, _)| *name == step.service.short_name) {
            started.notes.push(units::plural(*count, "migration"));
        }
    }
    Migrated { counts, error: None }
}

/// What an engine starts with.
enum Ready {
    Native(Programs),
    Docker(docker::prepare::Prepared),
}

async fn prepare(
    cx: &Context,
    engine: &Engine<'_>,
    steps: &[Step<'_>],
    images: BTreeMap<String, Image>,
) -> Result<Ready> {
    Ok(match engine {
        Engine::Native(native) => Ready::Native(native.prepare(steps, &cx.toolbox()?).await?),
        Engine::Docker(docker) => Ready::Docker(docker.prepare(steps, images, cx.offline).await?),
    })
}

/// Looks for what those services would start with, or fetches it, and starts nothing.
pub async fn provide(cx: &Context, engine: &Engine<'_>, services: &[&Service]) -> Result<()> {
    match engine {
        Engine::Native(native) => {
            native.provide(services, &cx.toolbox()?).await?.map_err(|missing| native::missing_failure(&missing))?;
        }
        Engine::Docker(docker) => drop(docker.provide(services, BTreeMap::new(), cx.offline).await?),
    }
    Ok(())
}

fn cap_of(args: &UpArgs) -> Duration {
    Duration::from_secs(args.timeout_secs)
}

/// Starts services that another verb needs; every one of them answers then.
pub async fn start(cx: &Context, engine: &Engine<'_>, services: &[&Service], lock: &Lock) -> Result<()> {
    let steps = engine.plan(services).await?;
    let taken = conflicts(&steps);
    if !taken.is_empty() {
        bail!(ports::conflict_failure(&cx.stack, &taken, steps.len()));
    }
    let ready = prepare(cx, engine, &steps, BTreeMap::new()).await?;
    let results = carry_out(PATIENCE, engine, &steps, &ready, lock).await?;
    let failed = results.into_iter().filter_map(Result::err).collect();
    ui::failure::all_of(failed, Exit::Failed, |count| format!("{count} services did not start"))
}

async fn carry_out(
    cap: Duration,
    engine: &Engine<'_>,
    steps: &[Step<'_>],
    ready: &Ready,
    lock: &Lock,
) -> Result<Vec<Result<Started>>> {
    let waiting = Waiting::for_each(steps.iter().map(|step| step.service.short_name.clone()));
    let mut results = match (engine, ready) {
        (Engine::Native(native), Ready::Native(programs)) => {
            native.carry_out(steps, programs, lock, cap, &waiting).await
        }
        (Engine::Docker(docker), Ready::Docker(prepared)) => {
            docker.carry_out(steps, prepared, lock, cap, &waiting).await
        }
        _ => bail!("prepared for another engine"),
    }?;
    for (step, result) in steps.iter().zip(&mut results) {
        release(step, result).await;
    }
    Ok(results)
}

/// One that was just started is nobody's replica; one that was kept may be what an interrupted restore has left.
async fn release(step: &Step<'_>, result: &mut Result<Started>) {
    let (Kind::Redis(_), Action::Keep { running }, Ok(started)) = (&step.service.kind, &step.action, &mut *result)
    else {
        return;
    };
    match redis::release(running.port).await {
        Ok(true) => started.notes.push(redis::RELEASED.to_owned()),
        Ok(false) => {}
        Err(error) => *result = Err(error),
    }
}

async fn choose(
    cx: &Context,
    args: &UpArgs,
    existing: Option<&Instance>,
    selected: &[String],
    offline: bool,
) -> Result<Choice> {
    choice::choose(args.engine, existing, &cx.stack, &services(cx, selected), offline).await
}

/// A new instance on that engine.
async fn create(cx: &Context, engine: EngineKind) -> Result<Instance> {
    if engine == EngineKind::Native {
        return Instance::native(&cx.repository, &cx.stack.name);
    }
    let id = random_id()?;
    let project = project::choose(&cx.repository, &cx.stack, &id).await?;
    Ok(Instance::docker(&cx.repository, &cx.stack.name, project.id.unwrap_or(id), project.name))
}

async fn move_ports(cx: &mut Context, instance: &Instance, names: &[String]) -> Result<()> {
    let engine = Engine::of(&cx.repository, &cx.stack, instance);
    let taken = conflicts(&engine.plan(&services(cx, names)).await?);
    if !taken.is_empty() {
        let change = fix(cx, &taken)?;
        change.write(cx)?;
        tell_change(cx, &change);
        cx.reload()?;
    }
    Ok(())
}

fn services<'a>(cx: &'a Context, names: &[String]) -> Vec<&'a Service> {
    cx.stack.services.iter().filter(|service| names.contains(&service.short_name)).collect()
}

/// The short names of the services that are asked for.
fn select(cx: &Context, args: &UpArgs) -> Result<Vec<String>> {
    let asked = cx.services(&args.services)?;
    let left_out = cx.services(&args.without)?;
    let is_asked = |service: &&Service| match (service.profile, asked.is_empty()) {
        (Some(profile), _) if args.profile.contains(&profile) => true,
        (None, true) => true,
        _ => asked.iter().any(|one| one.name == service.name),
    };
    let names: Vec<String> = cx
        .stack
        .services
        .iter()
        .filter(is_asked)
        .filter(|service| left_out.iter().all(|one| one.name != service.name))
        .map(|service| service.short_name.clone())
        .collect();
    if names.is_empty() {
        bail!(Failure::new(Exit::Usage, "no service is left to start"));
    }
    Ok(names)
}

/// Those that the engine can run. A service asked for by name that it cannot is an error, one of a profile is left out.
fn runnable(cx: &Context, args: &UpArgs, engine: EngineKind, selected: &[String]) -> Result<Vec<String>> {
    let (can, cannot): (Vec<&Service>, Vec<&Service>) =
        services(cx, selected).into_iter().partition(|service| engine::runs(engine, &service.kind));
    let asked = cx.services(&args.services)?;
    if let Some(tool) = cannot.iter().find(|tool| asked.iter().any(|service| service.name == tool.name)) {
        let lacks = Engine::lacks(engine).iter().find(|(what, _)| *what == "tools");
        let why = lacks.map_or("", |(_, why)| why);
        bail!(
            Failure::new(
                Exit::Usage,
                format!("`{}` runs in a container, and this is the {engine} engine", tool.short_name)
            )
            .body(format!("  {why}"))
            .hint("`cargo xtask up --engine docker` where Docker is")
        );
    }
    if !cannot.is_empty() {
        let names = cannot.iter().map(|service| service.short_name.as_str()).collect::<Vec<_>>().join(", ");
        ui::tell(format!("note: left out, since they run in containers only: {names}"));
    }
    Ok(can.iter().map(|service| service.short_name.clone()).collect())
}

/// Ports that stand in the way. What a server of ours holds that is about to restart does not.
fn conflicts(steps: &[Step<'_>]) -> Vec<ports::Conflict> {
    let ours: Vec<u16> = steps.iter().filter_map(|step| Some(step.action.lets_go()?.port)).collect();
    ports::conflicts(steps.iter().filter(|step| step.action.starts()).map(|step| step.service), &ours)
}

/// As [`conflicts`], once what an engine of Docker left that was just restarted has had the time to end.
async fn lasting_conflicts(steps: &[Step<'_>]) -> Vec<ports::Conflict> {
    let deadline = Instant::now() + LEFTOVERS;
    loop {
        let taken = conflicts(steps);
        let is_ending = taken.iter().any(|conflict| conflict.holder.is_leftover_of_docker());
        if !is_ending || Instant::now() >= deadline {
            return taken;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn dry_run(cx: &Context, args: &UpArgs, selected: &[String]) -> Result<Exit> {
    let existing = cx.instance()?;
    // Nothing is pulled for a dry run.
    let Choice { engine, reason, .. } = choose(cx, args, existing.as_ref(), selected, true).await?;
    let instance = match existing {
        Some(instance) => instance,
        None => create(cx, engine).await?,
    };
    let names = runnable(cx, args, engine, selected)?;
    let steps = Engine::of(&cx.repository, &cx.stack, &instance).plan(&services(cx, &names)).await?;
    let taken = conflicts(&steps);
    if args.json {
        let plan: Vec<_> = steps
            .iter()
            .map(|step| json!({ "service": step.service.short_name, "action": step.action.describe(), "port": step.service.port().number }))
            .collect();
        ui::json(&json!({ "stack": cx.stack.name, "engine": engine, "plan": plan }))?;
    } else {
        ui::tell(format!("{} on the {engine} engine ({reason}); nothing is done:\n\n", cx.stack.name));
        let rows = steps.iter().map(|step| {
            vec![
                step.service.short_name.clone(),
                format!("127.0.0.1:{}", step.service.port().number),
                step.action.describe(),
            ]
        });
        ui::data(&table::columns(rows.collect(), &[]))?;
    }
    if !taken.is_empty() {
        bail!(ports::conflict_failure(&cx.stack, &taken, steps.len()));
    }
    Ok(Exit::Done)
}

/// Everything runs already: each server is asked, and one line says so.
async fn unchanged(cx: &Context, args: &UpArgs, engine: &Engine<'_>, lock: &Lock, steps: &[Step<'_>]) -> Result<Exit> {
    let (ready, kind) = match engine {
        Engine::Native(_) => (Ready::Native(Programs::default()), EngineKind::Native),
        Engine::Docker(_) => (Ready::Docker(docker::prepare::Prepared::default()), EngineKind::Docker),
    };
    let begun = Instant::now();
    let mut results = carry_out(cap_of(args), engine, steps, &ready, lock).await?;
    let migrated = migrate(cx, args, steps, &mut results).await;
    let is_quiet = results.iter().all(|result| result.as_ref().is_ok_and(|started| started.notes.is_empty()));
    if !is_quiet || args.json || migrated.error.is_some() {
        return report(cx, args, kind, steps, results, migrated, begun);
    }
    ui::tell(format!("{} is up: {}, unchanged", cx.stack.name, units::plural(steps.len(), "service")));
    Ok(Exit::Done)
}

fn report(
    cx: &Context,
    args: &UpArgs,
    engine: EngineKind,
    steps: &[Step<'_>],
    results: Vec<Result<Started>>,
    migrated: Migrated,
    begun: Instant,
) -> Result<Exit> {
    let address = |service: &Service| format!("127.0.0.1:{}", service.port().number);
    if args.json {
        let services: Vec<_> = steps
            .iter()
            .zip(&results)
            .map(|(step, result)| {
                let migrations = migrated.counts.iter().find(|(name, _)| *name == step.service.short_name);
                json!({
                    "name": step.service.short_name,
                    "address": address(step.service),
                    "action": step.action.describe(),
                    "migrations": migrations.map_or(0, |(_, count)| *count),
                    "state": if result.is_ok() { "ready" } else { "failed" },
                    "version": result.as_ref().ok().map(|started| &started.version),
                    "seconds": result.as_ref().ok().map(|started| started.took.as_secs_f64()),
                    "error": result.as_ref().err().map(failure::in_a_line),
                })
            })
            .collect();
        let error = migrated.error.as_ref().map(failure::in_a_line);
        ui::json(&json!({
            "stack": cx.stack.name, "engine": engine, "services": services, "migration_error": error,
        }))?;
    }
    let rows = steps.iter().zip(&results).map(|(step, result)| {
        let what = match &step.service.kind {
            Kind::Postgres(postgres) => postgres.database.clone(),
            Kind::PubSub(pubsub) => pubsub.project.clone(),
            _ => String::new(),
        };
        let (state, took, notes) = match (result, &step.action) {
            (Ok(started), Action::Keep { .. }) => {
                let notes = if started.notes.is_empty() { "unchanged".to_owned() } else { started.notes.join(", ") };
                (ui::paint(ui::GOOD, "ready"), String::new(), notes)
            }
            (Ok(started), action) => {
                let mut notes = started.notes.clone();
                if let Action::Restart { .. } = action {
                    notes.insert(0, action.describe());
                }
                (ui::paint(ui::GOOD, "ready"), units::seconds(started.took), notes.join(", "))
            }
            (Err(_), _) => (ui::paint(ui::BAD, "failed"), String::new(), String::new()),
        };
        vec![step.service.short_name.clone(), address(step.service), what, state, took, notes]
    });
    ui::tell(table::columns(rows.collect(), &[4]));
    let failed: Vec<(&Step<'_>, anyhow::Error)> =
        steps.iter().zip(results).filter_map(|(step, result)| Some((step, result.err()?))).collect();
    let ready = steps.len() - failed.len();
    if let Some(error) = migrated.error {
        let services = units::plural(ready, "service");
        ui::tell(format!("\n{services} ready in {}, databases not migrated\n\n", units::seconds(begun.elapsed())));
        return Err(error);
    }
    match failed.len() {
        0 => {
            let option = cx.stack_option();
            let database = steps.iter().find(|step| step.service.postgres().is_some());
            let psql = database
                .map_or_else(String::new, |step| format!(", `cargo xtask psql{option} {}`", step.service.short_name));
            let has_seeds = |step: &&Step<'_>| {
                let seeds = step.service.postgres().map(|postgres| cx.repository.root.join(&postgres.seeds));
                step.action == Action::Create && seeds.is_some_and(|seeds| seeds.is_dir())
            };
            let seed = match steps.iter().any(|step| has_seeds(&step)) {
                true => format!("`cargo xtask seed{option}`, "),
                false => String::new(),
            };
            ui::tell(format!(
                "\n{} ready in {}. Next: {seed}`cargo xtask status{option}`, `cargo xtask env{option}`{psql}",
                units::plural(ready, "service"),
                units::seconds(begun.elapsed())
            ));
            Ok(Exit::Done)
        }
        1 => Err(failed.into_iter().map(|(_, error)| error).next().unwrap_or_else(|| anyhow::anyhow!("failed"))),
        count => {
            let body: String = failed.iter().map(|(_, error)| format!("{}\n", ui::failure::rendered(error))).collect();
            let is_refusal = |(_, error): &(&Step<'_>, anyhow::Error)| ui::failure::exit_of(error) == Exit::Refused;
            let exit = if failed.iter().all(is_refusal) { Exit::Refused } else { Exit::Failed };
            let hint = match ready {
                0 => "`cargo xtask up` tries again".to_owned(),
                _ => format!("{} ready; `cargo xtask up` tries again", units::plural(ready, "service")),
            };
            bail!(
                Failure::new(exit, format!("{count} of {} services did not start", steps.len())).body(body).hint(hint)
            )
        }
    }
}
