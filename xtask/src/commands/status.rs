//! `cargo xtask status`: what runs, asked of the servers themselves.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::StatusArgs;
use crate::context::Context;
use crate::engine::native::observe::{self, Observed};
use crate::engine::native::record::Record;
use crate::engine::native::servers::data_folder;
use crate::engine::postgres::{self, Door};
use crate::engine::readiness::Probe;
use crate::engine::{pubsub, redis};
use crate::files;
use crate::instance::{EngineKind, Instance};
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, table, units};

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
    let lines =
        cx.stack.services.iter().filter(|service| !matches!(service.kind, Kind::Tool(_))).map(async |service| {
            match &instance {
                Some(instance) => line(instance, service).await,
                None => blank(service, State::Absent),
            }
        });
    let services = futures_util::future::join_all(lines).await;
    Ok(Status {
        stack: cx.stack.name.clone(),
        engine: instance.as_ref().map(|instance| instance.identity.engine),
        instance: instance.as_ref().map(|instance| instance.identity.id.clone()),
        checkout: cx.repository.root.display().to_string(),
        services,
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

async fn line(instance: &Instance, service: &Service) -> Line {
    let short_name = &service.short_name;
    let observed = match observe::service(instance, short_name) {
        Ok(observed) => observed,
        Err(error) => return Line { problem: Some(format!("{error:#}")), ..blank(service, State::NotReady) },
    };
    match observed {
        Observed::Absent => blank(service, State::Absent),
        Observed::Stopped => {
            let data_bytes = Some(files::size_on_disk(&data_folder(instance, short_name)));
            Line { data_bytes, ..blank(service, State::Stopped) }
        }
        Observed::Died(record) => Line {
            since: Some(record.started),
            data_bytes: Some(files::size_on_disk(&data_folder(instance, short_name))),
            problem: Some("its process is gone".into()),
            ..blank(service, State::Died)
        },
        Observed::Running(record) => {
            let running = Line {
                address: format!("127.0.0.1:{}", record.port),
                pid: Some(record.pid),
                since: Some(record.started),
                uptime_secs: Some(units::since(record.started).as_secs()),
                ..blank(service, State::NotReady)
            };
            match tokio::time::timeout(PATIENCE, asked(instance, service, &record)).await {
                Ok(Ok(answer)) => Line {
                    state: State::Ready,
                    version: answer.version,
                    data_bytes: answer.data_bytes,
                    connections: answer.connections,
                    max_connections: answer.max_connections,
                    ..running
                },
                Ok(Err(error)) => Line { problem: Some(format!("{error:#}")), ..running },
                Err(_) => Line { problem: Some(format!("no answer within {} s", PATIENCE.as_secs())), ..running },
            }
        }
    }
}

/// What a running server says of itself.
struct Answer {
    version: Option<String>,
    data_bytes: Option<u64>,
    connections: Option<u64>,
    max_connections: Option<u64>,
}

async fn asked(instance: &Instance, service: &Service, record: &Record) -> Result<Answer> {
    match (&service.kind, &record.sockets, &record.login) {
        (Kind::Postgres(_), Some(folder), Some(login)) => {
            let door = Door::Socket { folder: folder.clone(), port: record.port };
            match postgres::probe(&door, &login.user, &login.database).await? {
                Probe::Ready(Ok(facts)) if facts.cluster_name == instance.cluster_name(&service.short_name) => {
                    Ok(Answer {
                        version: Some(facts.version),
                        data_bytes: Some(facts.size),
                        connections: Some(facts.connections),
                        max_connections: Some(facts.max_connections),
                    })
                }
                Probe::Ready(Ok(facts)) => anyhow::bail!("answered by `{}`", facts.cluster_name),
                Probe::Ready(Err(denied)) => anyhow::bail!("the owner's socket is refused: {denied:?}"),
                Probe::NotYet(status) => anyhow::bail!(status),
            }
        }
        (Kind::Redis(_), ..) => match redis::probe(record.port).await? {
            Probe::Ready(facts) if facts.process == record.pid => Ok(Answer {
                version: Some(facts.version),
                data_bytes: Some(facts.used),
                connections: Some(facts.clients),
                max_connections: None,
            }),
            Probe::Ready(facts) => anyhow::bail!("answered by process {}", facts.process),
            Probe::NotYet(status) => anyhow::bail!(status),
        },
        _ => match pubsub::probe(record.port).await? {
            Probe::Ready(()) => {
                Ok(Answer { version: None, data_bytes: None, connections: None, max_connections: None })
            }
            Probe::NotYet(status) => anyhow::bail!(status),
        },
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
    if status.services.iter().any(|line| line.core && line.pid.is_none()) {
        text.push_str(&format!("\n`cargo xtask up{}` starts what is not running\n", cx.stack_option()));
    }
    text
}
