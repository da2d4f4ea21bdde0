//! The same question to every server until it is answered, with an eye on its container: one that ended, lost its port, or that
//! Compose could not start, is no reason to go on asking.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;

use super::containers::{self, Container};
use super::start::stale_port;
use super::volumes::{self, SUPERUSER_LABEL};
use super::{Docker, client, container_of};
use crate::engine::plan::{Started, Step};
use crate::engine::postgres::{self, Denied, Door, Identity, Login};
use crate::engine::readiness::{Probe, poll};
use crate::engine::server::Server;
use crate::engine::{http, pubsub, redis};
use crate::instance::known::Known;
use crate::ports::{self, Conflict};
use crate::stack::{Kind, Service};
use crate::tools::{self, Input};
use crate::ui::{Exit, Failure};

/// Lines of a container's log that an error shows.
const LOG_LINES: &str = "8";
/// How long a container may run before somebody listens at its port.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// What the polls of one `up` share.
#[derive(Debug, Default)]
pub struct Progress {
    /// Set once Compose has ended; an error in words if it failed.
    pub compose: Option<Result<(), String>>,
    /// Looked at since then.
    pub containers: Option<Vec<Container>>,
}

impl Docker<'_> {
    /// A server that runs already answers. One whose login and database were proven is asked no more than whether it takes
    /// logins: the password's hash is most of what a login costs.
    pub async fn verify(
        &self,
        watched: Watched<'_>,
        running: &Server,
        known: &Known,
        cap: Duration,
    ) -> Result<Started> {
        let service = watched.service;
        if matches!(service.kind, Kind::Postgres(_)) && known.holds(&login_subject(service), &running.identity()) {
            watched.poll(cap, async || postgres::ping(running.port).await).await.with_context(|| silent(service))?;
            return Ok(Started::default());
        }
        let ask = async || {
            let asked = watched.poll(cap, async || self.probe(service, running.port, running.login.as_ref()).await);
            asked.await.with_context(|| silent(service))
        };
        let (version, notes) = match ask().await? {
            Ok(version) => (version, Vec::new()),
            // An interrupted `up` came no further, or somebody dropped the role or the database.
            Err(denied) => {
                let container = running.container().context("it runs in no container")?;
                let notes = self.mend(watched, container, running.port, denied, cap).await?;
                (ask().await?.map_err(|denied| refused(service, denied))?, notes)
            }
        };
        Ok(Started { version, notes, ..Started::default() })
    }

    /// Asks a server that is about to start until it answers; an error once its container has ended, or Compose has failed.
    pub async fn await_answer(
        &self,
        watched: Watched<'_>,
        step: &Step<'_>,
        is_new: bool,
        cap: Duration,
    ) -> Result<Started> {
        let service = step.service;
        let port = service.port().number;
        let login = service.postgres().map(Login::of);
        let begun = Instant::now();
        let ask = async |question: Question| {
            let asked = watched.poll(cap, async || {
                let pending = watched.progress.borrow().compose.is_none();
                // What listens before Compose is through may be a server that is about to be replaced.
                if pending && (step.action.lets_go().is_some() || begun.elapsed() > cap / 2) {
                    return Ok(Probe::NotYet("Compose is still at work".into()));
                }
                match (question, &login) {
                    (Question::Settle, Some(login)) => self.settle(service, port, login).await,
                    _ => self.probe(service, port, login.as_ref()).await,
                }
            });
            asked.await.with_context(|| silent(service))
        };
        if is_new && login.is_some() {
            // The copy has no database of its own yet. A login that is refused is mended below.
            let _denied = ask(Question::Settle).await?;
        }
        let mut notes: Vec<String> = Vec::new();
        let version = match ask(Question::Answer).await? {
            Ok(version) => version,
            Err(denied) => {
                let containers = containers::of_project(&self.project).await?;
                let container = container_of(&containers, service).context("its container is gone")?;
                let changed = self.mend(watched, container, port, denied, cap).await?;
                if !is_new {
                    notes.extend(changed);
                }
                ask(Question::Answer).await?.map_err(|denied| refused(service, denied))?
            }
        };
        if let Kind::PubSub(wanted) = &service.kind {
            pubsub::create_topics(port, wanted.clone()).await?;
            notes.push(format!("{} topics", wanted.topics.len()));
        }
        if is_new {
            notes.insert(0, "new".into());
        }
        Ok(Started { version, notes, ..Started::default() })
    }

    /// One question to a server: by the address and the login that every client has.
    async fn probe(
        &self,
        service: &Service,
        port: u16,
        login: Option<&Login>,
    ) -> Result<Probe<Result<String, Denied>>> {
        Ok(match (&service.kind, login) {
            (Kind::Postgres(_), Some(login)) => {
                let door = Door::Tcp { port, password: login.password.clone() };
                self.proven(service, postgres::probe(&door, &login.user, &login.database).await?)?
            }
            (Kind::Redis(_), _) => match redis::probe(port).await? {
                Probe::Ready(facts) => Probe::Ready(Ok(facts.version)),
                Probe::NotYet(status) => Probe::NotYet(status),
            },
            (Kind::Tool(_), _) => ready(http::probe(port).await?),
            _ => ready(pubsub::probe(port).await?),
        })
    }

    /// As [`Docker::probe`], of a database server whose data were copied just now: its database is made as well.
    async fn settle(&self, service: &Service, port: u16, login: &Login) -> Result<Probe<Result<String, Denied>>> {
        let door = Door::Tcp { port, password: login.password.clone() };
        self.proven(service, postgres::settle(&door, login, &self.cluster_name(&service.short_name)).await?)
    }

    /// The version of the server that answered, if it is the right one.
    fn proven(
        &self,
        service: &Service,
        answer: Probe<Result<Identity, Denied>>,
    ) -> Result<Probe<Result<String, Denied>>> {
        Ok(match answer {
            Probe::Ready(Ok(identity)) if identity.cluster_name != self.cluster_name(&service.short_name) => {
                bail!(self.stranger(service, &identity.cluster_name))
            }
            Probe::Ready(answer) => Probe::Ready(answer.map(|identity| identity.version)),
            Probe::NotYet(status) => Probe::NotYet(status),
        })
    }

    fn stranger(&self, service: &Service, answered: &str) -> anyhow::Error {
        let port = service.port();
        let conflict = Conflict::of(service, port, ports::holders::Holders::look());
        ports::conflict_failure(self.stack, &[conflict], 1).context(format!(
            "port {} is answered by `{answered}`, not by `{}` of this instance",
            port.number, service.short_name
        ))
    }

    /// Makes login and database what they should be: the password by the owner's socket inside the container, which asks
    /// for none, the rest by the door that every client has.
    async fn mend(
        &self,
        watched: Watched<'_>,
        container: &Container,
        port: u16,
        denied: Denied,
        cap: Duration,
    ) -> Result<Vec<String>> {
        let service = watched.service;
        let postgres = service.postgres().context("it is no PostgreSQL")?;
        let wanted = Login::of(postgres);
        let mut changed = Vec::new();
        if denied == Denied::Login {
            let volumes = volumes::of_project(&self.project).await?;
            let volume = service.volume.as_ref().map(|volume| format!("{}_{volume}", self.project));
            let volume = volumes.iter().find(|present| Some(&present.name) == volume.as_ref());
            let superuser = volume.and_then(|volume| volume.label(SUPERUSER_LABEL)).unwrap_or(&wanted.user).to_owned();
            let psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--username", &superuser, "--dbname", "postgres"];
            let arguments = [&["exec", "--interactive", "--user", "postgres", &container.id][..], &psql].concat();
            let script = postgres::role_script(&wanted);
            client::checked(client::docker(&arguments, Input::Text(script)).await?)
                .with_context(|| format!("cannot set user and password of `{}`", service.short_name))?;
            changed.push("password set".to_owned());
        }
        let door = Door::Tcp { port, password: wanted.password.clone() };
        let made = watched
            .poll(cap, async || postgres::provide_database(&door, &wanted).await)
            .await
            .with_context(|| format!("cannot make the database of `{}`", service.short_name))?
            .map_err(|denied| refused(service, denied))?;
        changed.extend(made.map(str::to_owned));
        Ok(changed)
    }

    /// A container that ended, with its last lines; a port that was lost in between, with its holder.
    pub async fn explained(&self, service: &Service, error: anyhow::Error) -> anyhow::Error {
        if let Some(Ended(container)) = error.downcast_ref::<Ended>() {
            let text =
                match client::docker(&["logs", "--tail", LOG_LINES, &container.id], Input::Text(String::new())).await {
                    Ok(log) => format!("{}{}", log.stdout, log.stderr),
                    Err(error) => return error,
                };
            let title = format!("`{}` ended while it started: {}", service.short_name, container.end());
            let body = format!("  {}, last lines:\n{}", container.name, tools::indented(text.trim_end()));
            let hint = match text.contains("No space left on device") {
                true => {
                    "the disk is full: free some space, then run `cargo xtask up` again; nothing is lost".to_owned()
                }
                false => format!("`cargo xtask logs {}` shows more", service.short_name),
            };
            return Failure::new(Exit::Failed, title).body(body).hint(hint).into();
        }
        if let Some(Unpublished(container)) = error.downcast_ref::<Unpublished>() {
            let port = service.port().number;
            return Failure::new(
                Exit::Failed,
                format!("Docker does not forward port {port} to `{}`", service.short_name),
            )
            .body(format!("  {} runs, and was started anew for it.", container.name))
            .hint("restart Docker (`sudo systemctl restart docker`), then `cargo xtask up` again; nothing is lost")
            .into();
        }
        let Some(ComposeFailed(said)) = error.downcast_ref::<ComposeFailed>() else { return error };
        if let Some(port) = stale_port(said) {
            let title = format!("Docker counts port {port} as given away, and nobody listens on it");
            return Failure::new(Exit::Failed, title)
                .body("  An engine that was killed may do so until it is stopped and started once more.")
                .hint("restart Docker (`sudo systemctl restart docker`), then `cargo xtask up` again; nothing is lost")
                .into();
        }
        let lowered = said.to_lowercase();
        let is_about_ports = ["port is already allocated", "address already in use", "bind for"];
        if is_about_ports.iter().any(|sign| lowered.contains(sign))
            && let Some(conflict) = Conflict::find(service, service.port())
        {
            return ports::conflict_failure(self.stack, &[conflict], 1);
        }
        Failure::new(Exit::Failed, format!("Compose did not start `{}`", service.short_name))
            .body(tools::indented(said))
            .into()
    }
}

