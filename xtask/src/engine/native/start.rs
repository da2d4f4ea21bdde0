//! Starting servers: data made if need be, the server launched, and asked until it answers as it should.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::launch::launch;
use super::process;
use super::programs::Programs;
use super::record::Record;
use super::servers::{Blueprint, data_folder, log_file};
use super::{stop, template};
use crate::engine::plan::{Action, Started, Step};
use crate::engine::postgres::{self, Denied, Door, Login};
use crate::engine::readiness::{Probe, poll};
use crate::engine::server::{Home, Server};
use crate::engine::{limits, pubsub, redis};
use crate::files;
use crate::instance::Instance;
use crate::instance::lock::Lock;
use crate::ports::{Conflict, conflict_failure, holders};
use crate::stack::{Kind, Service, Stack};
use crate::tools;
use crate::ui::{Exit, Failure, failure};

/// Lines of a server's log that an error shows.
const LOG_LINES: usize = 8;
/// How long what is left of a killed server may take to end.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// Beside the data: whose they are. `cluster_name` says the same of the running server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataIdentity {
    pub instance: String,
    pub service: String,
    /// PostgreSQL: the role that initdb made.
    pub superuser: Option<String>,
    pub created: Timestamp,
}

/// What all starts of one `up` share.
#[derive(Debug)]
pub struct Starter<'a> {
    pub stack: &'a Stack,
    pub instance: &'a Instance,
    pub lock: &'a Lock,
    pub programs: &'a Programs,
    /// How long one server may take until it answers.
    pub cap: Duration,
}

/// The server as this engine starts it.
fn blueprint<'a>(step: &'a Step<'_>) -> Result<&'a Blueprint> {
    step.blueprint.as_ref().with_context(|| format!("`{}` has no native server", step.service.short_name))
}

fn record(running: &Server) -> Result<&Record> {
    match &running.home {
        Home::Process(record) => Ok(record),
        Home::Container(container) => bail!("`{}` runs in the container `{}`", running.service, container.name),
    }
}

