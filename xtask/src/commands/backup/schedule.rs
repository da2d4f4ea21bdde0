//! `cargo xtask backup schedule`: a backup every day, started by what the system has for it: a timer of systemd, an agent of
//! launchd, or a line of cron that a person adds.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::{Absent, asked, prune, take, verify};
use crate::cli::{BackupPruneArgs, BackupScheduleArgs, BackupTakeArgs};
use crate::context::Context;
use crate::data::backup::place::Place;
use crate::data::backup::schedule::{self, Job, Outcome, Schedule, Standing, Starter};
use crate::engine::Engine;
use crate::engine::server::Observed;
use crate::files;
use crate::stack::{Kind, Service};
use crate::tools::{self, Input};
use crate::ui::{self, Exit, Failure, failure, paint, units};

/// What of the shell's environment a run in the night needs as well: where programs and configuration are, and no secret.
const ENVIRONMENT: [&str; 8] = [
    "PATH",
    "RCLONE_CONFIG",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XTASK_STATE_DIR",
    "XTASK_SERVER_USER",
];

pub fn run(cx: &Context, args: &BackupScheduleArgs) -> Result<Exit> {
    match args.daily {
        Some(daily) => install(cx, args, daily),
        None if args.remove => remove(cx),
        None => show(cx, args),
    }
}

fn install(cx: &Context, args: &BackupScheduleArgs, daily: jiff::civil::Time) -> Result<Exit> {
    asked(cx, &args.names)?;
    let to = match &args.to {
        // That it leads somewhere is better known now than at night.
        Some(to) => Some(match Place::named(to, &cx.folder)? {
            Place::Folder(folder) => folder,
            Place::Remote(_) => to.clone(),
        }),
        None => None,
    };
    let job = job(cx, daily)?;
    let (starter, why) = starter()?;
    let schedule = Schedule {
        daily,
        names: args.names.clone(),
        to,
        incremental: args.incremental,
        recipients: args.recipient.clone(),
        prune: args.prune,
        starter,
        since: Timestamp::now(),
    };
    let state = cx.repository.state_folder(&cx.stack.name);
    schedule.write(&state)?;
    match starter {
        Starter::Systemd => {
            let (service, timer) = units_of(&job)?;
            files::create_folder(service.parent().unwrap_or(&service))?;
            files::write_atomically(&service, job.systemd_service().as_bytes(), 0o644)?;
            files::write_atomically(&timer, job.systemd_timer().as_bytes(), 0o644)?;
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", "--now", &format!("{}.timer", job.label())])?;
            ui::tell(format!("a backup every day at {}, by {}", daily.strftime("%H:%M"), timer.display()));
            if !lingers() {
                ui::tell("it runs while you are logged in; `loginctl enable-linger` lets it run always");
            }
        }
        Starter::Launchd => {
            let agent = agent_of(&job)?;
            files::create_folder(agent.parent().unwrap_or(&agent))?;
            files::write_atomically(&agent, job.launch_agent().as_bytes(), 0o644)?;
            let domain = launchd_domain();
            drop(launchctl(&["bootout", &format!("{domain}/{}", job.label())]));
            launchctl(&["bootstrap", &domain, &agent.display().to_string()])?;
            ui::tell(format!("a backup every day at {}, by {}", daily.strftime("%H:%M"), agent.display()));
        }
        Starter::Cron => {
            ui::data(&format!("{}\n", job.cron_line()))?;
            ui::tell(format!("{why}: add this line with `crontab -e` for a backup every day"));
        }
    }
    Ok(Exit::Done)
}

fn remove(cx: &Context) -> Result<Exit> {
    let state = cx.repository.state_folder(&cx.stack.name);
    let Some(schedule) = Schedule::read(&state)? else {
        ui::tell(format!("no backup of {} is scheduled", cx.stack.name));
        return Ok(Exit::Done);
    };
    let job = job(cx, schedule.daily)?;
    match schedule.starter {
        Starter::Systemd => {
            let (service, timer) = units_of(&job)?;
            if timer.exists() {
                systemctl(&["disable", "--now", &format!("{}.timer", job.label())])?;
            }
            files::remove_if_present(&timer)?;
            files::remove_if_present(&service)?;
            systemctl(&["daemon-reload"])?;
        }
        Starter::Launchd => {
            drop(launchctl(&["bootout", &format!("{}/{}", launchd_domain(), job.label())]));
            files::remove_if_present(&agent_of(&job)?)?;
        }
        Starter::Cron => ui::tell("take its line away as well: `crontab -e`"),
    }
    Schedule::remove(&state)?;
    ui::tell(format!("no backup of {} is scheduled any more", cx.stack.name));
    Ok(Exit::Done)
}

