//! Where services run: [`native`], plain processes, or [`docker`], containers through Compose. Both give the same verbs the
//! same results; what one of them cannot do is said in [`Engine::lacks`].

pub mod aside;
pub mod choice;
pub mod clients;
pub mod docker;
pub mod http;
pub mod limits;
pub mod native;
pub mod plan;
pub mod postgres;
pub mod pubsub;
pub mod readiness;
pub mod redis;
pub mod server;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::files;
use crate::instance::lock::Lock;
use crate::instance::{EngineKind, Instance};
use crate::stack::{Kind, Repository, Service, Stack};
use aside::{Aside, Note};
use docker::Docker;
use native::Native;
use plan::Step;
use readiness::Probe;
use server::{Observed, Server};

/// The engine of one instance.
#[derive(Debug)]
pub enum Engine<'a> {
    Native(Native<'a>),
    Docker(Docker<'a>),
}

impl<'a> Engine<'a> {
    pub fn of(repository: &'a Repository, stack: &'a Stack, instance: &'a Instance) -> Engine<'a> {
        match instance.identity.engine {
            EngineKind::Native => Engine::Native(Native { repository, stack, instance }),
            EngineKind::Docker => Engine::Docker(Docker::new(repository, stack, instance)),
        }
    }

    /// What an engine cannot do that the other can, and why. All else is held alike by the contract suite.
    pub fn lacks(kind: EngineKind) -> &'static [(&'static str, &'static str)] {
        match kind {
            EngineKind::Native => &[("tools", "pgAdmin, Grafana and the like come as images only")],
            EngineKind::Docker => &[
                ("down --undo", "a volume cannot be renamed, so it cannot be put aside"),
                ("data size of a stopped service", "only a running container can look into its volume"),
            ],
        }
    }

    /// What is there of each service, in their order. One that cannot be told is an error of its own.
    pub async fn observe(&self, services: &[&Service]) -> Result<Vec<Result<Observed>>> {
        Ok(match self {
            Engine::Native(native) => services.iter().map(|service| native.observe(service)).collect(),
            Engine::Docker(docker) => {
                let look = docker.look_for(services).await?;
                services.iter().map(|service| docker.observe(&look, service)).collect()
            }
        })
    }

    /// The servers of the stack that run. What cannot be told counts as not running.
    pub async fn running(&self, stack: &Stack) -> Result<Vec<Server>> {
        let services: Vec<&Service> = stack.services.iter().collect();
        let observed = self.observe(&services).await?.into_iter();
        Ok(observed
            .filter_map(|observed| match observed {
                Ok(Observed::Running(server)) => Some(server),
                _ => None,
            })
            .collect())
    }

    pub async fn plan<'s>(&self, services: &[&'s Service]) -> Result<Vec<Step<'s>>> {
        match self {
            Engine::Native(native) => native.plan(services),
            Engine::Docker(docker) => docker.plan(services).await,
        }
    }

    /// Every service that has data or a server, also those that the manifest no longer has.
    pub async fn all_services(&self) -> Result<Vec<String>> {
        match self {
            Engine::Native(native) => native.all_services(),
            Engine::Docker(docker) => Ok(docker.all_services(&docker.look().await?)),
        }
    }

    /// Stops those that run, all at once; gives their number.
    pub async fn stop(&self, names: &[String], lock: &Lock) -> Result<usize> {
        match self {
            Engine::Native(native) => native.stop(names).await,
            Engine::Docker(docker) => docker.stop(names, lock.share()?).await,
        }
    }

    /// The major version of PostgreSQL that made the data of each database, where there are some.
    pub async fn majors(&self, stack: &Stack) -> Result<BTreeMap<String, u32>> {
        let mut majors = BTreeMap::new();
        for server in self.running(stack).await? {
            let Some((door, login)) = server.door() else { continue };
            if let Probe::Ready(Ok(facts)) = postgres::probe(&door, &login.user, &login.database).await? {
                let major = facts.version.split('.').next().and_then(|major| major.parse().ok());
                majors.extend(major.map(|major| (server.service.clone(), major)));
            }
        }
        match self {
            Engine::Native(native) => {
                for (service, _) in stack.databases() {
                    let data = native::servers::data_folder(native.instance, &service.short_name);
                    majors.extend(native::start::data_major(&data).map(|major| (service.short_name.clone(), major)));
                }
            }
            Engine::Docker(docker) => {
                let stopped = docker.majors(&docker.look().await?).await?;
                majors.extend(stopped.into_iter().map(|(name, found, _)| (name, found)));
            }
        }
        Ok(majors)
    }

    /// Puts the data of a service that does not run aside, if they are still those of the note's major version.
    pub async fn put_aside(&self, service: &Service, note: &Note) -> Result<()> {
        match self {
            Engine::Native(native) => native.put_aside(&service.short_name, note),
            Engine::Docker(docker) => docker.put_aside(service, note).await,
        }
    }

    /// What was put aside of this instance.
    pub async fn aside(&self) -> Result<Vec<Aside>> {
        match self {
            Engine::Native(native) => native.aside(),
            Engine::Docker(docker) => docker.aside().await,
        }
    }

    pub async fn drop_aside(&self, aside: &Aside) -> Result<()> {
        match self {
            Engine::Native(_) => files::remove_folder(Path::new(&aside.place)),
            Engine::Docker(_) => docker::client::ask(&["volume", "rm", &aside.place]).await.map(drop),
        }
    }

    /// The bytes of a service's data, where the engine can tell without its server.
    pub fn data_bytes(&self, short_name: &str) -> Option<u64> {
        match self {
            Engine::Native(native) => Some(native.data_bytes(short_name)),
            Engine::Docker(_) => None,
        }
    }
}

/// Whether an engine can run a service of that kind.
pub fn runs(engine: EngineKind, kind: &Kind) -> bool {
    engine == EngineKind::Docker || native::runs(kind)
}
