//! The native engine: servers are ordinary detached processes of this machine.
//!
//! Reading order: [`record`] (what is known of a running server), [`process`] (proof that a process is that server),
//! [`launch`] (how one starts without ever being unrecorded), [`programs`] (where the servers' programs come from),
//! [`template`] (one initdb for many databases), [`servers`] (each kind's command line), [`start`] and [`stop`]; [`aside`]
//! (what an upgrade has replaced).

pub mod aside;
pub mod launch;
pub mod observe;
pub mod process;
pub mod programs;
pub mod record;
pub mod servers;
pub mod start;
pub mod stop;
pub mod template;

use std::time::Duration;

use anyhow::Result;

use super::limits;
use super::plan::{Action, Started, Step, why_changed};
use super::server::{Home, Observed, Server};
use crate::files;
use crate::instance::Instance;
use crate::instance::lock::Lock;
use crate::stack::{Kind, Repository, Service, Stack};
use crate::toolbox::Toolbox;
use crate::ui::{Exit, Failure, failure, progress::Waiting, units};
use observe::Seen;
use programs::{Missing, Programs};
use record::Record;
use servers::Blueprint;
use start::Starter;

/// The engine for one instance.
#[derive(Debug)]
pub struct Native<'a> {
    pub repository: &'a Repository,
    pub stack: &'a Stack,
    pub instance: &'a Instance,
}

