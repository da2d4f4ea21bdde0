//! `cargo xtask migrate`: brings the databases of a stack to where their files say they are, all of them or none.

mod known;
mod rehearse;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use known::Found;

use super::backup::before::{self, Before, Choice};
use crate::cli::{
    MigrateArgs, MigrateCheckArgs, MigrateNewArgs, MigratePlanArgs, MigrateRepairArgs, MigrateRevertArgs,
    MigrateRunArgs, MigrateStatusArgs, MigrateTimeouts, MigrateVerb, OtherServer,
};
use crate::commands::upgrade::state as upgrade;
use crate::context::{Context, unknown};
use crate::data::migrate::execute::Ran;
use crate::data::migrate::fault::{self, Fault};
use crate::data::migrate::locks::Timeouts;
use crate::data::migrate::plan::{self, Back, Direction, Gaps, State, Step};
use crate::data::migrate::{self, Fate, Set, source};
use crate::data::target;
use crate::engine::plan::Action;
use crate::engine::server::Observed;
use crate::engine::{self, Engine};
use crate::files;
use crate::instance::known::Known;
use crate::ui::{self, Exit, Failure, progress::Waiting, table, units};

pub async fn run(cx: &Context, args: &MigrateArgs) -> Result<Exit> {
    match &args.verb {
        None => apply(cx, &args.run).await,
        Some(MigrateVerb::Run(args)) => apply(cx, args).await,
        Some(MigrateVerb::Status(args)) => status(cx, args).await,
        Some(MigrateVerb::Plan(args)) => show_plan(cx, args).await,
        Some(MigrateVerb::Revert(args)) => revert(cx, args).await,
        Some(MigrateVerb::New(args)) => new(cx, args),
        Some(MigrateVerb::Check(args)) => check(cx, args).await,
        Some(MigrateVerb::Repair(args)) => repair(cx, args).await,
    }
}

/// The short names of the databases that are asked for; all of the stack if none is.
fn databases(cx: &Context, asked: &[String]) -> Result<Vec<String>> {
    let known: Vec<&str> = cx.stack.databases().map(|(service, _)| service.short_name.as_str()).collect();
    if asked.is_empty() {
        return Ok(known.into_iter().map(str::to_owned).collect());
    }
    let names = asked.iter().map(|name| {
        let found = cx.stack.databases().find(|(service, _)| service.short_name == *name || service.name == *name);
        found
            .map(|(service, _)| service.short_name.clone())
            .ok_or_else(|| unknown("database", name, known.iter().copied()))
    });
    Ok(names.collect::<Result<_, Failure>>()?)
}

/// Reads files and histories of the databases of those names.
async fn open<'a>(cx: &'a Context, names: &[String]) -> Result<Set<'a>> {
    let instance = cx.running_instance()?;
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    let opening = target::open_asking(&engine, &cx.stack, names, migrate::question, migrate::answer);
    Set::read(&cx.repository.root, &cx.stack, names, opening).await
}

/// As [`open`], of another server where one is named.
async fn open_either<'a>(cx: &'a Context, names: &[String], other: &OtherServer) -> Result<Set<'a>> {
    let Some(url) = &other.url else { return open(cx, names).await };
    let [name] = names else {
        let failure = Failure::new(Exit::Usage, "`--url` is the address of one database, nothing was done");
        bail!(failure.hint("say which one it is: `cargo xtask migrate learning --url …`"));
    };
    let (address, password) = (url.parse()?, cx.variable("PGPASSWORD"));
    let opening = target::open_at(address, password, &cx.stack, name, migrate::question, migrate::answer);
    Set::read(&cx.repository.root, &cx.stack, names, opening).await
}

fn timeouts(args: &MigrateTimeouts) -> Timeouts {
    Timeouts {
        lock: Duration::from_secs(args.lock_timeout_secs),
        statement: Duration::from_secs(args.statement_timeout_secs),
    }
}

fn gaps(fill: bool) -> Gaps {
    if fill { Gaps::Filled } else { Gaps::Refused }
}