fn show(cx: &Context, args: &BackupScheduleArgs) -> Result<Exit> {
    let state = cx.repository.state_folder(&cx.stack.name);
    let schedule = Schedule::read(&state)?;
    if args.json {
        let standing = standing(cx)?.map(|(_, standing)| standing);
        ui::json(&json!({ "stack": cx.stack.name, "schedule": schedule, "standing": standing }))?;
        return Ok(Exit::Done);
    }
    let Some((schedule, standing)) = standing(cx)? else {
        ui::tell(format!("no backup of {} is scheduled; `cargo xtask backup schedule --daily 03:00`", cx.stack.name));
        return Ok(Exit::Done);
    };
    let what = match schedule.names.is_empty() {
        true => "all of the instance".to_owned(),
        false => schedule.names.join(", "),
    };
    let to = schedule.to.as_ref().map_or_else(|| "backups/".to_owned(), |to| to.display().to_string());
    ui::data(&format!("  every day at {}: {what} → {to}\n  {}\n", schedule.daily.strftime("%H:%M"), told(&standing)))?;
    let log = schedule::log(&state);
    if let Ok(text) = files::read_text(&log) {
        ui::data(&format!("  its log, {}:\n\n{}", cx.relative(&log).display(), tools::indented(&text)))?;
    }
    if schedule.starter == Starter::Cron {
        ui::data(&format!("  by this line of `crontab`:\n\n    {}\n", job(cx, schedule.daily)?.cron_line()))?;
    }
    Ok(Exit::Done)
}

/// What was scheduled, and how it stands with it.
pub fn standing(cx: &Context) -> Result<Option<(Schedule, Standing)>> {
    let state = cx.repository.state_folder(&cx.stack.name);
    let Some(schedule) = Schedule::read(&state)? else { return Ok(None) };
    let outcome = Outcome::read(&state)?;
    let standing = schedule.standing(outcome.as_ref(), Timestamp::now(), &TimeZone::system());
    Ok(Some((schedule, standing)))
}

/// One line about it.
pub fn told(standing: &Standing) -> String {
    let ago = |time: Timestamp| format!("{} ago", units::span(units::since(time)));
    match standing {
        Standing::Waiting => "scheduled backup: the first is still to come".to_owned(),
        Standing::Running { since } => format!("scheduled backup: running, since {}", units::clock(*since)),
        Standing::Done { at } => format!("scheduled backup: {}, {}", paint(ui::GOOD, "done"), ago(*at)),
        Standing::Failed { at, error } => {
            format!("scheduled backup: {} {}: {error}", paint(ui::BAD, "failed"), ago(*at))
        }
        Standing::Overdue { due } => {
            format!("scheduled backup: {}, it was due {}", paint(ui::BAD, "did not run"), ago(*due))
        }
    }
}

/// One run, started by the system. How it went is written down, whatever it was.
pub async fn run_scheduled(cx: &Context) -> Result<Exit> {
    let state = cx.repository.state_folder(&cx.stack.name);
    let Some(schedule) = Schedule::read(&state)? else {
        bail!(Failure::new(Exit::Usage, format!("no backup of {} is scheduled", cx.stack.name)));
    };
    let mut outcome = Outcome { started: Timestamp::now(), ended: None, error: None };
    outcome.write(&state)?;
    let done = carry_out(cx, &schedule).await;
    outcome.ended = Some(Timestamp::now());
    outcome.error = done.as_ref().err().map(failure::in_a_line);
    outcome.write(&state)?;
    done
}

