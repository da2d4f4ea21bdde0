//! `cargo xtask down`: stops everything and forgets the run state; data stay. With `--volumes` the data go too, after they
//! were listed and somebody agreed, and they are put aside for `--undo`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::backup::before::{self, Before, Choice};
use super::stop::refuse_if_forgotten;
use super::upgrade::kept;
use super::upgrade::state::{self, State};
use crate::cli::DownArgs;
use crate::context::Context;
use crate::engine::aside::Aside;
use crate::engine::docker::Docker;
use crate::engine::docker::volumes::Volume;
use crate::engine::native::record::Record;
use crate::engine::native::servers::{data_folder, socket_folder};
use crate::engine::server::Server;
use crate::engine::{Engine, native, postgres, redis};
use crate::files;
use crate::instance::lock::Lock;
use crate::instance::{EngineKind, Instance, registry};
use crate::stack::Kind;
use crate::ui::{self, Exit, Failure, table, units};

/// Holds what the last `down --volumes` put aside.
const ASIDE: &str = "removed";
/// The label of the backup that is taken first.
const BEFORE_DOWN: &str = "before-down";

pub async fn run(cx: &Context, args: &DownArgs) -> Result<Exit> {
    if args.undo {
        return undo(cx).await;
    }
    let lock = cx.lock().await?;
    let Some(instance) = cx.instance()? else {
        refuse_if_forgotten(cx)?;
        ui::tell(format!("{} is not running, and has no data", cx.stack.name));
        return Ok(Exit::Done);
    };
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    if let Engine::Docker(docker) = &engine {
        return remove_containers(cx, args, docker, &lock).await;
    }
    let names = engine.all_services().await?;
    let running = engine.running(&cx.stack).await?;
    let aside = instance.data_folder().join(ASIDE);
    let kept = if args.volumes { engine.aside().await? } else { Vec::new() };
    let before = before(cx, args, &names, &running)?;
    if args.dry_run {
        before.plan()?;
        plan_kept(&kept)?;
        for name in &names {
            let running = running.iter().any(|server| server.service == *name);
            let data = if args.volumes { "remove its data" } else { "keep its data" };
            ui::data(&format!("  {name}: {}{data}\n", if running { "stop, " } else { "" }))?;
        }
        if args.volumes && aside.exists() && (args.discard || !names.is_empty()) {
            ui::data(&format!(
                "  what an earlier `down --volumes` put aside: remove {}\n",
                units::megabytes(files::size_on_disk(&aside))
            ))?;
        }
        return Ok(Exit::Done);
    }
    if args.volumes && (!names.is_empty() || (args.discard && aside.exists())) {
        list_data(cx, &instance, &names, &running).await?;
        tell_upgrades(&instance, &kept)?;
        ui::tell(match args.discard {
            true => "They are gone for good (`--discard`).",
            false => "They are put aside: `cargo xtask down --undo` brings them back.",
        });
        before.tell();
        agree(cx, args).await?;
        before.take(cx, &instance, BEFORE_DOWN).await?;
    }
    let stopped = engine.stop(&names, &lock).await?;
    files::remove_folder(&socket_folder(&instance))?;
    registry::forget(&registry::folder_of(&instance))?;
    let services = units::plural(stopped, "service");
    if !args.volumes {
        ui::tell(format!(
            "{} is down: {services} stopped; data stay. Next: `cargo xtask up{}`",
            cx.stack.name,
            cx.stack_option()
        ));
        return Ok(Exit::Done);
    }
    if args.discard {
        for name in &names {
            files::remove_folder(&instance.service_folder(name))?;
        }
        files::remove_folder(&instance.data_folder().join(ASIDE))?;
        if let Some(elsewhere) = &instance.identity.data_elsewhere {
            files::remove_folder(elsewhere)?;
        }
        State::forget(&instance)?;
        files::remove_if_present(&instance.folder.join("instance.json"))?;
        ui::tell(format!("{} is down: {services} stopped, all data removed", cx.stack.name));
    } else if names.is_empty() {
        State::forget(&instance)?;
        ui::tell(format!("{} has no data to remove", cx.stack.name));
    } else {
        put_aside(&instance, &names)?;
        ui::tell(format!(
            "{} is down: {services} stopped, data removed\n`cargo xtask down --undo{option}` brings them back, until the next `down --volumes`; \
            they are in {}",
            cx.stack.name,
            cx.relative(&instance.data_folder().join(ASIDE)).display(),
            option = cx.stack_option(),
        ));
    }
    drop(lock);
    Ok(Exit::Done)
}

