//! `cargo xtask status`: what runs, asked of the servers themselves.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::backup::schedule;
use crate::cli::StatusArgs;
use crate::context::Context;
use crate::data::backup::schedule::Standing;
use crate::engine::Engine;
use crate::engine::server::Observed;
use crate::instance::EngineKind;
use crate::stack::Service;
use crate::ui::{self, Exit, failure, table, units};

/// How long one server may take to answer before it counts as not ready.
const PATIENCE: Duration = Duration::from_secs(3);
const REDRAW: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Ready,
    /// A server runs, and does not answer as it should.
    NotReady,
    /// Its process is gone, though nobody stopped it.
    Died,
    Stopped,
    /// Never started.
    Absent,
}

/// One service's line. Absent figures are `null`.
#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub service: String,
    pub address: String,
    pub state: State,
    pub version: Option<String>,
    pub pid: Option<i32>,
    pub since: Option<Timestamp>,
    pub uptime_secs: Option<u64>,
    pub data_bytes: Option<u64>,
    pub connections: Option<u64>,
    pub max_connections: Option<u64>,
    /// Why a service is not ready.
    pub problem: Option<String>,
    /// Whether `up` starts it without being asked.
    pub core: bool,
}

#[derive(Debug, Serialize)]
pub struct Status {
    pub stack: String,
    pub engine: Option<EngineKind>,
    pub instance: Option<String>,
    pub checkout: String,
    pub services: Vec<Line>,
    /// How it stands with the backups that come by themselves; `null` where none are scheduled.
    pub scheduled_backup: Option<Standing>,
}

pub async fn run(cx: &Context, args: &StatusArgs) -> Result<Exit> {
    loop {
        let status = ask(cx).await?;
        let is_well = status.services.iter().filter(|line| line.core).all(|line| line.state == State::Ready);
        if args.json {
            ui::json(&status)?;
        } else if args.watch {
            // Home, clear what follows: a redraw without flicker.
            ui::data(&format!("\x1b[H\x1b[J{}", rendered(cx, &status)))?;
            tokio::time::sleep(REDRAW).await;
            continue;
        } else {
            ui::data(&rendered(cx, &status))?;
        }
        return Ok(if is_well { Exit::Done } else { Exit::Found });
    }
}

/// Asks every service, all at once.
pub async fn ask(cx: &Context) -> Result<Status> {
    let instance = cx.instance()?;
    // A tool that was never asked for is not worth a line.
    let services: Vec<&Service> = cx.stack.services.iter().collect();
    let is_core = |service: &Service| service.profile.is_none();
    let services = match &instance {
        Some(instance) => {
            let engine = Engine::of(&cx.repository, &cx.stack, instance);
            let observed = engine.observe(&services).await?;
            let seen = services.iter().zip(observed);
            let shown =
                seen.filter(|(service, observed)| is_core(service) || !matches!(observed, Ok(Observed::Absent)));
            futures_util::future::join_all(shown.map(|(service, observed)| line(&engine, service, observed))).await
        }
        None => {
            let core = services.iter().filter(|service| is_core(service));
            core.map(|service| blank(service, State::Absent)).collect()
        }
    };
    Ok(Status {
        stack: cx.stack.name.clone(),
        engine: instance.as_ref().map(|instance| instance.identity.engine),
        instance: instance.as_ref().map(|instance| instance.identity.id.clone()),
        checkout: cx.repository.root.display().to_string(),
        services,
        scheduled_backup: schedule::standing(cx)?.map(|(_, standing)| standing),
    })
}

fn blank(service: &Service, state: State) -> Line {
    Line {
        name: service.short_name.clone(),
        service: service.name.clone(),
        address: format!("127.0.0.1:{}", service.port().number),
        state,
        version: None,
        pid: None,
        since: None,
        uptime_secs: None,
        data_bytes: None,
        connections: None,
        max_connections: None,
        problem: None,
        core: service.profile.is_none(),
    }
}

