//! `cargo xtask seed`: fills the databases with the rows that a new one begins with, the same on every machine: all of
//! them or none. What is filled already is left alone.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::backup::before::{self, Before, Choice};
use crate::cli::SeedArgs;
use crate::commands::upgrade::state as upgrade;
use crate::context::{self, Context, unknown};
use crate::data::seed::checksums::Checksums;
use crate::data::seed::files::{self, SeedFile};
use crate::data::seed::record::{self, Dying};
use crate::data::seed::run::{self, Outcome, Rows};
use crate::data::seed::{Job, State};
use crate::data::target::{self, Target};
use crate::engine::Engine;
use crate::instance::Instance;
use crate::stack::fault::{Fault, Faults};
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &SeedArgs) -> Result<Exit> {
    let begun = Instant::now();
    let names = databases(cx, &args.databases)?;
    let instance = cx.running_instance()?;
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    let names = with_seeds(cx, names)?;
    if names.is_empty() {
        ui::tell("there are no seeds");
        return Ok(Exit::Done);
    }
    let read = async |row, target: &mut Target<'_>| record::read_on(&row, &mut target.connection, None).await;
    let opening = target::open_asking(&engine, &cx.stack, &names, |_| record::question(), read);
    let known = Checksums::read(&instance);
    // The servers begin first: what they do for a connection takes longer.
    let listing = async {
        // Connected, they are told the user; only then do they begin.
        tokio::task::yield_now().await;
        list(cx, &known, &names).await
    };
    let (opened, seeds) = tokio::join!(opening, listing);
    let jobs = seeds?.into_iter().zip(opened?);
    let mut jobs: Vec<Job<'_>> = jobs
        .map(|(files, (target, recorded))| Job { target, files, recorded, scale: 1, state: State::Fresh })
        .collect();
    // The files of a new database are read as they are sent.
    let is_new = |job: &Job<'_>| State::is_fresh(&job.recorded);
    check(&mut jobs, |job| args.again || args.dry_run || !is_new(job)).await?;
    known.clone().keep(&instance, jobs.iter().flat_map(|job| &job.files))?;
    weigh(&mut jobs, args.scale);
    if !args.again && jobs.iter().all(|job| job.state == State::Same) {
        return unchanged(cx, args, &jobs);
    }
    if args.dry_run {
        return dry_run(cx, args, &mut jobs).await;
    }
    // Whoever seeded before the lock is ours is met in the transactions.
    let lock = cx.lock().await?;
    upgrade::refuse_if_interrupted(cx, &instance)?;
    refuse(cx, args, &jobs)?;
    let (same, mut jobs): (Vec<Job<'_>>, Vec<Job<'_>>) =
        jobs.into_iter().partition(|job| !args.again && job.state == State::Same);
    inspect(&jobs)?;
    if args.again {
        agree(cx, args, &instance, &dying(&mut jobs).await?).await?;
    }
    let rows = if args.again { Rows::Empty } else { Rows::Keep };
    let outcomes = match run::all(&mut jobs, rows, cx.waits(), &command(cx, args, false)).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            // A server says of one file at a time that its encoding is wrong.
            check(&mut jobs, |_| true).await?;
            return Err(error);
        }
    };
    known.keep(&instance, jobs.iter().chain(&same).flat_map(|job| &job.files))?;
    drop(lock);
    let done = report(cx, args, &jobs, &outcomes, &same, begun);
    target::leave_to_exit((jobs, same));
    done
}

/// The short names of the databases that are asked for, in the stack's order.
fn databases(cx: &Context, asked: &[String]) -> Result<Vec<String>> {
    let all: Vec<&str> = cx.stack.databases().map(|(service, _)| service.short_name.as_str()).collect();
    let is_asked = |name: &str, long: &str| asked.is_empty() || asked.iter().any(|one| one == name || one == long);
    let is_known =
        |one: &String| cx.stack.databases().any(|(service, _)| [&service.short_name, &service.name].contains(&one));
    if let Some(wrong) = asked.iter().find(|one| !is_known(one)) {
        bail!(unknown("database", wrong, all));
    }
    let named = cx.stack.databases().filter(|(service, _)| is_asked(&service.short_name, &service.name));
    Ok(named.map(|(service, _)| service.short_name.clone()).collect())
}