/// Containers and network go; with `--volumes`, after somebody agreed, the volumes too.
async fn remove_containers(cx: &Context, args: &DownArgs, docker: &Docker<'_>, lock: &Lock) -> Result<Exit> {
    let look = docker.look().await?;
    let running = look.containers.iter().filter(|container| container.is_running()).count();
    let engine = Engine::of(docker.repository, docker.stack, docker.instance);
    let servers = engine.running(docker.stack).await?;
    let sizes = if args.volumes { docker.volume_sizes().await? } else { BTreeMap::new() };
    // Compose makes the volumes of the whole file: what was never used is not worth a word.
    let is_used = |volume: &&Volume| sizes.get(&volume.name).is_none_or(|size| size != "0B");
    let used: Vec<&Volume> = look.volumes.iter().filter(is_used).collect();
    let volumes: Vec<String> = used.iter().map(|volume| named(cx, volume).to_owned()).collect();
    let kept = if args.volumes { engine.aside().await? } else { Vec::new() };
    let before = before(cx, args, &volumes, &servers)?;
    if args.dry_run {
        before.plan()?;
        plan_kept(&kept)?;
        for container in &look.containers {
            let stop = if container.is_running() { "stop, " } else { "" };
            ui::data(&format!("  {}: {stop}remove the container\n", container.service))?;
        }
        for volume in &look.volumes {
            ui::data(&format!("  {}: {} the volume\n", volume.name, if args.volumes { "remove" } else { "keep" }))?;
        }
        return Ok(Exit::Done);
    }
    if args.volumes && (!look.volumes.is_empty() || !kept.is_empty()) {
        list_volumes(cx, &used, &sizes, &servers).await?;
        tell_upgrades(docker.instance, &kept)?;
        ui::tell("They are gone for good: a volume of Docker cannot be put aside.");
        before.tell();
        agree(cx, args).await?;
        before.take(cx, docker.instance, BEFORE_DOWN).await?;
    }
    docker.down(lock.share()?).await?;
    let services = units::plural(running, "service");
    if !args.volumes {
        registry::forget(&registry::folder_of(docker.instance))?;
        ui::tell(format!(
            "{} is down: {services} stopped; data stay. Next: `cargo xtask up{}`",
            cx.stack.name,
            cx.stack_option()
        ));
        return Ok(Exit::Done);
    }
    State::forget(docker.instance)?;
    if !look.volumes.is_empty() {
        docker.remove_volumes(&look.volumes, lock.share()?).await?;
    }
    for one in &kept {
        engine.drop_aside(one).await?;
    }
    registry::forget(&registry::folder_of(docker.instance))?;
    files::remove_if_present(&docker.instance.folder.join("instance.json"))?;
    ui::tell(format!("{} is down: {services} stopped, all data removed", cx.stack.name));
    Ok(Exit::Done)
}

/// What a running server holds, in words.
async fn content(cx: &Context, server: &Server) -> Option<String> {
    match (server.door(), &cx.stack.service(&server.service)?.kind) {
        (Some((door, login)), _) => {
            postgres::row_count(&door, login).await.map(|rows| format!("about {}", units::plural(rows, "row")))
        }
        (None, Kind::Redis(_)) => redis::key_count(server.port).await.map(|keys| units::plural(keys, "key")),
        _ => None,
    }
}

/// The service that a volume belongs to, or the volume itself.
fn named<'a>(cx: &'a Context, volume: &'a Volume) -> &'a str {
    let service = cx.stack.services.iter().find(|one| one.volume.as_deref() == Some(volume.short_name()));
    service.map_or(volume.short_name(), |service| &service.short_name)
}

/// Without `--volumes` nothing is destroyed.
fn before<'a>(cx: &'a Context, args: &DownArgs, names: &[String], running: &[Server]) -> Result<Before<'a>> {
    let names = if args.volumes { names } else { &[] };
    let is_running = |name: &str| running.iter().any(|server| server.service == name);
    Before::look(cx, names, is_running, args.no_backup.into())
}

/// How old the last backup is, of what can have one.
fn last_backup(cx: &Context, name: &str) -> Result<String> {
    match cx.stack.service(name).map(|service| &service.kind) {
        Some(Kind::Postgres(_) | Kind::Redis(_)) => before::last(cx, name),
        _ => Ok(String::new()),
    }
}

async fn list_volumes(
    cx: &Context,
    volumes: &[&Volume],
    sizes: &BTreeMap<String, String>,
    running: &[Server],
) -> Result<()> {
    let mut rows = Vec::new();
    for volume in volumes {
        let name = named(cx, volume);
        let server = running.iter().find(|server| server.service == name);
        let content = match server {
            Some(server) => content(cx, server).await,
            None => None,
        };
        rows.push(vec![
            name.to_owned(),
            content.unwrap_or_else(|| "–".into()),
            sizes.get(&volume.name).cloned().unwrap_or_else(|| "–".into()),
            format!("made {} ago", units::span(units::since(volume.created_at))),
            last_backup(cx, name)?,
        ]);
    }
    tell_list(cx, EngineKind::Docker, rows);
    Ok(())
}

fn tell_list(cx: &Context, engine: EngineKind, rows: Vec<Vec<String>>) {
    ui::tell(format!(
        "This destroys the data of {} on the {engine} engine:\n\n{}",
        cx.stack.name,
        table::columns(rows, &[1, 2])
    ));
}

