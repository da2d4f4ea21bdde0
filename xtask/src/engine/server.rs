//! A running server as every verb sees it, wherever it runs.

use std::path::PathBuf;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::docker::containers::Container;
use super::native::record::Record;
use super::postgres::{self, Door, Login};
use super::readiness::Probe;
use super::{http, pubsub, redis};
use crate::stack::{Kind, Service};

/// What is there of a service: asked of the system, never remembered.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// No data yet.
    Absent,
    /// Data, and no server.
    Stopped,
    Running(Server),
    /// It ended, though nobody stopped it.
    Died {
        started: Timestamp,
    },
}

/// Enough to reach a running server and to know whether it is the right one.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// The service's short name.
    pub service: String,
    pub pid: i32,
    pub started: Timestamp,
    pub port: u16,
    /// PostgreSQL only: the login that clients use.
    pub login: Option<Login>,
    /// Pub/Sub only.
    pub project: Option<String>,
    /// PostgreSQL only: what it must answer when it is asked who it is.
    pub cluster_name: String,
    pub home: Home,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Home {
    Process(Box<Record>),
    Container(Box<Container>),
}

/// What a server says of itself, where its kind says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub version: Option<String>,
    pub data_bytes: Option<u64>,
    pub connections: Option<u64>,
    pub max_connections: Option<u64>,
}

impl Server {
    /// The way in that needs no password, where there is one, else that of every client. `None`: it is no PostgreSQL.
    pub fn door(&self) -> Option<(Door, &Login)> {
        let login = self.login.as_ref()?;
        let sockets = match &self.home {
            Home::Process(record) => record.sockets.clone(),
            Home::Container(_) => None,
        };
        let door = match sockets {
            Some(folder) => Door::Socket { folder, port: self.port },
            None => Door::Tcp { port: self.port, password: login.password.clone() },
        };
        Some((door, login))
    }

    /// Which run of which server this is.
    pub fn identity(&self) -> String {
        format!("{} {} {} {}", self.cluster_name, self.pid, self.started, self.port)
    }

    /// The program that runs, where it is a file of this machine.
    pub fn program(&self) -> Option<&PathBuf> {
        match &self.home {
            Home::Process(record) => Some(&record.program),
            Home::Container(_) => None,
        }
    }

    pub fn container(&self) -> Option<&Container> {
        match &self.home {
            Home::Process(_) => None,
            Home::Container(container) => Some(container),
        }
    }

    /// Asks it who it is and how it is. An error: it does not answer as it should.
    pub async fn ask(&self, service: &Service) -> Result<Answer> {
        if let Some(container) = self.container().filter(|container| container.is_paused()) {
            bail!("its container `{}` is paused", container.name);
        }
        match (&service.kind, self.door()) {
            (Kind::Postgres(_), Some((door, login))) => {
                match postgres::examine(&door, &login.user, &login.database).await? {
                    Probe::Ready(Ok(facts)) if facts.identity.cluster_name == self.cluster_name => Ok(Answer {
                        version: Some(facts.identity.version),
                        data_bytes: Some(facts.size),
                        connections: Some(facts.connections),
                        max_connections: Some(facts.max_connections),
                    }),
                    Probe::Ready(Ok(facts)) => bail!("answered by `{}`", facts.identity.cluster_name),
                    Probe::Ready(Err(denied)) => bail!("it refuses the stack's user: {denied:?}"),
                    Probe::NotYet(status) => bail!(status),
                }
            }
            (Kind::Redis(_), _) => match redis::probe(self.port).await? {
                Probe::Ready(redis::Facts { master: Some(master), .. }) => match master.is_left_behind() {
                    true => bail!(
                        "it takes no writes since a restore was interrupted: `cargo xtask up {}` mends it",
                        self.service
                    ),
                    false => bail!("it takes its data from {}, and no writes", master.address),
                },
                Probe::Ready(facts) if self.container().is_some() || facts.process == self.pid => Ok(Answer {
                    version: Some(facts.version),
                    data_bytes: Some(facts.used),
                    connections: Some(facts.clients),
                    max_connections: None,
                }),
                Probe::Ready(facts) => bail!("answered by process {}", facts.process),
                Probe::NotYet(status) => bail!(status),
            },
            (Kind::Tool(_), _) => answered(http::probe(self.port).await?),
            _ => answered(pubsub::probe(self.port).await?),
        }
    }
}

fn answered(probe: Probe<()>) -> Result<Answer> {
    match probe {
        Probe::Ready(()) => Ok(Answer::default()),
        Probe::NotYet(status) => bail!(status),
    }
}
