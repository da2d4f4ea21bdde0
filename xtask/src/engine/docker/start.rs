//! From a plan to servers that answer: everything that could stand in the way first, then data for new databases, then
//! Compose, and beside it the same question to every server until it is answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::{join_all, try_join};
use jiff::Timestamp;

use super::containers::{self, Container};
use super::images::{self, Image, MissingImage};
use super::volumes::{self, CHECKOUT_LABEL, Content, INSTANCE_LABEL, NewVolume, SUPERUSER_LABEL};
use super::{Docker, Look, client, container_of, networks};
use crate::engine::plan::{Action, Started, Step};
use crate::engine::postgres::{self, Denied, Door, Identity, Login};
use crate::engine::readiness::{Probe, poll};
use crate::engine::server::Server;
use crate::engine::{http, limits, pubsub, redis};
use crate::files;
use crate::instance::known::Known;
use crate::instance::lock::Lock;
use crate::ports::{self, Conflict};
use crate::stack::{Kind, Service};
use crate::tools::{self, Input};
use crate::ui::{self, Exit, Failure, failure, progress::Waiting, units};

/// Lines of a container's log that an error shows.
const LOG_LINES: &str = "8";
/// How often the containers themselves are looked at while their servers are asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

/// How long an engine may be away while its servers are asked: as long as it takes to restart.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a container may run before somebody listens at its port.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// How often, and how far apart, a start is tried again for a port that only the engine thinks taken.
const STALE_PORT_ATTEMPTS: u32 = 2;
const STALE_PORT_INTERVAL: Duration = Duration::from_secs(1);

/// What was found to start with.
#[derive(Debug, Default)]
pub struct Prepared {
    images: BTreeMap<String, Image>,
    /// Every container that is to start is there as it should be: no more is needed than a start.
    has_containers: bool,
    /// Volumes that hold no cluster yet, by the service's short name.
    fresh: BTreeMap<String, NewVolume>,
    /// New volumes of services that need no cluster.
    others: Vec<NewVolume>,
    /// Where the engine keeps its files, as it says.
    root: PathBuf,
}

/// What was made before the start.
#[derive(Debug)]
struct Filled {
    /// The short names of the services whose volumes are new.
    fresh: Vec<String>,
    /// Compose has made every container that is to start.
    has_containers: bool,
}

/// What the polls of one `up` share.
#[derive(Debug, Default)]
struct Progress {
    /// Set once Compose has ended; an error in words if it failed.
    compose: Option<Result<(), String>>,
    /// Looked at since then.
    containers: Option<Vec<Container>>,
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
        let are_known = services.iter().all(|service| images.contains_key(&self.stack.image_of(service)));
        let (found, network, volumes, root) = tokio::join!(
            async {
                let seen = match are_known {
                    true => images,
                    false => images::seen(self.stack, &services).await?,
                };
                images::find(self.stack, &services, seen, offline).await
            },
            networks::check(self.stack, &self.project),
            async {
                match seen.volumes {
                    Some(volumes) => Ok(volumes),
                    None => volumes::of_project(&self.project).await,
                }
            },
            client::ask(&["info", "--format", "{{.DockerRootDir}}"]),
        );
        let (images, missing) = found?;
        if !missing.is_empty() {
            bail!(missing_failure(&missing));
        }
        network?;
        let (look, root) = (Look { containers, volumes: volumes? }, PathBuf::from(root?.trim()));
        let mut prepared = Prepared { images, root, ..Prepared::default() };
        self.sort_volumes(&starting, &look, &mut prepared).await?;
        // Where the engine keeps its volumes on this machine, their disk must have room.
        limits::check_space(&prepared.root, prepared.fresh.len())?;
        Ok(prepared)
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