/// What runs is backed up and read back. What should run and does not is no reason to lose that, and makes the run a failed one.
async fn carry_out(cx: &Context, schedule: &Schedule) -> Result<Exit> {
    let taken = take(
        cx,
        &BackupTakeArgs {
            names: schedule.names.clone(),
            all: false,
            label: None,
            incremental: schedule.incremental,
            to: schedule.to.clone(),
            recipient: schedule.recipients.clone(),
            json: false,
        },
        Absent::LeftOut,
    )
    .await?;
    verify::read_back(&taken)?;
    if schedule.prune {
        let (names, at) = (schedule.names.clone(), schedule.to.clone());
        prune::run(cx, &BackupPruneArgs { names, at, yes: true, ..BackupPruneArgs::default() }).await?;
    }
    let mut missing = expected(cx, schedule).await?;
    missing.retain(|name| taken.iter().all(|taken| taken.kept.name != *name));
    if !missing.is_empty() {
        bail!(
            Failure::new(Exit::Failed, format!("not running, and so not backed up: {}", missing.join(", ")))
                .body("  what runs was backed up, and read back")
                .hint(format!("`cargo xtask up {}{}`", missing.join(" "), cx.stack_option()))
        );
    }
    ui::tell(format!("{} read back, and as written", units::plural(taken.len(), "backup")));
    Ok(Exit::Done)
}

/// What a backup of each has to be there of: of the names that were given; else of all that has data in the instance.
async fn expected(cx: &Context, schedule: &Schedule) -> Result<Vec<String>> {
    let services = asked(cx, &schedule.names)?;
    let Some(instance) = cx.instance()?.filter(|_| schedule.names.is_empty()) else {
        return Ok(services.iter().map(|service| service.short_name.clone()).collect());
    };
    let observed = Engine::of(&cx.repository, &cx.stack, &instance).observe(&services).await?;
    // The emulator forgets everything when it stops.
    let holds_data = |service: &Service| matches!(service.kind, Kind::Postgres(_) | Kind::Redis(_));
    let is_there = |observed: &Result<Observed>| !matches!(observed, Ok(Observed::Absent));
    let expected = services.iter().zip(&observed).filter(|(service, seen)| holds_data(service) && is_there(seen));
    Ok(expected.map(|(service, _)| service.short_name.clone()).collect())
}

fn job(cx: &Context, daily: jiff::civil::Time) -> Result<Job> {
    let environment = ENVIRONMENT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    Ok(Job {
        stack: cx.stack.name.clone(),
        root: cx.repository.root.clone(),
        program: std::env::current_exe().context("the helper's own file cannot be found")?,
        log: schedule::log(&cx.repository.state_folder(&cx.stack.name)),
        environment: environment.collect(),
        daily,
    })
}

/// Who can start it here, and why not somebody better.
fn starter() -> Result<(Starter, String)> {
    if cfg!(target_os = "macos") {
        return Ok((Starter::Launchd, String::new()));
    }
    if tools::on_path("systemctl").is_empty() {
        return Ok((Starter::Cron, "there is no systemd here".to_owned()));
    }
    match systemctl(&["show-environment"]) {
        Ok(_) => Ok((Starter::Systemd, String::new())),
        Err(_) => Ok((Starter::Cron, "your systemd (`systemctl --user`) does not answer".to_owned())),
    }
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let mut command = tools::program("systemctl");
    command.arg("--user").args(arguments);
    tools::run(command, Input::Text(String::new()))?.ok().map(drop)
}

fn launchctl(arguments: &[&str]) -> Result<()> {
    let mut command = tools::program("launchctl");
    command.args(arguments);
    tools::run(command, Input::Text(String::new()))?.ok().map(drop)
}

fn launchd_domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn home() -> Result<PathBuf> {
    std::env::home_dir().context("there is no home folder: `HOME` is not set")
}

fn units_of(job: &Job) -> Result<(PathBuf, PathBuf)> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty());
    let config = config.map_or_else(|| home().map(|home| home.join(".config")), |config| Ok(config.into()))?;
    let unit = |kind: &str| config.join("systemd/user").join(format!("{}.{kind}", job.label()));
    Ok((unit("service"), unit("timer")))
}

fn agent_of(job: &Job) -> Result<PathBuf> {
    Ok(home()?.join("Library/LaunchAgents").join(format!("{}.plist", job.label())))
}

/// Whether the user's systemd runs without the user.
fn lingers() -> bool {
    let name = std::env::var("USER").unwrap_or_default();
    !name.is_empty() && std::path::Path::new("/var/lib/systemd/linger").join(name).exists()
}