/// As part of `up`, for databases that are ready: what was applied, by database. A server that was found migrated is not
/// asked again while it runs and the files are the same.
pub async fn of_up(cx: &Context, steps: &[engine::plan::Step<'_>]) -> Result<Vec<Ran>> {
    let Some(instance) = cx.instance()? else { return Ok(Vec::new()) };
    let mut noted = Known::read(&instance);
    let (mut names, mut proven) = (Vec::new(), Vec::new());
    for step in steps {
        let Some(postgres) = step.service.postgres() else { continue };
        // A database that has no migrations yet is no reason not to start.
        if !postgres.migrations.iter().any(|folder| cx.repository.root.join(folder).is_dir()) {
            continue;
        }
        let name = &step.service.short_name;
        if let Action::Keep { running } = &step.action {
            let of = known::of_server(cx, step.service, postgres, running)?;
            if of.is_some_and(|(subject, state)| noted.holds(&subject, &state)) {
                continue;
            }
        }
        proven.push(step.service);
        names.push(name.clone());
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut set = open(cx, &names).await?;
    let ran = set.apply(Gaps::Refused, Fate::Shared, timeouts(&MigrateTimeouts::default())).await?;
    let observed = Engine::of(&cx.repository, &cx.stack, &instance).observe(&proven).await?;
    for (service, observed) in proven.iter().zip(observed) {
        if let (Ok(Observed::Running(server)), Some(postgres)) = (observed, service.postgres()) {
            let of = known::of_server(cx, service, postgres, &server)?;
            of.into_iter().for_each(|(subject, state)| noted.note(&subject, &state));
        }
    }
    noted.write(&instance)?;
    Ok(ran)
}

async fn apply(cx: &Context, args: &MigrateRunArgs) -> Result<Exit> {
    let begun = Instant::now();
    let names = databases(cx, &args.databases)?;
    // Another server is not this instance's to guard; its database's own lock is.
    let is_ours = args.other.url.is_none();
    let _lock = if is_ours { Some(cx.lock().await?) } else { None };
    let instance = if is_ours { cx.instance()? } else { None };
    let mut found = Found::Unknown;
    if let Some(instance) = &instance {
        upgrade::refuse_if_interrupted(cx, instance)?;
        found = known::look(cx, instance, &names).await?;
    }
    let mut set = match found {
        Found::Done => return tell_ran(cx, args.json, names.len(), &[], begun, "migration"),
        Found::Changed(targets) => {
            let asking = target::ask_all(targets, migrate::question, migrate::answer);
            Set::read(&cx.repository.root, &cx.stack, &names, asking).await?
        }
        Found::Unknown => open_either(cx, &names, &args.other).await?,
    };
    known::forget(cx)?;
    let fate = if args.each { Fate::Own } else { Fate::Shared };
    let waiting = Waiting::new("migrating");
    let ran = set.apply(gaps(args.fill_gaps), fate, timeouts(&args.timeouts)).await;
    drop(waiting);
    let ran = ran?;
    if let Some(instance) = instance.filter(|_| ran.is_empty()) {
        known::note_done(cx, &instance, &names, &mut set, begun).await?;
    }
    let databases = set.members.len();
    target::leave_to_exit(set);
    tell_ran(cx, args.json, databases, &ran, begun, "migration")
}

/// What was done, a line each.
fn tell_ran(cx: &Context, json: bool, databases: usize, ran: &[Ran], begun: Instant, noun: &str) -> Result<Exit> {
    if json {
        let databases = ran.iter().map(|ran| {
            let steps = ran.steps.iter().map(|step| {
                json!({ "version": step.version, "description": step.description, "seconds": step.took.as_secs_f64() })
            });
            (ran.database.clone(), Value::Array(steps.collect()))
        });
        let databases: serde_json::Map<String, Value> = databases.collect();
        ui::json(&json!({ "stack": cx.stack.name, "databases": databases, "seconds": begun.elapsed().as_secs_f64() }))?;
        return Ok(Exit::Done);
    }
    if ran.is_empty() {
        let of = units::plural(databases, "database");
        ui::tell(format!("{} is migrated: {of}, nothing to do", cx.stack.name));
        return Ok(Exit::Done);
    }
    let rows = ran.iter().map(|ran| {
        let last = ran.steps.last().map_or_else(String::new, |step| format!("{} {}", step.version, step.description));
        vec![ran.database.clone(), units::plural(ran.steps.len(), noun), units::seconds(ran.took), last]
    });
    ui::tell(table::columns(rows.collect(), &[2]));
    let count: usize = ran.iter().map(|ran| ran.steps.len()).sum();
    ui::tell(format!(
        "\n{} in {} in {}",
        units::plural(count, noun),
        units::plural(ran.len(), "database"),
        units::seconds(begun.elapsed())
    ));
    Ok(Exit::Done)
}

fn state_word(state: State) -> (&'static str, anstyle::Style) {
    match state {
        State::Applied => ("applied", ui::GOOD),
        State::Pending => ("pending", ui::WARNING),
        State::Edited => ("edited", ui::BAD),
        State::Missing => ("file is gone", ui::BAD),
        State::Gap => ("left out", ui::BAD),
        State::Dirty => ("failed", ui::BAD),
    }
}

async fn status(cx: &Context, args: &MigrateStatusArgs) -> Result<Exit> {
    let names = databases(cx, &args.databases)?;
    let set = open_either(cx, &names, &args.other).await?;
    if args.json {
        let databases = set.members.iter().map(|member| {
            let standings = plan::standings(&member.sources, &member.history);
            let migrations = standings.iter().map(|one| {
                json!({
                    "version": one.version,
                    "description": one.migration.map(|migration| &migration.description)
                        .or(one.applied.map(|applied| &applied.description)),
                    "state": one.state,
                    "file": one.migration.map(|migration| &migration.up.path),
                    "table": one.source.table,
                    "reversible": one.migration.is_some_and(|migration| migration.down.is_some()),
                    "installed_on": one.applied.map(|applied| &applied.installed_on),
                    "seconds": one.applied.map(|applied| applied.nanoseconds as f64 / 1e9),
                })
            });
            json!({ "name": member.target.name(), "migrations": migrations.collect::<Vec<_>>() })
        });
        let databases: Vec<Value> = databases.collect();
        ui::json(&json!({ "stack": cx.stack.name, "databases": databases, "faults": set.faults }))?;
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    for member in &set.members {
        let standings = plan::standings(&member.sources, &member.history);
        if !args.databases.is_empty() {
            for one in &standings {
                let (word, style) = state_word(one.state);
                let description = one.migration.map(|migration| migration.description.clone());
                let installed = one.applied.map(|applied| applied.installed_on.clone()).unwrap_or_default();
                rows.push(vec![
                    member.target.name().to_owned(),
                    one.version.to_string(),
                    description.or(one.applied.map(|applied| applied.description.clone())).unwrap_or_default(),
                    ui::paint(style, word),
                    installed,
                ]);
            }
            continue;
        }
        let count = |state: State| standings.iter().filter(|one| one.state == state).count();
        let states = [State::Applied, State::Pending, State::Edited, State::Missing, State::Gap, State::Dirty];
        let said = states.iter().filter(|state| count(**state) > 0).map(|state| {
            let (word, style) = state_word(*state);
            ui::paint(style, format!("{} {word}", count(*state)))
        });
        let latest = standings.iter().rfind(|one| one.applied.is_some());
        let latest = latest.and_then(|one| Some(format!("{} {}", one.version, one.applied?.description)));
        let said = said.collect::<Vec<_>>().join(", ");
        let said = if said.is_empty() { "no migrations".to_owned() } else { said };
        rows.push(vec![member.target.name().to_owned(), said, latest.unwrap_or_default()]);
    }
    ui::data(&table::columns(rows, &[]))?;
    if !set.faults.is_empty() {
        ui::tell(format!("\n{}", fault::rendered(&set.faults)));
    }
    Ok(Exit::Done)
}

async fn show_plan(cx: &Context, args: &MigratePlanArgs) -> Result<Exit> {
    if args.rehearse {
        return rehearse::run(cx, args, timeouts(&args.timeouts)).await;
    }
    let names = databases(cx, &args.databases)?;
    let mut set = open_either(cx, &names, &args.other).await?;
    let planned = set.pending(gaps(args.fill_gaps)).await?;
    if args.json {
        let databases = planned.iter().map(|(name, steps)| json!({ "name": name, "steps": steps_json(steps) }));
        let databases: Vec<Value> = databases.collect();
        ui::json(&json!({ "stack": cx.stack.name, "databases": databases }))?;
    } else if planned.iter().all(|(_, steps)| steps.is_empty()) {
        let of = units::plural(planned.len(), "database");
        ui::tell(format!("{} is migrated: {of}, nothing to do", cx.stack.name));
    } else {
        ui::data(&rendered_plan(&planned))?;
        if let Some((name, step)) =
            planned.iter().find_map(|(name, steps)| Some((name, steps.iter().find(|one| one.script.no_transaction)?)))
        {
            ui::tell(format!(
                "\nnote: {} of `{name}` runs outside of a transaction: what is applied before it stays, if a later one fails",
                step.migration.version
            ));
        }
    }
    Ok(Exit::Done)
}

fn steps_json(steps: &[Step<'_>]) -> Value {
    let steps = steps.iter().map(|step| {
        json!({
            "version": step.migration.version,
            "description": step.migration.description,
            "file": step.script.path,
            "table": step.table,
            "no_transaction": step.script.no_transaction,
            "direction": if step.direction == Direction::Apply { "apply" } else { "revert" },
            "statements": sql::statements(&step.script.text).map_or(0, |statements| statements.len()),
        })
    });
    Value::Array(steps.collect())
}

/// The steps of all databases, a line each.
fn rendered_plan(planned: &[(&str, Vec<Step<'_>>)]) -> String {
    let rows = planned.iter().flat_map(|(name, steps)| {
        steps.iter().enumerate().map(move |(index, step)| {
            let statements = sql::statements(&step.script.text).map_or(0, |statements| statements.len());
            vec![
                if index == 0 { (*name).to_owned() } else { String::new() },
                step.migration.version.to_string(),
                step.migration.description.clone(),
                units::plural(statements, "statement"),
                if step.script.no_transaction { "outside of a transaction".into() } else { String::new() },
                step.script.path.display().to_string(),
            ]
        })
    });
    table::columns(rows.collect(), &[])
}

async fn revert(cx: &Context, args: &MigrateRevertArgs) -> Result<Exit> {
    let begun = Instant::now();
    let names = databases(cx, &args.databases)?;
    let _lock = cx.lock().await?;
    let mut set = open(cx, &names).await?;
    known::forget(cx)?;
    let back = args.to.map_or(Back::Steps(args.steps), Back::To);
    let planned = set.revertible(back)?;
    let count: usize = planned.iter().map(|(_, steps)| steps.len()).sum();
    if count == 0 {
        ui::tell("nothing to revert");
        return Ok(Exit::Done);
    }
    ui::tell(format!(
        "This reverts {}, and destroys the data that they made room for:\n\n",
        units::plural(count, "migration")
    ));
    ui::tell(rendered_plan(&planned));
    let losing: Vec<String> =
        planned.iter().filter(|(_, steps)| !steps.is_empty()).map(|(name, _)| (*name).to_owned()).collect();
    let backups = losing.iter().map(|name| Ok(vec![name.clone(), before::last(cx, name)?]));
    ui::tell(format!("\n{}", table::columns(backups.collect::<Result<_>>()?, &[])));
    let choice = Choice::from(args.no_backup);
    let before = Before::look(cx, &losing, |_| true, choice)?;
    before.tell();
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.yes {
        let command = format!("cargo xtask migrate revert{} --yes{}", choice.option(), cx.stack_option());
        cx.agree(&command, "nothing was done").await?;
    }
    if let Some(instance) = cx.instance()? {
        before.take(cx, &instance, "before-revert").await?;
    }
    let ran = set.revert(back, timeouts(&args.timeouts)).await?;
    tell_ran(cx, args.json, set.members.len(), &ran, begun, "reverted migration")
}

fn new(cx: &Context, args: &MigrateNewArgs) -> Result<Exit> {
    let names = databases(cx, std::slice::from_ref(&args.database))?;
    let found = cx.stack.databases().find(|(service, _)| names.contains(&service.short_name));
    let Some((service, postgres)) = found else { bail!("there is no database `{}`", args.database) };
    let folder = match &args.source {
        None => postgres.migrations.first().cloned().unwrap_or_default(),
        Some(folder) => match postgres.migrations.iter().find(|one| *one == folder) {
            Some(folder) => folder.clone(),
            None => {
                let known: Vec<String> = postgres.migrations.iter().map(|one| one.display().to_string()).collect();
                bail!(unknown("source", &folder.display().to_string(), known.iter().map(String::as_str)));
            }
        },
    };
    let words = args.name.to_lowercase();
    let words: Vec<&str> = words.split(|one: char| !one.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        bail!(Failure::new(Exit::Usage, format!("`{}` is no name", args.name)).hint("say what the migration does"));
    }
    files::create_folder(&cx.repository.root.join(&folder))?;
    let (sources, _) = source::read(&cx.repository.root, &service.short_name, &postgres.migrations);
    let latest = sources.iter().filter(|source| source.folder == folder).flat_map(|source| &source.migrations);
    let now: i64 = Timestamp::now().strftime("%Y%m%d%H%M%S").to_string().parse()?;
    let version = latest.map(|one| one.version + 1).max().unwrap_or(0).max(now);
    let title = words.join(" ");
    for (suffix, text) in [("up", format!("-- {title}\n")), ("down", format!("-- undoes: {title}\n"))] {
        let path = folder.join(format!("{version}_{}.{suffix}.sql", words.join("_")));
        files::write_atomically(&cx.repository.root.join(&path), text.as_bytes(), 0o644)?;
        ui::data(&format!("{}\n", cx.relative(&cx.repository.root.join(&path)).display()))?;
    }
    Ok(Exit::Done)
}

async fn check(cx: &Context, args: &MigrateCheckArgs) -> Result<Exit> {
    let names = databases(cx, &args.databases)?;
    let mut set = open_either(cx, &names, &args.other).await?;
    let mut faults: Vec<Fault> = set.faults.clone();
    let mut pending: Vec<(String, Vec<String>)> = Vec::new();
    for member in &set.members {
        let standings = plan::standings(&member.sources, &member.history);
        faults.extend(standings.iter().filter_map(|standing| plan::found(member.target.name(), standing)));
        let waiting = standings.iter().filter(|one| one.state == State::Pending);
        let waiting: Vec<String> =
            waiting.filter_map(|one| Some(format!("{} {}", one.version, one.migration?.description))).collect();
        if !waiting.is_empty() {
            pending.push((member.target.name().to_owned(), waiting));
        }
    }
    set.explain(&mut faults).await?;
    let mut drifts = Vec::new();
    let mut unrecorded = Vec::new();
    for member in &mut set.members {
        match member.drift().await? {
            Some(drift) if drift.is_empty() => {}
            Some(drift) => drifts.push((member.target.name().to_owned(), drift)),
            None if member.history.count() > 0 => unrecorded.push(member.target.name().to_owned()),
            None => {}
        }
    }
    let is_well = faults.is_empty() && pending.is_empty() && drifts.is_empty();
    if args.json {
        let pending: serde_json::Map<String, Value> =
            pending.into_iter().map(|(name, all)| (name, json!(all))).collect();
        let drifts: serde_json::Map<String, Value> = drifts.into_iter().map(|(name, all)| (name, json!(all))).collect();
        ui::json(
            &json!({ "stack": cx.stack.name, "well": is_well, "pending": pending, "faults": faults, "drift": drifts, "unrecorded": unrecorded }),
        )?;
        return Ok(if is_well { Exit::Done } else { Exit::Found });
    }
    let mut text = String::new();
    for (name, waiting) in &pending {
        text.push_str(&format!("  {name}  {}\n", units::plural(waiting.len(), "pending migration")));
        waiting.iter().for_each(|one| text.push_str(&format!("    {one}\n")));
    }
    for (name, drift) in &drifts {
        text.push_str(&format!("  {name}  is not as its migrations left it\n"));
        drift.iter().for_each(|one| text.push_str(&format!("    {}\n", one.describe())));
    }
    text.push_str(&fault::rendered(&faults));
    ui::data(&text)?;
    for name in &unrecorded {
        ui::tell(format!(
            "note: `{name}` was migrated by something else; `cargo xtask migrate {name}` records its catalog"
        ));
    }
    if is_well {
        let of = units::plural(set.members.len(), "database");
        ui::tell(format!("{} is as its migrations say: {of}", cx.stack.name));
        return Ok(Exit::Done);
    }
    if !drifts.is_empty() {
        ui::tell(
            "\nhint: write a migration that does the same, or `cargo xtask migrate repair --catalog` to take it as it is",
        );
    } else if !pending.is_empty() {
        ui::tell(format!("\nhint: `cargo xtask migrate{}`", cx.stack_option()));
    }
    Ok(Exit::Found)
}

async fn repair(cx: &Context, args: &MigrateRepairArgs) -> Result<Exit> {
    let names = databases(cx, &args.databases)?;
    let _lock = cx.lock().await?;
    let mut set = open(cx, &names).await?;
    known::forget(cx)?;
    let mut count = 0;
    for member in &mut set.members {
        let repaired = member.repair().await?;
        for version in &repaired {
            ui::tell(format!("  {}  {version}  the file counts as what was applied", member.target.name()));
        }
        count += repaired.len();
        // What cannot be read is replaced as well.
        if args.catalog && member.drift().await.map_or(true, |drift| drift.is_some_and(|drift| !drift.is_empty())) {
            member.record().await?;
            ui::tell(format!("  {}  its catalog is recorded as it is", member.target.name()));
            count += 1;
        }
    }
    if count == 0 {
        ui::tell("nothing to repair");
    }
    Ok(Exit::Done)
}
