//! From what was [prepared](super::prepare) to servers that run: data for new databases, then Compose, and beside it the
//! [question](super::answers) to every server.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join};

use super::answers::{Progress, Watched, login_subject, to_be_restarted};
use super::prepare::Prepared;
use super::volumes::{self, NewVolume};
use super::{Docker, client, containers};
use crate::engine::plan::{Action, Started, Step};
use crate::engine::postgres::Login;
use crate::files;
use crate::instance::known::Known;
use crate::instance::lock::Lock;
use crate::ports;
use crate::tools::Input;
use crate::ui::{self, failure, progress::Waiting};

/// How often the containers themselves are looked at while their servers are asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

/// How long an engine may be away while its servers are asked: as long as it takes to restart.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// How often, and how far apart, a start is tried again for a port that only the engine thinks taken.
const STALE_PORT_ATTEMPTS: u32 = 2;
const STALE_PORT_INTERVAL: Duration = Duration::from_secs(1);

/// What was made before the start.
#[derive(Debug)]
struct Filled {
    /// The short names of the services whose volumes are new.
    fresh: Vec<String>,
    /// Compose has made every container that is to start.
    has_containers: bool,
}

impl Docker<'_> {
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
}

/// The port that the engine will not give to a container, though nobody has it.
pub fn stale_port(said: &str) -> Option<u16> {
    allocated_port(said).filter(|port| !ports::is_taken(*port))
}

/// The port of `Bind for 127.0.0.1:5432 failed: port is already allocated`.
fn allocated_port(said: &str) -> Option<u16> {
    let (before, _) = said.split_once(" failed: port is already allocated")?;
    before.rsplit(':').next()?.parse().ok()
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
