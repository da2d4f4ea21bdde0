//! `cargo xtask up`: brings services up, and does nothing where nothing is to be done.
//!
//! Validate, lock, observe, plan; look for everything that could stand in the way (programs, ports, space) and tell it all
//! at once; only then start, in parallel, and wait until each server answers.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::cli::UpArgs;
use crate::commands::ports::{fix, tell_change};
use crate::context::Context;
use crate::engine::native::programs::{self, Missing, Programs};
use crate::engine::native::start::{self, Started, Starter};
use crate::engine::native::{observe, servers, stop, template};
use crate::engine::plan::{self, Action, Step};
use crate::engine::{self, Wish};
use crate::instance::lock::Lock;
use crate::instance::{Instance, registry};
use crate::ports;
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, Failure, progress::Waiting, table, units};

/// What one new database takes on the disk, in bytes: the copied cluster, and room to work.
const NEW_DATABASE: u64 = 64_000_000;

pub async fn run(cx: &mut Context, args: &UpArgs) -> Result<Exit> {
    let begun = Instant::now();
    if args.engine == Wish::Docker {
        engine::choose(args.engine, None)?;
    }
    let names: Vec<String> = select(cx, args)?;
    if args.dry_run {
        return dry_run(cx, args, &names);
    }
    let lock = cx.lock().await?;
    let existing = cx.instance()?;
    let (engine, reason) = engine::choose(args.engine, existing.as_ref())?;
    let is_first = existing.is_none();
    let instance = match existing {
        Some(instance) => instance,
        None => Instance::new(&cx.repository, &cx.stack.name, engine)?,
    };
    instance.save()?;
    if let Err(error) = registry::note(&instance) {
        ui::tell(format!("note: other checkouts cannot look this instance up: {error:#}"));
    }
    if args.auto_ports {
        let steps = plan_for(cx, &instance, &names)?;
        let taken = conflicts(&steps);
        if !taken.is_empty() {
            let change = fix(cx, &taken)?;
            change.write(cx)?;
            tell_change(cx, &change);
            cx.reload()?;
        }
    }
    let steps = plan_for(cx, &instance, &names)?;
    if steps.iter().all(|step| matches!(step.action, Action::Keep { .. })) {
        return unchanged(cx, args, &instance, &lock, &steps).await;
    }

    let starting: Vec<&Service> = steps.iter().filter(|step| step.action.starts()).map(|step| step.service).collect();
    let taken = conflicts(&steps);
    if !taken.is_empty() {
        let asked = starting.iter().map(|service| service.ports.len()).sum();
        bail!(ports::conflict_failure(&cx.stack, &taken, asked));
    }
    check_space(&instance, &steps)?;
    start::check_all_data(&cx.stack, &instance, &starting)?;
    let (programs, missing) = programs::find(&starting, instance.identity.server_user.as_ref(), &cx.toolbox()?).await?;
    if !missing.is_empty() {
        bail!(missing_failure(&missing));
    }
    let why = if is_first { format!(" ({reason})") } else { String::new() };
    let whence = if starting.is_empty() { String::new() } else { format!(" · {}", programs.describe()) };
    ui::tell(format!("{} on the {engine} engine{why}{whence}\n\n", cx.stack.name));

    let cap = Duration::from_secs(args.timeout_secs);
    let starter = Starter { stack: &cx.stack, instance: &instance, lock: &lock, programs: &programs, cap };
    let results = carry_out(&starter, &steps).await?;
    drop(lock);
    report(cx, args, &steps, results, begun)
}

