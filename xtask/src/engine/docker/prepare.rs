//! What stands between a plan and its start: images, networks, and volumes that are new, somebody else's, or of another major
//! version. All of it is found, and told, before anything starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::containers::{self, Container};
use super::images::{self, Image, MissingImage};
use super::volumes::{self, CHECKOUT_LABEL, Content, INSTANCE_LABEL, NewVolume};
use super::{Docker, Look, client, container_of, networks};
use crate::engine::limits;
use crate::engine::plan::{Action, Step};
use crate::stack::Service;
use crate::ui::{Exit, Failure, failure, units};

/// What was found to start with.
#[derive(Debug, Default)]
pub struct Prepared {
    pub images: BTreeMap<String, Image>,
    /// Every container that is to start is there as it should be: no more is needed than a start.
    pub has_containers: bool,
    /// Volumes that hold no cluster yet, by the service's short name.
    pub fresh: BTreeMap<String, NewVolume>,
    /// New volumes of services that need no cluster.
    pub others: Vec<NewVolume>,
    /// Where the engine keeps its files, as it says.
    pub root: PathBuf,
}

impl Docker<'_> {
    /// Everything that could stand in the way, found before anything starts.
    pub async fn prepare(
        &self,
        steps: &[Step<'_>],
        images: BTreeMap<String, Image>,
        offline: bool,
    ) -> Result<Prepared> {
        let starting: Vec<&Step<'_>> = steps.iter().filter(|step| step.action.starts()).collect();
        let services: Vec<&Service> = starting.iter().map(|step| step.service).collect();
        let seen = self.seen.take();
        let containers = match seen.containers {
            Some(containers) => containers,
            None => containers::of_project(&self.project).await?,
        };
        let hashes = self.hashes().await?;
        let is_as_wanted = |service: &&Service| {
            let container = container_of(&containers, service);
            container.is_some_and(|container| Some(&container.config_hash) == hashes.get(&service.name))
        };
        if services.iter().all(is_as_wanted) {
            return Ok(Prepared { has_containers: true, ..Prepared::default() });
        }
        let (images, network, volumes, root) = tokio::join!(
            self.provide(&services, images, offline),
            networks::check(self.stack, &self.project),
            async {
                match seen.volumes {
                    Some(volumes) => Ok(volumes),
                    None => volumes::of_project(&self.project).await,
                }
            },
            client::ask(&["info", "--format", "{{.DockerRootDir}}"]),
        );
        let images = images?;
        network?;
        let (look, root) = (Look { containers, volumes: volumes? }, PathBuf::from(root?.trim()));
        let mut prepared = Prepared { images, root, ..Prepared::default() };
        self.sort_volumes(&starting, &look, &mut prepared).await?;
        // Where the engine keeps its volumes on this machine, their disk must have room.
        limits::check_space(&prepared.root, prepared.fresh.len())?;
        Ok(prepared)
    }

    /// The images of those services by reference; those that are not here are pulled unless `offline`.
    pub async fn provide(
        &self,
        services: &[&Service],
        known: BTreeMap<String, Image>,
        offline: bool,
    ) -> Result<BTreeMap<String, Image>> {
        let are_known = services.iter().all(|service| known.contains_key(&self.stack.image_of(service)));
        let seen = if are_known { known } else { images::seen(self.stack, services).await? };
        let (images, missing) = images::find(self.stack, services, seen, offline).await?;
        if !missing.is_empty() {
            bail!(missing_failure(&missing));
        }
        Ok(images)
    }

    /// Which volumes are new, which hold a cluster, and whether each may be used: of this instance, of this major version.
    async fn sort_volumes(&self, starting: &[&Step<'_>], look: &Look, prepared: &mut Prepared) -> Result<()> {
        let Look { containers, volumes } = look;
        let instance = &self.instance.identity;
        let mut refused: Vec<anyhow::Error> = Vec::new();
        let mut to_look_into = Vec::new();
        for step in starting {
            let service = step.service;
            let Some(new) = NewVolume::of(service, &self.project, instance) else { continue };
            let present = volumes.iter().find(|present| present.name == new.name);
            if let Some(owner) =
                present.and_then(|present| present.label(INSTANCE_LABEL)).filter(|id| *id != instance.id)
            {
                let of = present.and_then(|present| present.label(CHECKOUT_LABEL)).unwrap_or(owner);
                refused.push(
                    Failure::new(
                        Exit::Refused,
                        format!("the volume `{}` holds the data of another instance", new.name),
                    )
                    .body(format!("  it belongs to {of}"))
                    .hint("set COMPOSE_PROJECT_NAME to another name, or remove that volume")
                    .into(),
                );
                continue;
            }
            let is_ours = present.is_some_and(|present| present.label(INSTANCE_LABEL).is_some());
            match (service.postgres(), present) {
                (Some(_), None) => drop(prepared.fresh.insert(service.short_name.clone(), new)),
                (None, None) => prepared.others.push(new),
                (None, Some(_)) if is_ours => {}
                // A container of the same configuration has run on it.
                (_, Some(_)) if matches!(step.action, Action::Start) && container_of(containers, service).is_some() => {
                }
                (_, Some(_)) => to_look_into.push((service, new, is_ours)),
            }
        }
        refused.extend(self.look_into(to_look_into, prepared).await?);
        failure::all_of(refused, Exit::Refused, |count| {
            format!("the data of {count} services cannot be used, nothing was started")
        })
    }

    /// Looks into volumes whose content nobody knows: of another major version is refused, before the server's FATAL. Compose
    /// makes the volumes of a whole file even where it starts one service: those are empty, and nobody's yet.
    async fn look_into(
        &self,
        volumes: Vec<(&Service, NewVolume, bool)>,
        prepared: &mut Prepared,
    ) -> Result<Vec<anyhow::Error>> {
        let mut refused = Vec::new();
        let Some((first, ..)) = volumes.first() else { return Ok(refused) };
        let image = self.stack.image_of(first);
        let names: Vec<String> = volumes.iter().map(|(_, volume, _)| volume.name.clone()).collect();
        let contents = volumes::look_into(&names, &image, &self.container("look")).await?;
        for (service, volume, is_ours) in volumes {
            let content = contents.get(&volume.name).copied().unwrap_or(Content::Other);
            match (service.postgres(), content) {
                (Some(postgres), Content::Cluster(major)) if major != postgres.major => {
                    refused.push(
                        limits::other_major(self.stack, service, major, &format!("volume {}", volume.name)).into(),
                    );
                }
                (_, Content::Cluster(_)) => {}
                (is_postgres, Content::Nothing) => {
                    if !is_ours {
                        // Made anew with the labels that say whose it is.
                        client::ask(&["volume", "rm", &volume.name]).await?;
                    }
                    match is_postgres {
                        Some(_) => drop(prepared.fresh.insert(service.short_name.clone(), volume)),
                        None => prepared.others.push(volume),
                    }
                }
                // A copy that an interrupted `up` began.
                (Some(_), Content::Other) if is_ours => {
                    prepared.fresh.insert(service.short_name.clone(), volume);
                }
                (_, Content::Other) => {}
            }
        }
        Ok(refused)
    }

    /// Services whose volume holds a cluster: short name, the major version that made it, and the manifest's. Volumes of
    /// running servers are not looked into: those run.
    pub async fn majors(&self, look: &Look) -> Result<Vec<(String, u32, u32)>> {
        let databases = self.stack.databases().filter_map(|(service, postgres)| {
            let name = format!("{}_{}", self.project, service.volume.as_ref()?);
            let runs = container_of(&look.containers, service).is_some_and(Container::is_running);
            let is_there = look.volumes.iter().any(|volume| volume.name == name);
            (is_there && !runs).then_some((service, postgres.major, name))
        });
        let databases: Vec<(&Service, u32, String)> = databases.collect();
        let Some((first, ..)) = databases.first() else { return Ok(Vec::new()) };
        let images = images::seen(self.stack, &[first]).await?;
        let Some(image) = images.keys().next() else { return Ok(Vec::new()) };
        let names: Vec<String> = databases.iter().map(|(.., name)| name.clone()).collect();
        let contents = volumes::look_into(&names, image, &self.container("look")).await?;
        let found = databases.into_iter().filter_map(|(service, wanted, name)| match contents.get(&name)? {
            Content::Cluster(major) => Some((service.short_name.clone(), *major, wanted)),
            _ => None,
        });
        Ok(found.collect())
    }

    /// A name for a helper's container: one at a time in a project.
    pub fn container(&self, what: &str) -> String {
        format!("{}-xtask-{what}", self.project)
    }
}

/// Images that are neither there nor to be had.
pub fn missing_failure(missing: &[MissingImage]) -> Failure {
    let rows =
        missing.iter().map(|one| format!("  {}, for {}\n    {}\n", one.reference, one.services.join(", "), one.why));
    Failure::new(Exit::Failed, format!("{} missing, nothing was started", units::plural(missing.len(), "image")))
        .body(rows.collect::<String>())
        .hint("`docker pull` them where there is a network, or name others in `.env` (`POSTGRES_IMAGE`, …); `--engine native` needs none")
}