async fn line(engine: &Engine<'_>, service: &Service, observed: Result<Observed>) -> Line {
    let data_bytes = || engine.data_bytes(&service.short_name);
    match observed {
        Err(error) => Line { problem: Some(failure::in_a_line(&error)), ..blank(service, State::NotReady) },
        Ok(Observed::Absent) => blank(service, State::Absent),
        Ok(Observed::Stopped) => Line { data_bytes: data_bytes(), ..blank(service, State::Stopped) },
        Ok(Observed::Died { started }) => Line {
            since: Some(started),
            data_bytes: data_bytes(),
            problem: Some("its process is gone".into()),
            ..blank(service, State::Died)
        },
        Ok(Observed::Running(server)) => {
            let running = Line {
                address: format!("127.0.0.1:{}", server.port),
                pid: Some(server.pid),
                since: Some(server.started),
                uptime_secs: Some(units::since(server.started).as_secs()),
                ..blank(service, State::NotReady)
            };
            match tokio::time::timeout(PATIENCE, server.ask(service)).await {
                Ok(Ok(answer)) => Line {
                    state: State::Ready,
                    version: answer.version,
                    data_bytes: answer.data_bytes,
                    connections: answer.connections,
                    max_connections: answer.max_connections,
                    ..running
                },
                Ok(Err(error)) => Line { problem: Some(failure::in_a_line(&error)), ..running },
                Err(_) => Line { problem: Some(format!("no answer within {} s", PATIENCE.as_secs())), ..running },
            }
        }
    }
}

fn rendered(cx: &Context, status: &Status) -> String {
    let dash = || "–".to_owned();
    let engine = status.engine.map_or_else(|| "not created yet".to_owned(), |engine| engine.to_string());
    let since = status.services.iter().filter_map(|line| line.since.filter(|_| line.pid.is_some())).min();
    let up = since.map_or_else(String::new, |since| format!(" · up {}", units::span(units::since(since))));
    let mut text = format!("{} · {engine} · {}{up}\n\n", cx.stack.name, cx.repository.root.display());
    let header = ["service", "address", "state", "version", "pid", "data", "connections", "since"];
    let mut rows = vec![header.map(|name| ui::paint(ui::FAINT, name)).to_vec()];
    for line in &status.services {
        let state = match line.state {
            State::Ready => ui::paint(ui::GOOD, "ready"),
            State::NotReady => ui::paint(ui::WARNING, "not ready"),
            State::Died => ui::paint(ui::BAD, "died"),
            State::Stopped => ui::paint(ui::FAINT, "stopped"),
            State::Absent => ui::paint(ui::FAINT, "–"),
        };
        let connections = match (line.connections, line.max_connections) {
            (Some(open), Some(most)) => format!("{open} of {most}"),
            (Some(open), None) => open.to_string(),
            _ => dash(),
        };
        rows.push(vec![
            line.name.clone(),
            line.address.clone(),
            state,
            line.version.clone().unwrap_or_else(dash),
            line.pid.map_or_else(dash, |pid| pid.to_string()),
            line.data_bytes.map_or_else(dash, units::megabytes),
            connections,
            line.since.map_or_else(dash, units::clock),
        ]);
    }
    text.push_str(&table::columns(rows, &[4, 5]));
    let problems = status.services.iter().filter(|line| line.problem.is_some());
    for line in problems.clone() {
        let problem = line.problem.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "\n{}: {problem}; `cargo xtask logs {}{}` may say why\n",
            line.name,
            line.name,
            cx.stack_option()
        ));
    }
    if let Some(standing) = &status.scheduled_backup {
        text.push_str(&format!("\n{}\n", schedule::told(standing)));
    }
    if status.services.iter().any(|line| line.core && line.pid.is_none()) {
        text.push_str(&format!("\n`cargo xtask up{}` starts what is not running\n", cx.stack_option()));
    }
    text
}
