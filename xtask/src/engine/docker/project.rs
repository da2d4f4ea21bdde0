//! Which Compose project an instance is. The first checkout of a stack has the stack's own name, so that plain
//! `docker compose` finds what `cargo xtask up` started; another checkout adds its instance's id.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, bail};

use super::client;
use super::containers::{self, PROJECT_LABEL};
use super::volumes::{self, CHECKOUT_LABEL, INSTANCE_LABEL};
use crate::files;
use crate::instance::Identity;
use crate::stack::{Repository, Stack};
use crate::toolbox::{cache_folder, lock_beside};
use crate::ui::{Exit, Failure};

/// Held by a first `up` until its volumes are there: two checkouts that start at once must not choose the same name.
pub async fn lock() -> Result<File> {
    let folder = cache_folder().join("docker");
    files::create_folder(&folder)?;
    lock_beside(&folder.join("projects")).await
}

/// Project and, where the engine still holds data of this checkout, the id of the instance that made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub name: String,
    pub id: Option<String>,
}

/// For a new instance with the id `id`.
pub async fn choose(repository: &Repository, stack: &Stack, id: &str) -> Result<Project> {
    let checkout = repository.root.display().to_string();
    let name = stack.project.clone().unwrap_or_else(|| stack.name.clone());
    let (own, owner) = tokio::join!(volumes::of_checkout(&checkout), owner(&name, repository));
    // `.xtask` was removed, and the data are still there.
    let own = own?;
    let own = own.iter().find_map(|volume| {
        let project = volume.label(PROJECT_LABEL)?;
        let is_of_stack = stack.services.iter().any(|service| service.volume.as_deref() == Some(volume.short_name()));
        let is_asked = stack.project.as_deref().is_none_or(|asked| asked == project);
        (is_of_stack && is_asked)
            .then(|| Project { name: project.to_owned(), id: volume.label(INSTANCE_LABEL).map(str::to_owned) })
    });
    if let Some(own) = own {
        return Ok(own);
    }
    match (owner?, &stack.project) {
        (None, _) => Ok(Project { name, id: None }),
        (Some(owner), Some(_)) => bail!(
            Failure::new(Exit::Refused, format!("the Compose project `{name}` belongs to {owner}"))
                .hint("set another COMPOSE_PROJECT_NAME, or none")
        ),
        (Some(_), None) => Ok(Project { name: format!("{}-{id}", stack.name), id: None }),
    }
}

/// Whose a project is, if it is not this checkout's.
async fn owner(project: &str, repository: &Repository) -> Result<Option<String>> {
    let filter = format!("label={PROJECT_LABEL}={project}");
    let network_words = ["network", "ls", "--quiet", "--filter", &filter];
    let (containers, volumes, networks) =
        tokio::join!(containers::of_project(project), volumes::of_project(project), client::list(&network_words),);
    let (containers, volumes, networks) = (containers?, volumes?, networks?);
    if let Some(container) = containers.first() {
        // Started by plain Compose from this very checkout: ours.
        let is_ours = Path::new(&container.folder).starts_with(&repository.root);
        return Ok((!is_ours).then(|| format!("`{}`", container.folder)));
    }
    Ok(match volumes.first() {
        Some(volume) => {
            let checkout = volume.label(CHECKOUT_LABEL).map(|checkout| format!("the checkout `{checkout}`"));
            Some(checkout.unwrap_or_else(|| "somebody else, who has volumes of that name".to_owned()))
        }
        None => (!networks.is_empty()).then(|| "somebody else, who has a network of that name".to_owned()),
    })
}

/// Removes the containers of an instance whose checkout is gone: those of its project that were made from its Compose file.
pub async fn remove_containers(identity: &Identity) -> Result<usize> {
    let Some(project) = &identity.project else { return Ok(0) };
    let containers = containers::of_project(project).await?;
    let ours = containers.iter().filter(|container| Path::new(&container.folder).starts_with(&identity.checkout));
    let ids: Vec<&str> = ours.map(|container| container.id.as_str()).collect();
    if !ids.is_empty() {
        client::ask(&[&["stop"][..], &ids].concat()).await?;
        client::ask(&[&["rm", "--volumes"][..], &ids].concat()).await?;
    }
    Ok(ids.len())
}
