//! Where services run. `native`: plain processes. `docker`: Compose; its place is here, see [`choose`].

pub mod native;
pub mod plan;
pub mod postgres;
pub mod pubsub;
pub mod readiness;
pub mod redis;

use anyhow::{Result, bail};

use crate::instance::{EngineKind, Instance};
use crate::ui::{Exit, Failure};

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// Docker where it answers and has the images, else native
    Auto,
    /// Containers, through Compose
    Docker,
    /// Plain processes of this machine
    Native,
}

/// The engine for an instance: the one it was made with, else by wish. With the reason, for a person.
pub fn choose(wish: Wish, existing: Option<&Instance>) -> Result<(EngineKind, &'static str)> {
    match (wish, existing.map(|instance| instance.identity.engine)) {
        (Wish::Docker, _) => bail!(
            Failure::new(Exit::Usage, "the docker engine is not there yet")
                .body("  this version runs services as plain processes only: the native engine")
                .hint("`cargo xtask up --engine native`, or leave `--engine` out")
        ),
        (_, Some(engine)) => Ok((engine, "as before")),
        (Wish::Native, None) => Ok((EngineKind::Native, "as asked")),
        (Wish::Auto, None) => Ok((EngineKind::Native, "the docker engine is not there yet")),
    }
}
