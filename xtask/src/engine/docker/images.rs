//! The images that services run: there, pulled, or missing.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::client;
use crate::render::compose::volume_target;
use crate::stack::{Service, Stack};
use crate::tools::{self, Input};
use crate::ui::progress::Waiting;

/// Lines of a failed pull that a reason shows.
const REASON_LINES: usize = 1;

/// An image that is there.
#[derive(Debug, Clone)]
pub struct Image {
    pub reference: String,
    pub id: String,
    environment: Vec<String>,
    entrypoint: Vec<String>,
}

impl Image {
    /// The version that it says it holds, as the official images do: `18.6`.
    pub fn version(&self) -> Option<&str> {
        let names = ["PG_VERSION=", "REDIS_VERSION="];
        let value = self.environment.iter().find_map(|line| names.iter().find_map(|name| line.strip_prefix(name)))?;
        // Debian's and Alpine's own numbering follows.
        value.split('-').next()
    }

    /// Whether it keeps PostgreSQL's data where the official image does, and is started by the same entrypoint: then it takes
    /// a cluster that is initialised already.
    pub fn is_official_postgres(&self, major: u32) -> bool {
        let value = |name: &str| self.environment.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let is_entrypoint = |word: &String| word.ends_with("docker-entrypoint.sh");
        self.entrypoint.first().is_some_and(is_entrypoint)
            && value("PG_MAJOR") == Some(major.to_string().as_str())
            && value("PGDATA").is_some_and(|data| data.starts_with(volume_target(major)))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    config: Config,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
}

/// An image that is not there, and why it could not be pulled.
#[derive(Debug, Clone)]
pub struct MissingImage {
    pub reference: String,
    pub services: Vec<String>,
    pub why: String,
}

/// The images of these services by reference; those that are missing are pulled unless `offline`.
pub async fn find(
    stack: &Stack,
    services: &[&Service],
    offline: bool,
) -> Result<(BTreeMap<String, Image>, Vec<MissingImage>)> {
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for service in services {
        wanted.entry(stack.image_of(service)).or_default().push(service.short_name.clone());
    }
    let looked = futures_util::future::join_all(wanted.keys().map(|reference| look(reference))).await;
    let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
    for ((reference, services), image) in wanted.into_iter().zip(looked) {
        match image? {
            Some(image) => drop(found.insert(reference, image)),
            None if offline => missing.push(MissingImage { reference, services, why: "offline".into() }),
            None => {
                let waiting = Waiting::new(format!("pulling {reference}"));
                let pulled = client::docker(&["pull", "--quiet", &reference], Input::Text(String::new())).await?;
                drop(waiting);
                match look(&reference).await? {
                    Some(image) => drop(found.insert(reference, image)),
                    None => {
                        let why = tools::last_lines(&pulled.stderr, REASON_LINES).trim().to_owned();
                        missing.push(MissingImage { reference, services, why });
                    }
                }
            }
        }
    }
    Ok((found, missing))
}

async fn look(reference: &str) -> Result<Option<Image>> {
    let inspected: Vec<Inspected> = client::inspect("image", &[reference.to_owned()]).await?;
    Ok(inspected.into_iter().next().map(|image| Image {
        reference: reference.to_owned(),
        id: image.id,
        environment: image.config.env.unwrap_or_default(),
        entrypoint: image.config.entrypoint.unwrap_or_default(),
    }))
}
