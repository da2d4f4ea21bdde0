//! The one way to Docker: its own client, asked for JSON. What the client says of an engine that does not answer becomes a
//! plain sentence here.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::tools::{self, Input, Ran};
use crate::ui::{Exit, Failure};

/// A client that asks an engine which says nothing would wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);
/// The oldest engine that takes a healthcheck's `start_interval`; an older one refuses the whole file.
const OLDEST_ENGINE: u32 = 25;
const OLDEST_COMPOSE: u32 = 2;

/// What answers.
#[derive(Debug, Clone)]
pub struct Versions {
    pub engine: String,
    pub compose: String,
}

/// Why there is no Docker here, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub why: String,
    pub hint: String,
}

impl Unusable {
    fn new(why: impl Into<String>, hint: impl Into<String>) -> Unusable {
        Unusable { why: why.into(), hint: hint.into() }
    }

    pub fn failure(self) -> Failure {
        Failure::new(Exit::Failed, self.why).hint(self.hint)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServerVersion {
    version: String,
}

/// Asks engine and Compose for their versions, both at once.
pub async fn versions() -> Result<Result<Versions, Unusable>> {
    if tools::on_path("docker").is_empty() {
        return Ok(Err(Unusable::new("there is no `docker` on PATH", "install Docker, or use `--engine native`")));
    }
    let engine = docker(&["version", "--format", "{{json .Server}}"], Input::Text(String::new()));
    let compose = docker(&["compose", "version", "--short"], Input::Text(String::new()));
    let (engine, compose) = tokio::join!(tokio::time::timeout(PATIENCE, engine), compose);
    let Ok(engine) = engine else {
        let why = format!("Docker's engine says nothing within {} s", PATIENCE.as_secs());
        return Ok(Err(Unusable::new(why, "restart Docker")));
    };
    let (engine, compose) = (engine?, compose?);
    if let Some(unusable) = unreachable(&engine) {
        return Ok(Err(unusable));
    }
    let engine = parse::<ServerVersion>(&engine.ok()?)?.version;
    let compose = match compose.status.success() {
        true => compose.stdout.trim().trim_start_matches('v').to_owned(),
        false => {
            let v1 = !tools::on_path("docker-compose").is_empty();
            let why = match v1 {
                true => "there is Compose v1 (`docker-compose`), which reads other files, and no Compose v2",
                false => "Docker has no Compose v2 (`docker compose version` fails)",
            };
            return Ok(Err(Unusable::new(why, "install Docker's Compose plugin")));
        }
    };
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major(&engine).is_none_or(|major| major < OLDEST_ENGINE) {
        let why = format!("Docker's engine is {engine}, and the generated file needs {OLDEST_ENGINE} or later");
        return Ok(Err(Unusable::new(why, "update Docker: older engines refuse a healthcheck's `start_interval`")));
    }
    if major(&compose).is_none_or(|major| major < OLDEST_COMPOSE) {
        let why = format!("`docker compose` is {compose}, and version {OLDEST_COMPOSE} is needed");
        return Ok(Err(Unusable::new(why, "update Docker's Compose plugin")));
    }
    Ok(Ok(Versions { engine, compose }))
}

/// What the client says when it does not reach the engine.
fn unreachable(ran: &Ran) -> Option<Unusable> {
    if ran.status.success() {
        return None;
    }
    let said = ran.stderr.to_lowercase();
    if said.contains("permission denied") && said.contains("docker") {
        return Some(Unusable::new(
            "you may not talk to Docker's engine",
            "`sudo usermod -aG docker \"$USER\"` and log in again, or use `--engine native`",
        ));
    }
    let signs = ["cannot connect to the docker daemon", "is the docker daemon running", "error during connect", "eof"];
    let signs = signs.iter().any(|sign| said.contains(sign));
    (signs || said.contains("connection refused")).then(|| {
        Unusable::new("no Docker engine answers", "start Docker (`sudo systemctl start docker`, or Docker Desktop)")
    })
}

/// Runs the client to its end, whatever the end.
pub async fn docker(arguments: &[&str], input: Input) -> Result<Ran> {
    docker_with(arguments, &[], input).await
}

/// As [`docker`], with variables of its own.
pub async fn docker_with(arguments: &[&str], environment: &[(&str, &str)], input: Input) -> Result<Ran> {
    let mut command = tools::program("docker");
    command.args(arguments).envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || tools::run(command, input)).await?
}

/// Runs the client; an engine that cannot be reached and any other failure are errors.
pub async fn ask(arguments: &[&str]) -> Result<String> {
    checked(docker(arguments, Input::Text(String::new())).await?)
}

/// As [`ask`]; `lock` stays held until the client ends, even if the helper ends before it.
pub async fn change(arguments: &[&str], lock: File) -> Result<String> {
    checked(docker(arguments, Input::Held(lock)).await?)
}

pub fn checked(ran: Ran) -> Result<String> {
    Ok(answered(ran)?.ok()?.stdout)
}

/// An error only if the engine could not be reached.
pub fn answered(ran: Ran) -> Result<Ran> {
    match unreachable(&ran) {
        None => Ok(ran),
        Some(unusable) => {
            bail!(unusable.failure().body("  the services are containers here; their data stay in Docker's volumes"))
        }
    }
}

pub fn parse<T: DeserializeOwned>(ran: &Ran) -> Result<T> {
    serde_json::from_str(&ran.stdout)
        .with_context(|| format!("`{}` answered what this helper does not know", ran.shown))
}

/// Asks about several things by name, and leaves out those that are not there (any more).
pub async fn inspect<T: DeserializeOwned>(kind: &str, names: &[String]) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let arguments: Vec<&str> = [kind, "inspect"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let ran = docker(&arguments, Input::Text(String::new())).await?;
    if !ran.status.success() && !ran.stderr.lines().all(|line| says_missing(line, kind)) {
        checked(ran)?;
        return Ok(Vec::new());
    }
    parse(&ran)
}

/// Whether a line says that a thing of that kind is not there. The engine has two ways to say it: `No such container: <name>`
/// (also of images and volumes), and `network <name> not found`.
fn says_missing(line: &str, kind: &str) -> bool {
    let line = line.to_lowercase();
    line.contains(&format!("no such {kind}")) || (line.contains(&format!("{kind} ")) && line.ends_with(" not found"))
}

/// One name or id a line.
pub async fn list(arguments: &[&str]) -> Result<Vec<String>> {
    let text = ask(arguments).await?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// `docker compose` for one project.
#[derive(Debug, Clone)]
pub struct Compose {
    pub project: String,
    pub file: PathBuf,
    /// Every variable of the stack, as this helper resolved it: Compose reads no `.env` of its own.
    pub variables: BTreeMap<String, String>,
}

impl Compose {
    /// Variables of the shell that would lead Compose elsewhere.
    const ELSEWHERE: [&str; 5] =
        ["COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_ENV_FILES", "COMPOSE_PATH_SEPARATOR", "COMPOSE_REMOVE_ORPHANS"];

    pub async fn run(&self, arguments: &[&str], input: Input) -> Result<Ran> {
        let mut command = tools::program("docker");
        command.args([
            "compose",
            "--project-name",
            &self.project,
            "--env-file",
            "/dev/null",
            "--profile",
            "*",
            "--file",
        ]);
        command.arg(&self.file).args(arguments).current_dir(self.file.parent().unwrap_or(Path::new("/")));
        for name in Compose::ELSEWHERE {
            command.env_remove(name);
        }
        command.envs(&self.variables).env("COMPOSE_PROJECT_NAME", &self.project);
        tokio::task::spawn_blocking(move || tools::run(command, input)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::says_missing;

    #[test]
    fn what_is_not_there_is_told_from_what_failed() {
        assert!(says_missing("Error response from daemon: No such container: web", "container"));
        assert!(says_missing("Error response from daemon: No such image: web:latest", "image"));
        assert!(says_missing("Error response from daemon: get web: no such volume", "volume"));
        assert!(says_missing("Error response from daemon: network web not found", "network"));
        assert!(!says_missing("dial tcp: lookup engine: no such host", "network"));
        assert!(!says_missing("Error response from daemon: plugin \"web\" not found", "volume"));
    }
}