impl Native<'_> {
    pub fn observe(&self, service: &Service) -> Result<Observed> {
        Ok(match observe::service(self.instance, &service.short_name)? {
            Seen::Absent => Observed::Absent,
            Seen::Stopped => Observed::Stopped,
            Seen::Running(record) => Observed::Running(self.server(record)),
            Seen::Died(record) => Observed::Died { started: record.started },
        })
    }

    fn server(&self, record: Record) -> Server {
        Server {
            service: record.service.clone(),
            pid: record.pid,
            started: record.started,
            port: record.port,
            login: record.login.clone(),
            project: record.project.clone(),
            cluster_name: self.instance.cluster_name(&record.service),
            home: Home::Process(Box::new(record)),
        }
    }

    /// The bytes of a service's data on the disk.
    pub fn data_bytes(&self, short_name: &str) -> u64 {
        files::size_on_disk(&servers::data_folder(self.instance, short_name))
    }

    /// What is to be done for each service that has a native server.
    pub fn plan<'s>(&self, services: &[&'s Service]) -> Result<Vec<Step<'s>>> {
        let mut steps = Vec::new();
        for &service in services {
            let Some(blueprint) = servers::blueprint(self.repository, self.instance, service)? else { continue };
            let seen = observe::service(self.instance, &service.short_name)?;
            let action = self.action(service, &blueprint, seen);
            steps.push(Step { service, action, blueprint: Some(blueprint) });
        }
        Ok(steps)
    }

    fn action(&self, service: &Service, blueprint: &Blueprint, seen: Seen) -> Action {
        let sockets_are_there = observe::sockets_are_there(&seen);
        let record = match seen {
            Seen::Absent => return Action::Create,
            Seen::Stopped | Seen::Died(_) => return Action::Start,
            Seen::Running(record) => record,
        };
        // Data of another major version are refused where everything is looked at before something starts.
        let found = start::data_major(&servers::data_folder(self.instance, &service.short_name));
        let is_of_major = service.postgres().is_none_or(|postgres| found.is_none_or(|found| found == postgres.major));
        let is_as_wanted = record.fingerprint == blueprint.fingerprint && is_of_major;
        let login_is_as_wanted = record.login == blueprint.login;
        let running = Box::new(self.server(record));
        match (sockets_are_there, is_as_wanted, login_is_as_wanted) {
            (false, ..) => Action::Restart { why: "its socket folder is gone".into(), running },
            (true, false, _) => Action::Restart { why: why_changed(&running, service), running },
            (true, true, false) => Action::Mend { running },
            (true, true, true) => Action::Keep { running },
        }
    }

    /// Everything that could stand in the way, found before anything starts; gives the programs to start with.
    pub async fn prepare(&self, steps: &[Step<'_>], toolbox: &Toolbox) -> Result<Programs> {
        let starting: Vec<&Service> =
            steps.iter().filter(|step| step.action.starts()).map(|step| step.service).collect();
        self.check_space(steps)?;
        start::check_all_data(self.stack, self.instance, &starting)?;
        Ok(self.provide(&starting, toolbox).await?.map_err(|missing| {
            let services = missing.iter().flat_map(|one| &one.services);
            let options: String = services.map(|service| format!(" --without {service}")).collect();
            missing_failure(&missing).hint(format!("to go on without: `cargo xtask up{options}`"))
        })?)
    }

    /// What those services start with, fetched where that is possible, or all that cannot be found.
    pub async fn provide(&self, services: &[&Service], toolbox: &Toolbox) -> Result<Result<Programs, Vec<Missing>>> {
        let user = self.instance.identity.server_user.as_ref();
        let (programs, missing) = programs::find(services, user, toolbox).await?;
        Ok(if missing.is_empty() { Ok(programs) } else { Err(missing) })
    }

    fn check_space(&self, steps: &[Step<'_>]) -> Result<()> {
        let is_new = |step: &&Step<'_>| step.action == Action::Create && step.service.postgres().is_some();
        limits::check_space(self.instance.data_folder(), steps.iter().filter(is_new).count())
    }

    /// All steps at once, once what restarts has stopped; the template for new databases first, beside the others.
    pub async fn carry_out(
        &self,
        steps: &[Step<'_>],
        programs: &Programs,
        lock: &Lock,
        cap: Duration,
        waiting: &Waiting,
    ) -> Result<Vec<Result<Started>>> {
        let starter = Starter { stack: self.stack, instance: self.instance, lock, programs, cap };
        let stops = steps.iter().filter_map(|step| match step.action.lets_go().map(|server| &server.home) {
            Some(Home::Process(record)) => Some(stop::stop(self.instance, record)),
            _ => None,
        });
        for stopped in futures_util::future::join_all(stops).await {
            stopped?;
        }
        let template = tokio::sync::OnceCell::new();
        let all = steps.iter().map(|step| async {
            let result = async {
                let path = match (&step.action, step.service.postgres()) {
                    (Action::Create, Some(postgres)) => {
                        let make = async || {
                            let found = programs.postgres(postgres.major)?;
                            let user = self.instance.identity.server_user.as_ref();
                            template::provide(found, &postgres.user, user).await
                        };
                        Some(template.get_or_try_init(make).await?)
                    }
                    _ => None,
                };
                starter.carry_out(step, path.map(std::path::PathBuf::as_path)).await
            };
            let result = result.await;
            waiting.done(&step.service.short_name);
            result
        });
        Ok(futures_util::future::join_all(all).await)
    }

    /// Every service that has data, a record or a server.
    pub fn all_services(&self) -> Result<Vec<String>> {
        observe::all_services(self.instance)
    }

    /// Stops those that run, all at once; gives their number. Records of servers that died are cleared as well. A server
    /// whose folder somebody removed is found by the registry's copy of its record.
    pub async fn stop(&self, names: &[String]) -> Result<usize> {
        let mut running = Vec::new();
        for name in names {
            match observe::service(self.instance, name)? {
                Seen::Running(record) => running.push(record),
                Seen::Died(_) => stop::forget(self.instance, name)?,
                Seen::Absent | Seen::Stopped => {}
            }
        }
        for record in observe::without_folder(self.instance) {
            if names.contains(&record.service) && !running.contains(&record) {
                running.push(record);
            }
        }
        let _waiting = Waiting::new(format!("stopping {}", units::plural(running.len(), "service")));
        let stops = running.iter().map(|record| stop::stop(self.instance, record));
        let failed: Vec<anyhow::Error> =
            futures_util::future::join_all(stops).await.into_iter().filter_map(Result::err).collect();
        failure::all_of(failed, Exit::Failed, |count| format!("{count} services did not stop"))?;
        Ok(running.len())
    }
}

/// Whether this engine can run a service of that kind.
pub fn runs(kind: &Kind) -> bool {
    !matches!(kind, Kind::Tool(_))
}

/// Names each program that was not found, where it was looked for, and the ways to get it.
pub fn missing_failure(missing: &[Missing]) -> Failure {
    let mut body = String::new();
    for one in missing {
        body.push_str(&format!("  {}, for {}\n", one.what, one.services.join(", ")));
        for looked in &one.looked {
            body.push_str(&format!("    {looked}\n"));
        }
        body.push_str("    ways to get it:\n");
        for way in &one.ways {
            body.push_str(&format!("      {way}\n"));
        }
    }
    let services: usize = missing.iter().map(|one| one.services.len()).sum();
    let title = format!("{} cannot run here, nothing was started", units::plural(services, "service"));
    Failure::new(Exit::Failed, title).body(body)
}
