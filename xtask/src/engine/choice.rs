//! Which engine an instance gets: the one it was made with, else the one asked for, else Docker where it can be.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::docker::client;
use super::docker::images::{self, Image};
use super::docker::prepare::missing_failure;
use crate::instance::{EngineKind, Instance};
use crate::stack::{Service, Stack};
use crate::ui::{Exit, Failure};

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// Docker where it answers and has the images or can pull them, else native
    Auto,
    /// Containers, through Compose
    Docker,
    /// Plain processes of this machine
    Native,
}

/// An engine, and why it is this one.
#[derive(Debug, Clone)]
pub struct Choice {
    pub engine: EngineKind,
    pub reason: String,
    /// What was seen of the images on the way, by reference.
    pub images: BTreeMap<String, Image>,
}

impl Choice {
    fn new(engine: EngineKind, reason: impl Into<String>) -> Choice {
        Choice { engine, reason: reason.into(), images: BTreeMap::new() }
    }
}

/// The engine for an instance. Nothing is pulled where nothing is to be changed (`offline`).
pub async fn choose(
    wish: Wish,
    existing: Option<&Instance>,
    stack: &Stack,
    services: &[&Service],
    offline: bool,
) -> Result<Choice> {
    if let Some(instance) = existing {
        let engine = instance.identity.engine;
        return match (wish, engine) {
            (Wish::Native, EngineKind::Docker) | (Wish::Docker, EngineKind::Native) => {
                bail!(other_engine(stack, engine))
            }
            (_, EngineKind::Native) => Ok(Choice::new(engine, "as before")),
            (_, EngineKind::Docker) => Ok(Choice::new(engine, "as before")),
        };
    }
    if wish == Wish::Native {
        return Ok(Choice::new(EngineKind::Native, "as asked"));
    }
    // Both at once: where the engine cannot be used, what it says of images is not listened to.
    let (versions, seen) = tokio::join!(client::versions(), images::seen(stack, services));
    let versions = match versions? {
        Ok(versions) => versions,
        Err(unusable) if wish == Wish::Docker => bail!(unusable.failure()),
        Err(unusable) => return Ok(Choice::new(EngineKind::Native, unusable.why)),
    };
    let (images, missing) = images::find(stack, services, seen?, offline).await?;
    match missing.first() {
        None => {
            let reason = format!("Docker {}, Compose {}", versions.engine, versions.compose);
            Ok(Choice { images, ..Choice::new(EngineKind::Docker, reason) })
        }
        Some(_) if wish == Wish::Docker => bail!(missing_failure(&missing)),
        Some(first) => {
            let name = first.reference.split('@').next().unwrap_or(&first.reference);
            let why = format!("Docker answers, and has no image `{name}`, which cannot be pulled: {}", first.why);
            Ok(Choice::new(EngineKind::Native, why))
        }
    }
}

fn other_engine(stack: &Stack, engine: EngineKind) -> Failure {
    let other = match engine {
        EngineKind::Docker => EngineKind::Native,
        EngineKind::Native => EngineKind::Docker,
    };
    Failure::new(Exit::Refused, format!("{} runs on the {engine} engine here, and keeps its data there", stack.name))
        .body(format!(
            "  The {other} engine would start with empty databases: data do not move by themselves.\n  \
             To change over: dump what you need, `cargo xtask down --volumes`, then `cargo xtask up --engine {other}`."
        ))
        .hint("leave `--engine` out to go on with the data that are there")
}