/// Those whose folder of seeds is there and not empty.
fn with_seeds(cx: &Context, names: Vec<String>) -> Result<Vec<String>> {
    let mut with = Vec::new();
    for (service, postgres) in cx.stack.databases().filter(|(service, _)| names.contains(&service.short_name)) {
        if files::has_some(&cx.repository.root, &postgres.seeds)? {
            with.push(service.short_name.clone());
        }
    }
    Ok(with)
}

/// The files of each database. Reading them is work for other threads.
async fn list(cx: &Context, known: &Checksums, names: &[String]) -> Result<Vec<Vec<SeedFile>>> {
    let known = Arc::new(known.clone());
    let wanted = cx.stack.databases().filter(|(service, _)| names.contains(&service.short_name));
    let listing = wanted.map(|(_, postgres)| {
        let (root, folder, known) = (cx.repository.root.clone(), postgres.seeds.clone(), known.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut faults = Vec::new();
            files::list(&root, &folder, &known, &mut faults).map(|files| (files, faults))
        });
        async move { reading.await? }
    });
    let mut faults = Faults::default();
    let mut seeds = Vec::new();
    for (files, wrong) in try_join_all(listing).await? {
        faults.extend(wrong);
        seeds.push(files);
    }
    if !faults.0.is_empty() {
        let (_, more) = read_through(seeds).await?;
        faults.extend(more);
        bail!(wrong_seeds(faults));
    }
    Ok(seeds)
}

/// Reads the files of some databases that were not read yet; an error tells all that are wrong.
async fn check(jobs: &mut [Job<'_>], is_asked: impl Fn(&Job<'_>) -> bool) -> Result<()> {
    let mut asked: Vec<&mut Job<'_>> = jobs.iter_mut().filter(|job| is_asked(job)).collect();
    asked.retain(|job| job.files.iter().any(|file| file.checksum.is_none()));
    let (checked, found) = read_through(asked.iter_mut().map(|job| std::mem::take(&mut job.files)).collect()).await?;
    asked.into_iter().zip(checked).for_each(|(job, files)| job.files = files);
    let mut faults = Faults::default();
    faults.extend(found);
    if !faults.0.is_empty() {
        bail!(wrong_seeds(faults));
    }
    Ok(())
}

/// The files of some databases, read, and what is wrong with them.
async fn read_through(seeds: Vec<Vec<SeedFile>>) -> Result<(Vec<Vec<SeedFile>>, Vec<Fault>)> {
    let reading = seeds.into_iter().map(|mut files| {
        let reading = tokio::task::spawn_blocking(move || {
            let mut faults = Vec::new();
            files.iter_mut().try_for_each(|file| files::check(file, &mut faults))?;
            Ok::<_, anyhow::Error>((files, faults))
        });
        async move { reading.await? }
    });
    let (files, faults): (Vec<_>, Vec<_>) = try_join_all(reading).await?.into_iter().unzip();
    Ok((files, faults.into_iter().flatten().collect()))
}

