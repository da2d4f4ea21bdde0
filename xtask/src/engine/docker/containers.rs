//! The containers of a Compose project, as the engine describes them. A state that this helper does not know is an error.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde::Deserialize;

use super::client;
use crate::engine::postgres::Login;
use crate::tools::{self, Input};

pub const PROJECT_LABEL: &str = "com.docker.compose.project";
const SERVICE_LABEL: &str = "com.docker.compose.service";
const ONE_OFF_LABEL: &str = "com.docker.compose.oneoff";
const HASH_LABEL: &str = "com.docker.compose.config-hash";
const FOLDER_LABEL: &str = "com.docker.compose.project.working_dir";

/// Exit codes of a server that ended because it was asked to: 0, and the shell's for SIGINT and SIGTERM.
const PROPER_ENDS: [i64; 3] = [0, 130, 143];

/// Exit codes of a server that was killed: the shell's for SIGKILL, and the engine's for one of which it knows nothing.
const KILLED: [i64; 2] = [137, 255];

/// <https://docs.docker.com/reference/cli/docker/container/ls/#status>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// One container of a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    /// The service's name in the Compose file.
    pub service: String,
    pub status: Status,
    pub exit_code: i64,
    pub out_of_memory: bool,
    /// Why the engine could not start it; empty if it could.
    pub error: String,
    pub started: Timestamp,
    pub pid: i32,
    pub environment: BTreeMap<String, String>,
    pub command: Vec<String>,
    /// What Compose thinks its configuration is.
    pub config_hash: String,
    /// Of the Compose file that made it.
    pub folder: String,
    /// Container port → host port.
    pub ports: BTreeMap<u16, u16>,
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused | Status::Restarting)
    }

    pub fn is_paused(&self) -> bool {
        self.status == Status::Paused
    }

    /// It ended, though nobody stopped it.
    pub fn has_died(&self) -> bool {
        match self.status {
            Status::Dead => true,
            Status::Exited => self.out_of_memory || !PROPER_ENDS.contains(&self.exit_code),
            Status::Created => !self.error.is_empty(),
            Status::Running | Status::Paused | Status::Restarting | Status::Removing => false,
        }
    }

    /// Its server did not end by itself: somebody stopped or killed it, or an engine did that started anew. Such an engine
    /// gives 255 where it does not know how a container ended.
    pub fn was_stopped(&self) -> bool {
        let is_from_outside = PROPER_ENDS.contains(&self.exit_code) || KILLED.contains(&self.exit_code);
        self.status == Status::Exited && !self.out_of_memory && self.error.is_empty() && is_from_outside
    }

    /// How it ended, in words.
    pub fn end(&self) -> String {
        match (self.out_of_memory, self.error.is_empty()) {
            (true, _) => "killed by its memory limit".into(),
            (false, false) => self.error.clone(),
            (false, true) => format!("exit code {}", self.exit_code),
        }
    }

    /// The login that its server was given.
    pub fn login(&self) -> Option<Login> {
        let value = |name: &str| self.environment.get(name).cloned();
        Some(Login {
            user: value("POSTGRES_USER")?,
            password: value("POSTGRES_PASSWORD")?,
            database: value("POSTGRES_DB")?,
        })
    }

    /// The value of `--name=value` among its arguments, or of `-c name=value`.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.command.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

/// All containers of a project, one-off ones left out.
pub async fn of_project(project: &str) -> Result<Vec<Container>> {
    let filter = format!("label={PROJECT_LABEL}={project}");
    let ids = client::list(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).await?;
    let inspected: Vec<Inspected> = client::inspect("container", &ids).await?;
    let all = inspected.into_iter().map(Container::from);
    Ok(all.filter(|container| !container.service.is_empty()).collect())
}

/// A container that publishes a port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    pub name: String,
    pub project: Option<String>,
    pub folder: Option<String>,
}

/// Who publishes a port, as the engine says; nobody if there is no engine to ask.
pub fn publisher(port: u16) -> Option<Publisher> {
    if tools::on_path("docker").is_empty() {
        return None;
    }
    let format = format!("{{{{.Names}}}}\t{{{{.Label \"{PROJECT_LABEL}\"}}}}\t{{{{.Label \"{FOLDER_LABEL}\"}}}}");
    let mut command = tools::program("docker");
    command.args(["ps", "--filter", &format!("publish={port}"), "--format", &format]);
    let out = tools::run(command, Input::Text(String::new())).ok()?.ok().ok()?.stdout;
    let fields: Vec<&str> = out.lines().next()?.split('\t').collect();
    let field = |index: usize| fields.get(index).map(|text| (*text).to_owned()).filter(|text| !text.is_empty());
    Some(Publisher { name: field(0)?, project: field(1), folder: field(2) })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    args: Vec<String>,
    state: State,
    config: Config,
    host_config: HostConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: Status,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    out_of_memory: bool,
    error: String,
    pid: i32,
    started_at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    /// `5432/tcp` → addresses.
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    host_port: String,
}

impl From<Inspected> for Container {
    fn from(inspected: Inspected) -> Container {
        let labels = inspected.config.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let is_one_off = label(ONE_OFF_LABEL).eq_ignore_ascii_case("true");
        let bindings = inspected.host_config.port_bindings.unwrap_or_default();
        let ports = bindings.into_iter().filter_map(|(port, bindings)| {
            let container = port.split('/').next()?.parse().ok()?;
            let host = bindings?.first()?.host_port.parse().ok()?;
            Some((container, host))
        });
        let environment = inspected.config.env.unwrap_or_default().into_iter();
        Container {
            id: inspected.id,
            name: inspected.name.trim_start_matches('/').to_owned(),
            service: if is_one_off { String::new() } else { label(SERVICE_LABEL) },
            status: inspected.state.status,
            exit_code: inspected.state.exit_code,
            out_of_memory: inspected.state.out_of_memory,
            error: inspected.state.error,
            started: inspected.state.started_at,
            pid: inspected.state.pid,
            environment: environment
                .filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
                .collect(),
            command: inspected.args,
            config_hash: label(HASH_LABEL),
            folder: label(FOLDER_LABEL),
            ports: ports.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_state_is_an_error() {
        let known: Status = serde_json::from_str("\"exited\"").unwrap();
        assert_eq!(known, Status::Exited);
        assert!(serde_json::from_str::<Status>("\"hibernating\"").is_err());
    }
}