async fn list_data(cx: &Context, instance: &Instance, names: &[String], running: &[Server]) -> Result<()> {
    let mut rows = Vec::new();
    for name in names {
        let size = units::megabytes(files::size_on_disk(&data_folder(instance, name)));
        let content = match running.iter().find(|server| server.service == *name) {
            Some(server) => content(cx, server).await,
            None => None,
        };
        rows.push(vec![name.clone(), content.unwrap_or_else(|| "–".into()), size, last_backup(cx, name)?]);
    }
    tell_list(cx, EngineKind::Native, rows);
    let aside = instance.data_folder().join(ASIDE);
    if aside.exists() {
        ui::tell(format!(
            "and what an earlier `down --volumes` put aside: {}\n",
            units::megabytes(files::size_on_disk(&aside))
        ));
    }
    Ok(())
}

/// What upgrades have left: it goes with the rest.
fn tell_upgrades(instance: &Instance, kept: &[Aside]) -> Result<()> {
    if !kept.is_empty() {
        ui::tell(format!("and what upgrades have replaced and kept:\n\n{}", kept::listed(kept)));
    }
    if let Some(state) = State::read(instance)? {
        ui::tell(format!(
            "The upgrade of {} to PostgreSQL {} that was interrupted is given up; its backup `{}` stays.",
            state.shown(),
            state.to,
            state.backup
        ));
    }
    Ok(())
}

/// As [`tell_upgrades`], for a dry run.
fn plan_kept(kept: &[Aside]) -> Result<()> {
    kept.iter()
        .try_for_each(|one| ui::data(&format!("  {}: remove what an upgrade has kept: {}\n", one.service, one.place)))
}

/// Asks a person, by the stack's name.
async fn agree(cx: &Context, args: &DownArgs) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    let discard = if args.discard { " --discard" } else { "" };
    let no_backup = Choice::from(args.no_backup).option();
    cx.agree(&format!("cargo xtask down --volumes --yes{discard}{no_backup}{}", cx.stack_option()), "nothing was done")
        .await
}

/// Renames the service folders out of the way. Repeating it after an interruption finishes it: the folder that collects
/// them is complete once `removed.partial` has become `removed`.
fn put_aside(instance: &Instance, names: &[String]) -> Result<()> {
    let aside = instance.data_folder().join(ASIDE);
    let partial = instance.data_folder().join(format!("{ASIDE}.partial"));
    files::create_folder(&partial)?;
    State::put_into(instance, &partial)?;
    for name in names.iter().filter(|name| instance.service_folder(name).exists()) {
        let target = partial.join(name);
        files::remove_folder(&target)?;
        move_folder(&instance.service_folder(name), &target)?;
    }
    files::remove_folder(&aside)?;
    move_folder(&partial, &aside)
}

async fn undo(cx: &Context) -> Result<Exit> {
    let _lock = cx.lock().await?;
    let Some(instance) = cx.instance()? else {
        bail!(Failure::new(Exit::Failed, format!("{} has nothing to bring back", cx.stack.name)));
    };
    if instance.identity.engine == EngineKind::Docker {
        let lacks = Engine::lacks(EngineKind::Docker).iter().find(|(what, _)| *what == "down --undo");
        let why = lacks.map_or("", |(_, why)| why);
        bail!(Failure::new(Exit::Usage, format!("the docker engine has nothing to bring back: {why}")));
    }
    let mut asides: Vec<PathBuf> = Vec::new();
    for name in [ASIDE.to_owned(), format!("{ASIDE}.partial")] {
        asides.push(instance.data_folder().join(name));
    }
    let mut found = Vec::new();
    for aside in &asides {
        for entry in std::fs::read_dir(aside).into_iter().flatten().flatten() {
            found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
        }
    }
    found.retain(|(_, name)| name != state::FILE);
    if found.is_empty() {
        bail!(Failure::new(Exit::Failed, format!("{} has nothing to bring back", cx.stack.name)));
    }
    let in_the_way: Vec<&str> = found
        .iter()
        .filter(|(_, name)| {
            let folder = instance.service_folder(name);
            let has_kept = !native::aside::folders(&folder).is_empty();
            data_folder(&instance, name).exists() || Record::path(&folder).exists() || has_kept
        })
        .map(|(_, name)| name.as_str())
        .collect();
    if !in_the_way.is_empty() {
        bail!(
            Failure::new(Exit::Refused, format!("there are new data of {}", in_the_way.join(", ")))
                .body(format!("  those put aside stay in {}", cx.relative(&asides[0]).display()))
                .hint("stop the stack and exchange the folders by hand if the old data are wanted")
        );
    }
    for aside in &asides {
        State::bring_back(&instance, aside)?;
    }
    for (path, name) in &found {
        files::remove_folder(&instance.service_folder(name))?;
        move_folder(path, &instance.service_folder(name))?;
    }
    for aside in &asides {
        files::remove_folder(aside)?;
    }
    ui::tell(format!(
        "{} brought back. Next: `cargo xtask up{}`",
        units::plural(found.len(), "service"),
        cx.stack_option()
    ));
    Ok(Exit::Done)
}

fn move_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).with_context(|| format!("cannot move `{}` to `{}`", from.display(), to.display()))
}