fn inspect(jobs: &[Job<'_>]) -> Result<()> {
    let mut faults = Vec::new();
    for job in jobs {
        files::inspect(&job.files, &mut faults)?;
    }
    let mut all = Faults::default();
    faults.into_iter().for_each(|fault| all.push(fault));
    if !all.0.is_empty() {
        bail!(wrong_seeds(all));
    }
    Ok(())
}

fn wrong_seeds(faults: Faults) -> Failure {
    let failure = context::configuration_failure(faults);
    Failure { title: failure.title.replace("the configuration", "the seeds"), ..failure }
}

/// What there is to do in each database.
fn weigh(jobs: &mut [Job<'_>], scale: Option<u32>) {
    let recorded = |job: &Job<'_>| job.recorded.entries.first().map(|entry| entry.scale);
    // References lead from one database to the next: what is new joins the others at their scale.
    let common = jobs.iter().find_map(&recorded).unwrap_or(1);
    for job in jobs {
        job.scale = scale.or(recorded(job)).unwrap_or(common);
        job.state = State::of(&job.files, &job.recorded, job.scale);
    }
}

/// The verb as it is typed to do the same.
fn command(cx: &Context, args: &SeedArgs, again: bool) -> String {
    let mut words = vec!["cargo xtask seed".to_owned()];
    words.extend(args.databases.iter().cloned());
    words.extend(args.scale.map(|scale| format!("--scale {scale}")));
    words.extend((again || args.again).then(|| "--again".to_owned()));
    format!("`{}{}`", words.join(" "), cx.stack_option())
}

/// Stops where there is nothing to fill, and where filling would destroy.
fn refuse(cx: &Context, args: &SeedArgs, jobs: &[Job<'_>]) -> Result<()> {
    let empty: Vec<&str> = jobs.iter().filter(|job| !job.recorded.has_tables).map(|job| job.target.name()).collect();
    if !empty.is_empty() {
        let title = format!("no tables yet in {}, nothing was changed", empty.join(", "));
        let hint = format!("`cargo xtask migrate{}` makes them", cx.stack_option());
        bail!(Failure::new(Exit::Failed, title).hint(hint));
    }
    if args.again {
        return Ok(());
    }
    let changed: Vec<(&str, &Vec<String>)> = jobs
        .iter()
        .filter_map(|job| match &job.state {
            State::Changed(differences) => Some((job.target.name(), differences)),
            _ => None,
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let rows = changed.iter().map(|(name, differences)| vec![(*name).to_owned(), differences.join(", ")]);
    let what = match changed.len() {
        1 => "1 database was filled with other seeds".to_owned(),
        count => format!("{count} databases were filled with other seeds"),
    };
    bail!(
        Failure::new(Exit::Refused, format!("{what}, nothing was changed"))
            .body(table::columns(rows.collect(), &[]))
            .hint(format!("{} empties their tables and fills them again", command(cx, args, true)))
    )
}

async fn dying(jobs: &mut [Job<'_>]) -> Result<Vec<(String, Vec<Dying>)>> {
    let looking = jobs.iter_mut().map(async |job| {
        let tables = run::csv_tables(&job.files);
        let dying = record::dying(&mut job.target.connection, &job.recorded, &tables).await?;
        Ok::<_, anyhow::Error>((job.target.name().to_owned(), dying))
    });
    try_join_all(looking).await
}

fn describe(cx: &Context, dying: &[(String, Vec<Dying>)]) -> Result<String> {
    let mut rows = Vec::new();
    for (name, tables) in dying {
        for (index, one) in tables.iter().filter(|one| one.rows > 0).enumerate() {
            let (name, backup) = match index {
                0 => (name.clone(), before::last(cx, name)?),
                _ => (String::new(), String::new()),
            };
            rows.push(vec![name, one.table.clone(), units::count(one.rows), "rows".to_owned(), backup]);
        }
    }
    Ok(format!(
        "This empties tables of {}, with all that people put into them:\n\n{}\n",
        cx.stack.name,
        table::columns(rows, &[2])
    ))
}

/// Tells what dies, and asks a person by the stack's name.
async fn agree(cx: &Context, args: &SeedArgs, instance: &Instance, dying: &[(String, Vec<Dying>)]) -> Result<()> {
    if dying.iter().flat_map(|(_, tables)| tables).all(|one| one.rows == 0) {
        return Ok(());
    }
    ui::tell(describe(cx, dying)?);
    let names: Vec<String> = emptied(dying).map(str::to_owned).collect();
    let choice = Choice::from(args.no_backup);
    let before = Before::look(cx, &names, |_| true, choice)?;
    before.tell();
    if !args.yes {
        let command = command(cx, args, true);
        let no_backup = choice.option();
        cx.agree(&format!("{}{no_backup} --yes", command.trim_matches('`')), "nothing was changed").await?;
    }
    before.take(cx, instance, "before-seed").await
}

/// The databases that lose rows.
fn emptied(dying: &[(String, Vec<Dying>)]) -> impl Iterator<Item = &str> {
    dying.iter().filter(|(_, tables)| tables.iter().any(|one| one.rows > 0)).map(|(name, _)| name.as_str())
}

async fn dry_run(cx: &Context, args: &SeedArgs, jobs: &mut [Job<'_>]) -> Result<Exit> {
    inspect(jobs)?;
    let describe_state = |state: &State| match (state, args.again) {
        (_, true) => "empty, and fill again".to_owned(),
        (State::Fresh, _) => "fill".to_owned(),
        (State::Same, _) => "unchanged".to_owned(),
        (State::Changed(differences), _) => differences.join(", "),
    };
    if args.json {
        let plan = jobs.iter().map(|job| {
            let files: Vec<&str> = job.files.iter().map(|file| file.name.as_str()).collect();
            json!({ "database": job.target.name(), "action": describe_state(&job.state), "scale": job.scale, "files": files })
        });
        ui::json(&json!({ "stack": cx.stack.name, "plan": plan.collect::<Vec<_>>() }))?;
    } else {
        let rows = jobs.iter().map(|job| {
            let files = units::plural(job.files.len(), "file");
            vec![job.target.name().to_owned(), files, format!("scale {}", job.scale), describe_state(&job.state)]
        });
        ui::data(&table::columns(rows.collect(), &[]))?;
    }
    refuse(cx, args, jobs)?;
    if args.again {
        ui::tell(describe(cx, &dying(jobs).await?)?);
    }
    Ok(Exit::Done)
}

fn unchanged(cx: &Context, args: &SeedArgs, jobs: &[Job<'_>]) -> Result<Exit> {
    if args.json {
        let databases: Vec<Value> = jobs.iter().map(unchanged_line).collect();
        ui::json(&json!({ "stack": cx.stack.name, "databases": databases }))?;
    }
    let mut scales: Vec<u32> = jobs.iter().map(|job| job.scale).collect();
    scales.dedup();
    let scale = match scales[..] {
        [scale] => format!(" at scale {scale}"),
        _ => String::new(),
    };
    ui::tell(format!("{} is seeded{scale}: {}, unchanged", cx.stack.name, units::plural(jobs.len(), "database")));
    Ok(Exit::Done)
}

fn unchanged_line(job: &Job<'_>) -> Value {
    json!({ "name": job.target.name(), "state": "unchanged", "scale": job.scale })
}

fn report(
    cx: &Context,
    args: &SeedArgs,
    jobs: &[Job<'_>],
    outcomes: &[Outcome],
    same: &[Job<'_>],
    begun: Instant,
) -> Result<Exit> {
    if args.json {
        let seeded = jobs.iter().zip(outcomes).map(|(job, outcome)| match outcome.was_done {
            true => unchanged_line(job),
            false => json!({
                "name": job.target.name(),
                "state": "seeded",
                "scale": job.scale,
                "rows": outcome.rows(),
                "seconds": outcome.took.as_secs_f64(),
                "files": outcome.files.iter().map(|file| json!({ "file": file.file, "rows": file.rows })).collect::<Vec<_>>(),
            }),
        });
        let databases: Vec<Value> = seeded.chain(same.iter().map(unchanged_line)).collect();
        ui::json(&json!({ "stack": cx.stack.name, "databases": databases }))?;
    }
    let seeded = jobs.iter().zip(outcomes).map(|(job, outcome)| {
        let name = job.target.name().to_owned();
        match outcome.was_done {
            true => vec![name, "unchanged".to_owned()],
            false => vec![
                name,
                units::plural(outcome.rows(), "row"),
                units::plural(outcome.files.len(), "file"),
                units::seconds(outcome.took),
            ],
        }
    });
    let same = same.iter().map(|job| vec![job.target.name().to_owned(), "unchanged".to_owned()]);
    ui::tell(table::columns(seeded.chain(same).collect(), &[1, 2, 3]));
    let rows: u64 = outcomes.iter().map(Outcome::rows).sum();
    let option = cx.stack_option();
    ui::tell(format!(
        "\n{} seeded: {} in {}. Next: `cargo xtask check references{option}`, `cargo xtask psql{option} {}`",
        units::plural(jobs.len(), "database"),
        units::plural(rows, "row"),
        units::seconds(begun.elapsed()),
        jobs.first().map_or("", |job| job.target.name()),
    ));
    Ok(Exit::Done)
}
