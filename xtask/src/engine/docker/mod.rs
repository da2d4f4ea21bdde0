//! The docker engine: the stack as a Compose project of the generated file.
//!
//! Reading order: [`client`] (how Docker is asked), [`containers`] (what runs), [`images`], [`networks`] and [`volumes`]
//! (what must be there first; how a new database gets its data), [`prepare`] (what stands in the way of a plan), [`start`]
//! and [`answers`] (from there to servers that answer), [`project`] (which Compose project an instance is), [`aside`] (what an
//! upgrade has replaced). Everything is asked of the engine each time.

pub mod answers;
pub mod aside;
pub mod client;
pub mod containers;
pub mod images;
pub mod networks;
pub mod prepare;
pub mod project;
pub mod start;
pub mod volumes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::plan::{Action, Step, why_changed};
use super::server::{Home, Observed, Server};
use crate::files;
use crate::instance::Instance;
use crate::render::{self, GeneratedFile};
use crate::stack::{Kind, Repository, Service, Stack};
use crate::tools::Input;
use crate::ui;
use client::Compose;
use containers::Container;
use volumes::Volume;

/// The engine for one instance.
#[derive(Debug)]
pub struct Docker<'a> {
    pub repository: &'a Repository,
    pub stack: &'a Stack,
    pub instance: &'a Instance,
    pub project: String,
    /// Relative to the repository's root; beside the committed one, whose relative paths it has.
    pub compose_file: PathBuf,
    /// What `plan` saw, for the start that follows it under the same lock.
    seen: RefCell<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
}

/// What the engine has of a project at one moment.
#[derive(Debug)]
pub struct Look {
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
}

/// What Compose thinks of each service's configuration, kept as long as file and variables are the same: asking takes a
/// tenth of a second.
#[derive(Debug, Serialize, Deserialize)]
struct Hashes {
    of: String,
    hashes: BTreeMap<String, String>,
}