/// The short names of the services that are asked for.
fn select(cx: &Context, args: &UpArgs) -> Result<Vec<String>> {
    let asked = cx.services(&args.services)?;
    let left_out = cx.services(&args.without)?;
    if let Some(tool) = asked.iter().find(|service| matches!(service.kind, Kind::Tool(_))) {
        bail!(Failure::new(
            Exit::Usage,
            format!("`{}` runs in a container, and the docker engine is not there yet", tool.short_name)
        ));
    }
    let by_profile = |service: &&Service| service.profile.is_some_and(|profile| args.profile.contains(&profile));
    let containers: Vec<&str> =
        cx.stack.services.iter().filter(by_profile).map(|service| service.short_name.as_str()).collect();
    if !containers.is_empty() {
        ui::tell(format!("note: left out, since they run in containers only: {}", containers.join(", ")));
    }
    let selected =
        cx.stack.core().filter(|service| asked.is_empty() || asked.iter().any(|one| one.name == service.name));
    let names: Vec<String> = selected
        .filter(|service| left_out.iter().all(|one| one.name != service.name))
        .map(|service| service.short_name.clone())
        .collect();
    if names.is_empty() {
        bail!(Failure::new(Exit::Usage, "no service is left to start"));
    }
    Ok(names)
}

fn plan_for<'a>(cx: &'a Context, instance: &Instance, names: &[String]) -> Result<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    for service in cx.stack.services.iter().filter(|service| names.contains(&service.short_name)) {
        let Some(blueprint) = servers::blueprint(&cx.repository, instance, service)? else { continue };
        let observed = observe::service(instance, &service.short_name)?;
        let sockets_are_there = observe::sockets_are_there(&observed);
        steps.push(plan::step(service, blueprint, observed, sockets_are_there));
    }
    Ok(steps)
}

/// Ports that stand in the way. What a server of ours holds that is about to restart does not.
fn conflicts(steps: &[Step<'_>]) -> Vec<ports::Conflict> {
    let ours: Vec<u16> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Restart { running, .. } => Some(running.port),
            _ => None,
        })
        .collect();
    ports::conflicts(steps.iter().filter(|step| step.action.starts()).map(|step| step.service), &ours)
}

