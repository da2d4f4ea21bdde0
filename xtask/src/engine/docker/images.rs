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
    fn named((reference, inspected): (String, Inspected)) -> (String, Image) {
        let image = Image {
            reference: reference.clone(),
            id: inspected.id,
            environment: inspected.config.env.unwrap_or_default(),
            entrypoint: inspected.config.entrypoint.unwrap_or_default(),
        };
        (reference, image)
    }

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

/// The images of these services that are there, by reference.
pub async fn seen(stack: &Stack, services: &[&Service]) -> Result<BTreeMap<String, Image>> {
    let mut references: Vec<String> = services.iter().map(|service| stack.image_of(service)).collect();
    references.sort();
    references.dedup();
    let images: Vec<Inspected> = client::inspect("image", &references).await?;
    if images.len() == references.len() {
        return Ok(references.into_iter().zip(images).map(Image::named).collect());
    }
    // The engine does not say which it did not find.
    let looked = futures_util::future::join_all(references.iter().map(|reference| look(reference))).await;
    let images = looked.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(references.into_iter().zip(images).filter_map(|(reference, image)| Some((reference, image?))).collect())
}

/// The images of these services by reference; those that are not among the ones `seen` are pulled unless `offline`.
pub async fn find(
    stack: &Stack,
    services: &[&Service],
    seen: BTreeMap<String, Image>,
    offline: bool,
) -> Result<(BTreeMap<String, Image>, Vec<MissingImage>)> {
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for service in services {
        wanted.entry(stack.image_of(service)).or_default().push(service.short_name.clone());
    }
    let (mut found, mut missing) = (seen, Vec::new());
    for (reference, services) in wanted {
        match found.contains_key(&reference) {
            true => {}
            false if offline => missing.push(MissingImage { reference, services, why: "offline".into() }),
            false => {
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
    Ok(inspected.into_iter().next().map(|image| Image::named((reference.to_owned(), image)).1))
}