impl Starter<'_> {
    /// Carries out one step of the plan. What restarts was stopped before: it may take another one's port.
    pub async fn carry_out(&self, step: &Step<'_>, template: Option<&Path>) -> Result<Started> {
        let begun = Instant::now();
        let mut started = match &step.action {
            Action::Keep { running } => self.verify(step.service, record(running)?).await,
            Action::Mend { running } => self.mend(step, record(running)?).await,
            Action::Create | Action::Start | Action::Restart { .. } => self.start(step, template).await,
        }?;
        started.took = begun.elapsed();
        Ok(started)
    }

    /// The running server answers, and is the one of the record.
    async fn verify(&self, service: &Service, running: &Record) -> Result<Started> {
        let ask = async || {
            poll(self.cap, async || {
                if !running.is_alive() {
                    bail!(self.died(service, 0, None));
                }
                self.ask(service, running).await
            })
            .await
        };
        let mut notes = Vec::new();
        let version = match (ask().await?, &running.sockets, &running.login) {
            (Ok(version), ..) => version,
            // Somebody dropped the role or the database: the owner's door is open all the same.
            (Err(_), Some(sockets), Some(login)) => {
                let changed = postgres::mend(sockets, running.port, &self.superuser(service)?, login).await?;
                notes.extend(changed.into_iter().map(str::to_owned));
                ask().await?.map_err(|denied| anyhow!("`{}` refuses its owner: {denied:?}", service.short_name))?
            }
            (Err(denied), ..) => bail!("`{}` refuses its owner: {denied:?}", service.short_name),
        };
        Ok(Started { version, took: Duration::ZERO, notes })
    }

    /// Asks a running server who it is, by the owner's door where there is one: no password, no work for its hash.
    async fn ask(&self, service: &Service, running: &Record) -> Result<Probe<Result<String, Denied>>> {
        match (&service.kind, &running.sockets, &running.login) {
            (Kind::Postgres(_), Some(folder), Some(login)) => {
                let door = Door::Socket { folder: folder.clone(), port: running.port };
                Ok(match postgres::probe(&door, &login.user, &login.database).await? {
                    Probe::Ready(Ok(facts)) => {
                        self.prove(service, &facts.cluster_name)?;
                        Probe::Ready(Ok(facts.version))
                    }
                    Probe::Ready(Err(denied)) => Probe::Ready(Err(denied)),
                    Probe::NotYet(status) => Probe::NotYet(status),
                })
            }
            (Kind::Redis(_), ..) => Ok(match redis::probe(running.port).await? {
                Probe::Ready(facts) if facts.process == running.pid => Probe::Ready(Ok(facts.version)),
                Probe::Ready(facts) => bail!(self.stranger(service, &format!("process {}", facts.process))),
                Probe::NotYet(status) => Probe::NotYet(status),
            }),
            _ => Ok(match pubsub::probe(running.port).await? {
                Probe::Ready(()) => Probe::Ready(Ok(String::new())),
                Probe::NotYet(status) => Probe::NotYet(status),
            }),
        }
    }

    fn prove(&self, service: &Service, answered: &str) -> Result<()> {
        if answered != self.instance.cluster_name(&service.short_name) {
            bail!(self.stranger(service, &format!("`{answered}`")));
        }
        Ok(())
    }

    /// Another server answers where ours should: its holder is named as in any port conflict.
    fn stranger(&self, service: &Service, answered: &str) -> anyhow::Error {
        let port = service.port();
        let conflict = Conflict::of(service, port, holders::Holders::look());
        conflict_failure(self.stack, &[conflict], 1).context(format!(
            "port {} is answered by {answered}, not by `{}` of this instance",
            port.number, service.short_name
        ))
    }

    /// Sets user, password and database in the running server, and notes them.
    async fn mend(&self, step: &Step<'_>, running: &Record) -> Result<Started> {
        let service = step.service;
        let (Some(sockets), Some(login)) = (&running.sockets, &blueprint(step)?.login) else {
            return self.verify(service, running).await;
        };
        let changed = postgres::mend(sockets, running.port, &self.superuser(service)?, login)
            .await
            .with_context(|| format!("cannot set user, password or database of `{}`", service.short_name))?;
        let record = Record { login: Some(login.clone()), ..running.clone() };
        record.write(&self.instance.service_folder(&service.short_name))?;
        let mut started = self.verify(service, &record).await?;
        started.notes = changed.into_iter().map(str::to_owned).collect();
        Ok(started)
    }

    async fn start(&self, step: &Step<'_>, template: Option<&Path>) -> Result<Started> {
        let service = step.service;
        let is_new = self.prepare(step, template).await?;
        let log = log_file(self.instance, &service.short_name);
        let log_start = log.metadata().map_or(0, |metadata| metadata.len());
        let description = blueprint(step)?.launch(self.instance, service, self.programs)?;
        let mut child = launch(&description, self.lock.share()?)?;
        let mut started = match &service.kind {
            Kind::Postgres(_) => self.await_postgres(step, &mut child, log_start, is_new).await?,
            Kind::Redis(_) => {
                let pid = i32::try_from(child.id())?;
                let facts = poll(self.cap, async || {
                    self.look(service, &mut child, log_start)?;
                    Ok(match redis::probe(service.port().number).await? {
                        Probe::Ready(facts) if facts.process != pid => {
                            bail!(self.stranger(service, &format!("process {}", facts.process)))
                        }
                        answer => answer,
                    })
                });
                Started { version: facts.await?.version, took: Duration::ZERO, notes: vec![] }
            }
            Kind::PubSub(wanted) => {
                poll(self.cap, async || {
                    self.look(service, &mut child, log_start)?;
                    pubsub::probe(service.port().number).await
                })
                .await?;
                if let Some(holder) = holders::Holders::look().pid_of(service.port().number)
                    && u32::try_from(holder).ok() != Some(child.id())
                {
                    bail!(self.stranger(service, &format!("process {holder}")));
                }
                pubsub::create_topics(service.port().number, wanted.clone()).await?;
                let topics = format!("{} topics", wanted.topics.len());
                Started { version: String::new(), took: Duration::ZERO, notes: vec![topics] }
            }
            Kind::Tool(_) => bail!("`{}` has no native server", service.short_name),
        };
        if is_new && service.postgres().is_some() {
            started.notes.insert(0, "new".into());
        }
        Ok(started)
    }

    /// PostgreSQL is ready when the stack's user, with the stack's password, by TCP, gets an answer from the right server.
    async fn await_postgres(
        &self,
        step: &Step<'_>,
        child: &mut Child,
        log_start: u64,
        is_new: bool,
    ) -> Result<Started> {
        let service = step.service;
        let (Some(login), Some(sockets)) = (&blueprint(step)?.login, &blueprint(step)?.sockets) else {
            bail!("`{}` has no login", service.short_name);
        };
        let port = service.port().number;
        let mut notes = Vec::new();
        if is_new {
            self.mend_starting(service, sockets, login, child, log_start).await?;
        }
        let tcp = Door::Tcp { port, password: login.password.clone() };
        let ask = async |child: &mut Child| {
            poll(self.cap, async || {
                self.look(service, child, log_start)?;
                postgres::probe(&tcp, &login.user, &login.database).await
            })
            .await
        };
        let facts = match ask(child).await? {
            Ok(facts) => facts,
            // Changed in `.env` since the data were made: the owner's socket needs no password, and sets it.
            Err(Denied::Login | Denied::Database) => {
                let changed = self.mend_starting(service, sockets, login, child, log_start).await?;
                notes.extend(changed.into_iter().map(str::to_owned));
                ask(child).await?.map_err(|denied| anyhow!("`{}` refuses the login: {denied:?}", service.short_name))?
            }
        };
        self.prove(service, &facts.cluster_name)?;
        Ok(Started { version: facts.version, took: Duration::ZERO, notes })
    }

    async fn mend_starting(
        &self,
        service: &Service,
        sockets: &Path,
        login: &Login,
        child: &mut Child,
        log_start: u64,
    ) -> Result<Vec<&'static str>> {
        let port = service.port().number;
        let superuser = self.superuser(service)?;
        let door = Door::Socket { folder: sockets.to_owned(), port };
        let facts = poll(self.cap, async || {
            self.look(service, child, log_start)?;
            postgres::probe(&door, &superuser, postgres::MAINTENANCE_DATABASE).await
        });
        let facts = facts.await?.map_err(|denied| anyhow!("the owner's socket is refused: {denied:?}"))?;
        self.prove(service, &facts.cluster_name)?;
        postgres::mend(sockets, port, &superuser, login)
            .await
            .with_context(|| format!("cannot set user, password or database of `{}`", service.short_name))
    }

    fn superuser(&self, service: &Service) -> Result<String> {
        let path = identity_file(self.instance, &service.short_name);
        let identity: Option<DataIdentity> = files::read_json(&path)?;
        identity
            .and_then(|identity| identity.superuser)
            .with_context(|| format!("`{}` names no superuser", path.display()))
    }

    /// An error once the server has ended.
    fn look(&self, service: &Service, child: &mut Child, log_start: u64) -> Result<()> {
        let Some(status) = child.try_wait()? else { return Ok(()) };
        stop::forget(self.instance, &service.short_name)?;
        let taken = Conflict::find(service, service.port());
        match taken {
            Some(conflict) => bail!(conflict_failure(self.stack, &[conflict], 1)),
            None => bail!(self.died(service, log_start, Some(status))),
        }
    }

    fn died(&self, service: &Service, log_start: u64, status: Option<ExitStatus>) -> anyhow::Error {
        let log = log_file(self.instance, &service.short_name);
        let text = read_from(&log, log_start).unwrap_or_default();
        let full = text.contains("No space left on device");
        let how = status.map_or_else(String::new, |status| format!(": {}", tools::describe(status)));
        let title = format!("`{}` ended while it started{how}", service.short_name);
        let lines = tools::indented(tools::last_lines(&text, LOG_LINES));
        let failure = Failure::new(Exit::Failed, title).body(format!("  {}, last lines:\n{lines}", log.display()));
        anyhow!(match full {
            true => failure.hint("the disk is full: free some space, then run `cargo xtask up` again; nothing is lost"),
            false => failure.hint(format!("`cargo xtask logs {}` shows more", service.short_name)),
        })
    }

    /// Folders, configuration and data. Tells whether the data are new.
    async fn prepare(&self, step: &Step<'_>, template: Option<&Path>) -> Result<bool> {
        let (instance, short_name) = (self.instance, &step.service.short_name);
        let user = instance.identity.server_user.as_ref();
        let folder = instance.service_folder(short_name);
        files::create_folder(&folder)?;
        files::set_mode(&folder, if user.is_some() { 0o711 } else { 0o700 })?;
        let blueprint = blueprint(step)?;
        if let Some(config) = &blueprint.config {
            config.write()?;
        }
        if let Some(sockets) = &blueprint.sockets {
            own_folder(sockets, instance)?;
        }
        let data = data_folder(instance, short_name);
        let is_new = !data.try_exists()?;
        let identity = DataIdentity {
            instance: instance.identity.id.clone(),
            service: short_name.clone(),
            superuser: step.service.postgres().map(|postgres| postgres.user.clone()),
            created: Timestamp::now(),
        };
        if is_new {
            // Before the data: data without an owner's name are nobody's.
            files::write_json(&identity_file(instance, short_name), &identity)?;
            match (&step.service.kind, template) {
                (Kind::Postgres(_), Some(template)) => {
                    let (template, target, user) = (template.to_owned(), data.clone(), user.cloned());
                    let copied = tokio::task::spawn_blocking(move || template::copy(&template, &target, user.as_ref()));
                    copied.await??;
                }
                (Kind::Postgres(_), None) => bail!("no template to make `{short_name}` from"),
                _ => own_folder(&data, instance)?,
            }
        }
        if step.service.postgres().is_some() {
            self.clear_leftovers(step, &data).await?;
        }
        Ok(is_new)
    }

    /// After a crash or a reboot: waits for what is left of the old server, and removes its lock files if their pid is
    /// by now some other program's, or a zombie's. PostgreSQL itself would refuse to start because of that pid.
    async fn clear_leftovers(&self, step: &Step<'_>, data: &Path) -> Result<()> {
        let service = step.service;
        let socket_lock = |sockets: &PathBuf| sockets.join(format!(".s.PGSQL.{}.lock", service.port().number));
        let locks = [Some(data.join("postmaster.pid")), blueprint(step)?.sockets.as_ref().map(socket_lock)];
        let locks: Vec<PathBuf> = locks.into_iter().flatten().filter(|lock| lock.exists()).collect();
        if locks.is_empty() {
            return Ok(());
        }
        let cluster_name = self.instance.cluster_name(&service.short_name);
        let folder = data.display().to_string();
        let own = i32::try_from(std::process::id())?;
        let users = || -> Vec<i32> {
            let mut pids = process::mentioning(&cluster_name);
            pids.extend(process::mentioning(&folder));
            pids.retain(|pid| *pid != own && process::birth_of(*pid).is_some());
            pids
        };
        let deadline = Instant::now() + LEFTOVERS;
        while let Some(pid) = users().first() {
            if Instant::now() >= deadline {
                bail!(
                    Failure::new(
                        Exit::Refused,
                        format!("process {pid} uses the data of `{}`, and no record is of it", service.short_name)
                    )
                    .body(format!("  {}", process::command_line(*pid).join(" ")))
                    .hint("end it where it was started, then run `cargo xtask up` again")
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for lock in locks {
            // Line by line: pid, data directory, …
            let text =
                std::fs::read(&lock).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let mut lines = text.lines();
            let pid = lines.next().and_then(|line| line.trim().parse().ok());
            if pid.is_some_and(process::exists) && lines.next() == Some(folder.as_str()) {
                files::remove_if_present(&lock)?;
            }
        }
        Ok(())
    }
}

/// Every service whose data a server must not be started on: of another major version, owner or instance. Found before
/// anything is stopped or started, and before the server's FATAL.
pub fn check_all_data(stack: &Stack, instance: &Instance, services: &[&Service]) -> Result<()> {
    let mut refused: Vec<anyhow::Error> = Vec::new();
    for service in services {
        refused.extend(check_data(stack, instance, service).err());
    }
    failure::all_of(refused, Exit::Refused, |count| {
        format!("the data of {count} services cannot be used, nothing was started")
    })
}

fn check_data(stack: &Stack, instance: &Instance, service: &Service) -> Result<()> {
    let short_name = &service.short_name;
    let data = &data_folder(instance, short_name);
    if !data.exists() {
        return Ok(());
    }
    let identity: Option<DataIdentity> = files::read_json(&identity_file(instance, short_name))?;
    if identity.is_none_or(|identity| identity.instance != instance.identity.id) {
        bail!(
            Failure::new(Exit::Refused, format!("`{}` holds the data of another instance", data.display()))
                .hint(format!("move the folder out of `.xtask`, then `cargo xtask up {short_name}` makes a new one"))
        );
    }
    let owner = data.metadata().with_context(|| format!("cannot look at `{}`", data.display()))?.uid();
    let user = instance.identity.server_user.as_ref();
    let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    if owner != uid {
        let name = user.map_or_else(|| format!("{uid}"), |user| user.name.clone());
        bail!(
            Failure::new(Exit::Failed, format!("the data of `{short_name}` belong to user {owner}, not to {name}"))
                .body(format!("  {}", data.display()))
                .hint(format!("`sudo chown -R {name} '{}'`", data.display()))
        );
    }
    if let Some(postgres) = service.postgres()
        && let Some(found) = data_major(data)
        && found != postgres.major
    {
        bail!(limits::other_major(stack, service, found, &data.display().to_string()));
    }
    Ok(())
}

/// The major version that made a data directory.
pub fn data_major(data: &Path) -> Option<u32> {
    files::read_text(&data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

pub fn identity_file(instance: &Instance, short_name: &str) -> PathBuf {
    instance.service_folder(short_name).join("identity.json")
}

/// A folder that only the servers' user may enter: it appears with its owner, or not at all. One that is there must be
/// ours: `/tmp` is everybody's.
fn own_folder(path: &Path, instance: &Instance) -> Result<()> {
    let user = instance.identity.server_user.as_ref();
    if let Ok(metadata) = path.symlink_metadata() {
        let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
        if !metadata.is_dir() || metadata.uid() != uid {
            bail!(
                Failure::new(Exit::Refused, format!("`{}` is not a folder of user {uid}", path.display()))
                    .hint("move it away, then run `cargo xtask up` again")
            );
        }
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let make = || -> Result<()> {
        let making = tempfile::Builder::new().prefix(".making-").tempdir_in(parent)?;
        files::set_mode(making.path(), 0o700)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(making.path(), Some(user.uid), Some(user.gid))?;
        }
        match std::fs::rename(making.path(), path) {
            // Another server of the instance has made the folder of the sockets meanwhile.
            Err(_) if path.is_dir() => Ok(()),
            renamed => Ok(renamed?),
        }
    };
    make().with_context(|| format!("cannot make the folder `{}`", path.display()))
}

fn read_from(path: &Path, start: u64) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(if start > length { 0 } else { start }))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