fn dry_run(cx: &Context, args: &UpArgs, names: &[String]) -> Result<Exit> {
    let existing = cx.instance()?;
    let (engine, reason) = engine::choose(args.engine, existing.as_ref())?;
    let instance = existing.map_or_else(|| Instance::new(&cx.repository, &cx.stack.name, engine), Ok)?;
    let steps = plan_for(cx, &instance, names)?;
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
async fn unchanged(cx: &Context, args: &UpArgs, instance: &Instance, lock: &Lock, steps: &[Step<'_>]) -> Result<Exit> {
    let programs = Programs::default();
    let cap = Duration::from_secs(args.timeout_secs);
    let starter = Starter { stack: &cx.stack, instance, lock, programs: &programs, cap };
    let results = carry_out(&starter, steps).await?;
    let is_quiet = results.iter().all(|result| result.as_ref().is_ok_and(|started| started.notes.is_empty()));
    if !is_quiet || args.json {
        return report(cx, args, steps, results, Instant::now());
    }
    ui::tell(format!("{} is up: {}, unchanged", cx.stack.name, units::plural(steps.len(), "service")));
    Ok(Exit::Done)
}

fn check_space(instance: &Instance, steps: &[Step<'_>]) -> Result<()> {
    let new =
        steps.iter().filter(|step| step.action == Action::Create && step.service.postgres().is_some()).count() as u64;
    let space = rustix::fs::statvfs(instance.data_folder())?;
    let (free, needed) = (space.f_bavail * space.f_frsize, new * NEW_DATABASE);
    if free < needed {
        bail!(
            Failure::new(
                Exit::Failed,
                format!(
                    "{} new databases need {}, and {} are free",
                    new,
                    units::megabytes(needed),
                    units::megabytes(free)
                )
            )
            .body(format!("  on the disk of {}", instance.data_folder().display()))
            .hint("free some space, or start fewer: `cargo xtask up learning redis`")
        );
    }
    Ok(())
}

fn missing_failure(missing: &[Missing]) -> Failure {
    let mut body = String::new();
    for one in missing {
        body.push_str(&format!("  {}, for {}\n", one.what, one.services.join(", ")));
        for looked in &one.looked {
            body.push_str(&format!("    {looked}\n"));
        }
        body.push_str("    ways to get it:\n");
        for way in &one.ways {
            body.push_str(&format!("      {way}\n"));
        }
    }
    let services: Vec<&str> = missing.iter().flat_map(|one| one.services.iter().map(String::as_str)).collect();
    let options: String = services.iter().map(|service| format!(" --without {service}")).collect();
    Failure::new(
        Exit::Failed,
        format!("{} cannot run here, nothing was started", units::plural(services.len(), "service")),
    )
    .body(body)
    .hint(format!("to go on without: `cargo xtask up{options}`"))
}

/// All steps at once, once what restarts has stopped; the template for new databases first, beside the others.
async fn carry_out(starter: &Starter<'_>, steps: &[Step<'_>]) -> Result<Vec<Result<Started>>> {
    let waiting = Waiting::new("starting");
    let stops = steps.iter().filter_map(|step| match &step.action {
        Action::Restart { running, .. } => Some(stop::stop(starter.instance, running)),
        _ => None,
    });
    for stopped in futures_util::future::join_all(stops).await {
        stopped?;
    }
    let pending =
        std::cell::RefCell::new(steps.iter().map(|step| step.service.short_name.as_str()).collect::<Vec<_>>());
    let say = || waiting.say(format!("waiting for {}", pending.borrow().join(", ")));
    say();
    let template = tokio::sync::OnceCell::new();
    let all = steps.iter().map(|step| async {
        let result = async {
            let path = match (&step.action, step.service.postgres()) {
                (Action::Create, Some(postgres)) => {
                    let make = async || {
                        let found = starter.programs.postgres(postgres.major)?;
                        template::provide(found, &postgres.user, starter.instance.identity.server_user.as_ref()).await
                    };
                    Some(template.get_or_try_init(make).await?)
                }
                _ => None,
            };
            starter.carry_out(step, path.map(std::path::PathBuf::as_path)).await
        };
        let result = result.await;
        pending.borrow_mut().retain(|name| *name != step.service.short_name);
        say();
        result
    });
    Ok(futures_util::future::join_all(all).await)
}

fn report(
    cx: &Context,
    args: &UpArgs,
    steps: &[Step<'_>],
    results: Vec<Result<Started>>,
    begun: Instant,
) -> Result<Exit> {
    let address = |service: &Service| format!("127.0.0.1:{}", service.port().number);
    if args.json {
        let services: Vec<_> = steps
            .iter()
            .zip(&results)
            .map(|(step, result)| {
                json!({
                    "name": step.service.short_name,
                    "address": address(step.service),
                    "action": step.action.describe(),
                    "state": if result.is_ok() { "ready" } else { "failed" },
                    "version": result.as_ref().ok().map(|started| &started.version),
                    "seconds": result.as_ref().ok().map(|started| started.took.as_secs_f64()),
                    "error": result.as_ref().err().map(|error| format!("{error:#}")),
                })
            })
            .collect();
        ui::json(&json!({ "stack": cx.stack.name, "engine": "native", "services": services }))?;
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
    match failed.len() {
        0 => {
            let option = cx.stack_option();
            let database = steps.iter().find(|step| step.service.postgres().is_some());
            let psql = database
                .map_or_else(String::new, |step| format!(", `cargo xtask{option} psql {}`", step.service.short_name));
            ui::tell(format!(
                "\n{} ready in {}. Next: `cargo xtask status{option}`, `cargo xtask env{option}`{psql}",
                units::plural(ready, "service"),
                units::seconds(begun.elapsed())
            ));
            Ok(Exit::Done)
        }
        1 => Err(failed.into_iter().map(|(_, error)| error).next().unwrap_or_else(|| anyhow::anyhow!("failed"))),
        count => {
            let body: String = failed.iter().map(|(_, error)| format!("{}\n", ui::failure::rendered(error))).collect();
            let hint = match ready {
                0 => "`cargo xtask up` tries again".to_owned(),
                _ => format!("{} ready; `cargo xtask up` tries again", units::plural(ready, "service")),
            };
            bail!(
                Failure::new(Exit::Failed, format!("{count} of {} services did not start", steps.len()))
                    .body(body)
                    .hint(hint)
            )
        }
    }
}