    /// Services whose volume was made by another major version than the manifest's: short name, found, wanted. Volumes of
    /// running servers are not looked into: those run.
    pub async fn foreign_majors(&self, look: &Look) -> Result<Vec<(String, u32, u32)>> {
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
            Content::Cluster(major) if *major != wanted => Some((service.short_name.clone(), *major, wanted)),
            _ => None,
        });
        Ok(found.collect())
    }

    /// Puts the data of a service that does not run aside, for good.
    pub async fn put_aside(&self, service: &Service, major: u32) -> Result<()> {
        let Some(volume) = NewVolume::of(service, &self.project, &self.instance.identity) else { return Ok(()) };
        let ids: Vec<String> = containers::of_project(&self.project)
            .await?
            .into_iter()
            .filter(|container| container.service == service.name)
            .map(|container| container.id)
            .collect();
        if !ids.is_empty() {
            // It would run the old server on the new data.
            client::ask(&["rm", "--force"].into_iter().chain(ids.iter().map(String::as_str)).collect::<Vec<_>>())
                .await?;
        }
        volumes::put_aside(&volume, major, &self.stack.image_of(service), &self.container("aside")).await
    }

    /// A name for a helper's container: one at a time in a project.
    fn container(&self, what: &str) -> String {
        format!("{}-xtask-{what}", self.project)
    }

    /// Data for new databases, then all services by one call of Compose; every server is asked meanwhile.
    pub async fn carry_out(
        &self,
        steps: &[Step<'_>],
        prepared: &Prepared,
        lock: &Lock,
        cap: Duration,
        waiting: &Waiting,
    ) -> Result<Vec<Result<Started>>> {
        let Filled { fresh, has_containers } = self.fill_volumes(steps, prepared, lock).await?;
        let progress = RefCell::new(Progress::default());
        let known = Known::read(self.instance);
        let compose = async {
            if !steps.iter().any(|step| step.action.starts()) {
                progress.borrow_mut().compose = Some(Ok(()));
                return Ok::<_, anyhow::Error>(());
            }
            let result = self.start_containers(steps, has_containers, lock).await?;
            // Where all went well, the servers themselves say so first.
            let containers = match result.is_err() {
                true => Some(containers::of_project(&self.project).await.unwrap_or_default()),
                false => None,
            };
            progress.replace(Progress { compose: Some(result), containers });
            Ok(())
        };
        let polls = steps.iter().map(async |step| {
            let begun = Instant::now();
            let is_new = fresh.contains(&step.service.short_name);
            let ask = async |watched: Watched<'_>| match &step.action {
                Action::Keep { running } => self.verify(watched, running, &known, cap).await,
                _ => self.await_answer(watched, step, is_new, cap).await,
            };
            let watched = Watched { service: step.service, progress: &progress, ended: None };
            let mut result = ask(watched).await;
            if let Some((container, why)) = to_be_restarted(&result) {
                ui::tell(format!("note: {why}; it is started again"));
                let ended = Some(container.started);
                result = match client::change(&["restart", &container.id], lock.share()?).await {
                    Ok(_) => ask(Watched { ended, ..watched }).await,
                    Err(error) => Err(error),
                };
            }
            waiting.done(&step.service.short_name);
            match result {
                Ok(started) => Ok(Started { took: begun.elapsed(), ..started }),
                Err(error) => Err(self.explained(step.service, error).await),
            }
        });
        let watch = async {
            let mut answered = Instant::now();
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                if progress.borrow().compose.is_none() {
                    answered = Instant::now();
                    continue;
                }
                match containers::of_project(&self.project).await {
                    Ok(containers) => {
                        progress.borrow_mut().containers = Some(containers);
                        answered = Instant::now();
                    }
                    // Without an engine nobody answers at the ports either.
                    Err(error) if answered.elapsed() > ENGINE_PATIENCE => return error,
                    Err(_) => {}
                }
            }
        };
        let polls = async { Ok(join_all(polls).await) };
        let results = tokio::select! {
            done = try_join(compose, polls) => done?.1,
            error = watch => return Err(error),
        };
        let mut proven = known.clone();
        for (step, result) in steps.iter().zip(&results) {
            if let (Action::Keep { running }, Ok(_)) = (&step.action, result) {
                proven.note(&login_subject(step.service), &running.identity());
            }
        }
        proven.write(self.instance)?;
        Ok(results)
    }

    /// Gives each new volume its cluster.
    async fn fill_volumes(&self, steps: &[Step<'_>], prepared: &Prepared, lock: &Lock) -> Result<Filled> {
        let fresh: Vec<String> = prepared.fresh.keys().cloned().collect();
        // All databases of a stack have one image and one login, so one template is for all.
        let Some((service, postgres)) = self.stack.databases().find(|(service, _)| fresh.contains(&service.short_name))
        else {
            return Ok(Filled { fresh, has_containers: prepared.has_containers });
        };
        let reference = self.stack.image_of(service);
        let image = prepared.images.get(&reference).context("its image was not looked for")?;
        let Some(template) = volumes::template(image, postgres.major, &Login::of(postgres)).await? else {
            return Ok(Filled { fresh, has_containers: false });
        };
        let targets: Vec<NewVolume> = prepared.fresh.values().cloned().collect();
        let container = self.container("copy");
        volumes::make(&template, &targets, &prepared.others, &reference, &container).await?;
        targets.iter().for_each(|volume| files::keep_apart(&volume.folder(&prepared.root)));
        // Compose makes the containers while their volumes are being filled.
        let (done, created) =
            tokio::join!(volumes::fill(&container, lock.share()?), self.create_containers(steps, lock));
        done.map(|()| Filled { fresh, has_containers: created.is_ok() })
    }

    /// What Compose has to say against it, it says again when it starts them.
    async fn create_containers(&self, steps: &[Step<'_>], lock: &Lock) -> Result<()> {
        let names = steps.iter().filter(|step| step.action.starts()).map(|step| step.service.name.as_str());
        let create = ["create", "--no-build", "--pull", "never"];
        let arguments: Vec<&str> = create.into_iter().chain(names).collect();
        let ran = self.compose().run(&arguments, Input::Held(lock.share()?)).await?;
        client::checked(ran).map(drop)
    }

    /// `has_containers`: all are there as they should be. What Compose has to say against it comes inside; an error is that
    /// nobody answers.
    async fn start_containers(
        &self,
        steps: &[Step<'_>],
        has_containers: bool,
        lock: &Lock,
    ) -> Result<Result<(), String>> {
        let starting: Vec<&Step<'_>> = steps.iter().filter(|step| step.action.starts()).collect();
        let paused: Vec<&str> = starting
            .iter()
            .filter_map(|step| step.action.lets_go()?.container())
            .filter(|container| container.is_paused())
            .map(|container| container.id.as_str())
            .collect();
        if !paused.is_empty() {
            client::change(&[&["unpause"][..], &paused].concat(), lock.share()?).await?;
        }
        let names = starting.iter().map(|step| step.service.name.as_str());
        let verb: &[&str] = match has_containers {
            true => &["start"],
            false => &["up", "--detach", "--no-build", "--pull", "never", "--quiet-pull"],
        };
        let names: Vec<&str> = names.collect();
        let arguments = [verb, &names].concat();
        let mut ran = self.compose().run(&arguments, Input::Held(lock.share()?)).await?;
        for _ in 0..STALE_PORT_ATTEMPTS {
            // An engine that was killed counts ports as given away that nobody has, until it has looked through what it left.
            if ran.status.success() || stale_port(&ran.stderr).is_none() {
                break;
            }
            tokio::time::sleep(STALE_PORT_INTERVAL).await;
            ran = self.compose().run(&arguments, Input::Held(lock.share()?)).await?;
        }
        Ok(client::answered(ran)?.ok().map(drop).map_err(|error| failure::rendered(&error)))
    }

    /// A server that runs already answers. One whose login and database were proven is asked no more than whether it takes
    /// logins: the password's hash is most of what a login costs.
    async fn verify(&self, watched: Watched<'_>, running: &Server, known: &Known, cap: Duration) -> Result<Started> {
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
    async fn await_answer(
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

    /// A container that ended, with its last lines; a port that was lost in between, with its holder.
    async fn explained(&self, service: &Service, error: anyhow::Error) -> anyhow::Error {
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
}

/// A service that is asked, and what else is seen of it meanwhile.
#[derive(Debug, Clone, Copy)]
struct Watched<'a> {
    service: &'a Service,
    progress: &'a RefCell<Progress>,
    /// The start of a run of its container that has ended, and after which it was started again.
    ended: Option<Timestamp>,
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
fn to_be_restarted(result: &Result<Started>) -> Option<(Container, String)> {
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

/// The port that the engine will not give to a container, though nobody has it.
fn stale_port(said: &str) -> Option<u16> {
    allocated_port(said).filter(|port| !ports::is_taken(*port))
}

/// The port of `Bind for 127.0.0.1:5432 failed: port is already allocated`.
fn allocated_port(said: &str) -> Option<u16> {
    let (before, _) = said.split_once(" failed: port is already allocated")?;
    before.rsplit(':').next()?.parse().ok()
}

fn silent(service: &Service) -> String {
    format!("`{}` does not answer", service.short_name)
}

fn login_subject(service: &Service) -> String {
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

/// Images that are neither there nor to be had.
pub fn missing_failure(missing: &[MissingImage]) -> Failure {
    let rows =
        missing.iter().map(|one| format!("  {}, for {}\n    {}\n", one.reference, one.services.join(", "), one.why));
    Failure::new(Exit::Failed, format!("{} missing, nothing was started", units::plural(missing.len(), "image")))
        .body(rows.collect::<String>())
        .hint("`docker pull` them where there is a network, or name others in `.env` (`POSTGRES_IMAGE`, …); `--engine native` needs none")
}

#[cfg(test)]
mod tests {
    use super::allocated_port;

    #[test]
    fn the_port_that_the_engine_thinks_taken_is_named() {
        let said =
            "driver failed on endpoint redis-1 (d64b): Bind for 127.0.0.1:11806 failed: port is already allocated";
        assert_eq!(allocated_port(said), Some(11806));
        assert_eq!(allocated_port("Bind for [::1]:80 failed: port is already allocated\n"), Some(80));
        assert_eq!(allocated_port("port is already allocated"), None);
        assert_eq!(allocated_port("bind: address already in use"), None);
    }
}