/// A service that is asked, and what else is seen of it meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    pub service: &'a Service,
    pub progress: &'a RefCell<Progress>,
    /// The start of a run of its container that has ended, and after which it was started again.
    pub ended: Option<Timestamp>,
}

impl Watched<'_> {
    /// As [`poll`]; an error as well once the container of the service has ended or lost its port, or Compose has failed for
    /// it.
    async fn poll<T>(&self, cap: Duration, mut probe: impl AsyncFnMut() -> Result<Probe<T>>) -> Result<T> {
        let mut unpublished = None;
        poll(cap, async || {
            let container = self.look()?;
            let answer = probe().await?;
            let (Probe::NotYet(_), Some(container)) = (&answer, container) else { return Ok(answer) };
            if ports::is_taken(self.service.port().number) {
                unpublished = None;
            } else if unpublished.get_or_insert_with(Instant::now).elapsed() > PORT_PATIENCE {
                bail!(Unpublished(container));
            }
            Ok(answer)
        })
        .await
    }

    /// The container of the service, once Compose is through with it.
    fn look(&self) -> Result<Option<Container>> {
        let progress = self.progress.borrow();
        let (Some(compose), Some(containers)) = (&progress.compose, &progress.containers) else { return Ok(None) };
        match (container_of(containers, self.service), compose) {
            (Some(container), _) if self.ended == Some(container.started) => Ok(None),
            (Some(container), _) if container.is_running() => Ok(Some(container.clone())),
            (Some(container), Ok(())) => bail!(Ended(container.clone())),
            (None, Ok(())) => bail!("its container was removed while it started"),
            (_, Err(said)) => bail!(ComposeFailed(said.clone())),
        }
    }
}