impl<'a> Docker<'a> {
    pub fn new(repository: &'a Repository, stack: &'a Stack, instance: &'a Instance) -> Docker<'a> {
        let project = instance.identity.project.clone().unwrap_or_else(|| stack.name.clone());
        let compose_file = render::compose::path(&stack.name);
        Docker { repository, stack, instance, project, compose_file, seen: RefCell::default() }
    }

    pub fn compose(&self) -> Compose {
        Compose {
            project: self.project.clone(),
            file: self.repository.root.join(&self.compose_file),
            variables: self.stack.settings.iter().map(|one| (one.name.clone(), one.value.clone())).collect(),
        }
    }

    /// Everything of the project.
    pub async fn look(&self) -> Result<Look> {
        let (containers, volumes) =
            tokio::join!(containers::of_project(&self.project), volumes::of_project(&self.project));
        Ok(Look { containers: containers?, volumes: volumes? })
    }

    /// As much as it takes to observe these services: one that has a container has data, whatever its volume.
    pub async fn look_for(&self, services: &[&Service]) -> Result<Look> {
        let containers = containers::of_project(&self.project).await?;
        let volumes = match self.needs_volumes(services, &containers) {
            true => volumes::of_project(&self.project).await?,
            false => Vec::new(),
        };
        Ok(Look { containers, volumes })
    }

    fn needs_volumes(&self, services: &[&Service], containers: &[Container]) -> bool {
        services.iter().any(|service| service.volume.is_some() && container_of(containers, service).is_none())
    }

    /// What a look says of a service.
    pub fn observe(&self, look: &Look, service: &Service) -> Result<Observed> {
        Ok(match container_of(&look.containers, service) {
            Some(container) if container.is_running() => Observed::Running(self.server(service, container)?),
            Some(container) if container.has_died() => Observed::Died { started: container.started },
            Some(_) => Observed::Stopped,
            None => {
                let name = service.volume.as_ref().map(|volume| format!("{}_{volume}", self.project));
                let volume = look.volumes.iter().find(|volume| Some(&volume.name) == name.as_ref());
                // Without our label it is one that Compose made on the side: `up` looks what is in it.
                match volume.is_some_and(|volume| volume.label(volumes::INSTANCE_LABEL).is_some()) {
                    true => Observed::Stopped,
                    false => Observed::Absent,
                }
            }
        })
    }

    fn server(&self, service: &Service, container: &Container) -> Result<Server> {
        let Some(port) = container.ports.get(&service.port().container) else {
            bail!("the container `{}` publishes no port {}", container.name, service.port().container);
        };
        Ok(Server {
            service: service.short_name.clone(),
            pid: container.pid,
            started: container.started,
            port: *port,
            login: service.postgres().and_then(|_| container.login()),
            project: match &service.kind {
                Kind::PubSub(_) => container.argument("--project").map(str::to_owned),
                _ => None,
            },
            cluster_name: self.cluster_name(&service.short_name),
            home: Home::Container(Box::new(container.clone())),
        })
    }

    /// What a server answers when it is asked who it is: as the Compose file sets it. A project's name is one instance's
    /// alone on an engine.
    pub fn cluster_name(&self, short_name: &str) -> String {
        format!("{}/{short_name}", self.project)
    }

    /// What is to be done for each service.
    pub async fn plan<'s>(&self, services: &[&'s Service]) -> Result<Vec<Step<'s>>> {
        let (look, hashes) = tokio::join!(self.look_for(services), self.hashes());
        let (look, hashes) = (look?, hashes?);
        let step = |service: &&'s Service| {
            let action = match self.observe(&look, service)? {
                Observed::Absent => Action::Create,
                Observed::Stopped | Observed::Died { .. } => Action::Start,
                Observed::Running(server) => {
                    let running = Box::new(server);
                    let container = running.container();
                    let hash = container.map(|container| &container.config_hash);
                    if hash != hashes.get(&service.name) {
                        Action::Restart { why: why_changed(&running, service), running }
                    } else if container.is_some_and(Container::is_paused) {
                        Action::Restart { why: "its container is paused".into(), running }
                    } else {
                        Action::Keep { running }
                    }
                }
            };
            Ok(Step { service, action, blueprint: None })
        };
        let steps = services.iter().map(step).collect();
        let volumes = self.needs_volumes(services, &look.containers).then_some(look.volumes);
        self.seen.replace(Seen { containers: Some(look.containers), volumes });
        steps
    }

    /// Makes the Compose file what manifest and pins say now. It is committed: a change is told.
    pub fn refresh_compose_file(&self) -> Result<()> {
        let wanted = self.generated();
        if self.has_file(&wanted) {
            return Ok(());
        }
        self.write_compose_file()?;
        ui::tell(format!("note: wrote {} anew, since the manifest changed; commit it", wanted.path.display()));
        Ok(())
    }

    pub fn write_compose_file(&self) -> Result<()> {
        let wanted = self.generated();
        let path = self.repository.root.join(&wanted.path);
        if let Some(folder) = path.parent() {
            files::create_folder(folder)?;
        }
        files::write_atomically(&path, wanted.text.as_bytes(), 0o644)
    }

    fn generated(&self) -> GeneratedFile {
        GeneratedFile { path: self.compose_file.clone(), ..render::compose::file(self.stack) }
    }

    fn has_file(&self, wanted: &GeneratedFile) -> bool {
        files::read_text(&self.repository.root.join(&wanted.path)).is_ok_and(|present| present == wanted.text)
    }

    /// Of each service; of none where the file is not what it should be.
    async fn hashes(&self) -> Result<BTreeMap<String, String>> {
        let compose = self.compose();
        let file = self.generated();
        if !self.has_file(&file) {
            return Ok(BTreeMap::new());
        }
        let variables = compose.variables.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let of = files::short_hash([self.project.as_str(), &file.text].into_iter().chain(variables));
        let path = self.instance.folder.join("compose-hashes.json");
        // A note that cannot be read is made anew.
        if let Ok(Some(known)) = files::read_json::<Hashes>(&path)
            && known.of == of
        {
            return Ok(known.hashes);
        }
        let out = client::checked(compose.run(&["config", "--hash", "*"], Input::Text(String::new())).await?)?;
        let hashes = out.lines().filter_map(|line| line.split_once(' '));
        let hashes: BTreeMap<String, String> =
            hashes.map(|(name, hash)| (name.to_owned(), hash.trim().to_owned())).collect();
        if self.instance.folder.is_dir() {
            files::write_json(&path, &Hashes { of, hashes: hashes.clone() })?;
        }
        Ok(hashes)
    }

    /// Every service that has data or a container, also those that the manifest no longer has.
    pub fn all_services(&self, look: &Look) -> Vec<String> {
        let known = |name: &str| self.stack.service(name).map_or_else(|| name.to_owned(), |one| one.short_name.clone());
        let of_volume = |volume: &Volume| {
            let owner =
                self.stack.services.iter().find(|service| service.volume.as_deref() == Some(volume.short_name()));
            owner.map_or_else(|| volume.short_name().to_owned(), |service| service.short_name.clone())
        };
        let mut names: Vec<String> = look.containers.iter().map(|container| known(&container.service)).collect();
        names.extend(look.volumes.iter().map(of_volume));
        names.sort();
        names.dedup();
        names
    }

    /// Stops those that run, all at once; gives their number.
    pub async fn stop(&self, names: &[String], lock: File) -> Result<usize> {
        let look = self.look().await?;
        let is_asked = |container: &&Container| {
            let service = self.stack.service(&container.service);
            let short_name = service.map_or(&container.service, |service| &service.short_name);
            container.is_running() && names.contains(short_name)
        };
        let running: Vec<&Container> = look.containers.iter().filter(is_asked).collect();
        if running.is_empty() {
            return Ok(0);
        }
        let _waiting = ui::progress::Waiting::new(format!("stopping {}", ui::units::plural(running.len(), "service")));
        // Each with the signal and the patience that its Compose file names.
        let ids = running.iter().map(|container| container.id.as_str());
        let paused: Vec<&str> =
            running.iter().filter(|container| container.is_paused()).map(|container| container.id.as_str()).collect();
        if !paused.is_empty() {
            client::change(&[&["unpause"][..], &paused].concat(), lock.try_clone()?).await?;
        }
        client::change(&["stop"].into_iter().chain(ids).collect::<Vec<_>>(), lock).await?;
        Ok(running.len())
    }

    /// Removes containers and network; volumes stay.
    pub async fn down(&self, lock: File) -> Result<()> {
        let ran = self.compose().run(&["down", "--remove-orphans"], Input::Held(lock)).await?;
        client::checked(ran).map(drop)
    }

    /// The size of each volume of the engine, in its words.
    pub async fn volume_sizes(&self) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Usage {
            name: String,
            size: String,
        }
        let arguments = ["system", "df", "--verbose", "--format", "{{json .Volumes}}"];
        let ran = client::docker(&arguments, Input::Text(String::new())).await?.ok()?;
        let usage: Vec<Usage> = client::parse(&ran)?;
        Ok(usage.into_iter().map(|one| (one.name, one.size)).collect())
    }

    /// Removes volumes of the project.
    pub async fn remove_volumes(&self, volumes: &[Volume], lock: File) -> Result<()> {
        let names = volumes.iter().map(|volume| volume.name.as_str());
        client::change(&["volume", "rm"].into_iter().chain(names).collect::<Vec<_>>(), lock).await.map(drop)
    }
}

/// The container of a service; the one that runs where an interrupted change left two.
pub fn container_of<'c>(containers: &'c [Container], service: &Service) -> Option<&'c Container> {
    let of_service = || containers.iter().filter(|container| container.service == service.name);
    of_service()
        .find(|container| container.is_running())
        .or_else(|| of_service().max_by_key(|container| container.started))
}