/// What a database server is asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// Who it is, and to make its database: its data are a copy that has none yet.
    Settle,
    /// Whether it answers as every client would ask.
    Answer,
}

/// The container of a service has ended.
#[derive(Debug)]
struct Ended(Container);

/// The container of a service runs, and nobody listens at the port that it publishes: an engine that was killed and started
/// anew has lost it.
#[derive(Debug)]
struct Unpublished(Container);

/// Compose said why it failed.
#[derive(Debug)]
struct ComposeFailed(String);

/// The container that did nothing wrong, and whose service does not answer nevertheless.
pub fn to_be_restarted(result: &Result<Started>) -> Option<(Container, String)> {
    let error = result.as_ref().err()?;
    let unpublished = || error.downcast_ref::<Unpublished>().map(|one| (one.0.clone(), one.to_string()));
    match error.downcast_ref::<Ended>() {
        Some(Ended(container)) if container.was_stopped() => {
            Some((container.clone(), format!("{} was ended: {}", container.name, container.end())))
        }
        _ => unpublished(),
    }
}

impl std::fmt::Display for Unpublished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} runs, and nobody listens at its port", self.0.name)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "its container ended: {}", self.0.end())
    }
}

impl std::fmt::Display for ComposeFailed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}
impl std::error::Error for Unpublished {}
impl std::error::Error for ComposeFailed {}

fn silent(service: &Service) -> String {
    format!("`{}` does not answer", service.short_name)
}

pub fn login_subject(service: &Service) -> String {
    format!("login of {}", service.short_name)
}

fn ready(probe: Probe<()>) -> Probe<Result<String, Denied>> {
    match probe {
        Probe::Ready(()) => Probe::Ready(Ok(String::new())),
        Probe::NotYet(status) => Probe::NotYet(status),
    }
}

fn refused(service: &Service, denied: Denied) -> anyhow::Error {
    anyhow!("`{}` refuses the login: {denied:?}", service.short_name)
}
