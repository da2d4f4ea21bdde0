//! `cargo xtask stop`: ends servers properly; data stay.

use anyhow::{Result, bail};

use crate::cli::StopArgs;
use crate::context::Context;
use crate::engine::native::observe::{self, Observed};
use crate::engine::native::stop;
use crate::instance::{Instance, registry};
use crate::ui::{self, Exit, Failure, progress::Waiting, units};

pub async fn run(cx: &Context, args: &StopArgs) -> Result<Exit> {
    let asked = cx.services(&args.services)?;
    let _lock = cx.lock().await?;
    let Some(instance) = cx.instance()? else {
        refuse_if_forgotten(cx)?;
        ui::tell(format!("{} is not running", cx.stack.name));
        return Ok(Exit::Done);
    };
    let names: Vec<String> = match asked.is_empty() {
        true => observe::all_services(&instance)?,
        false => asked.iter().map(|service| service.short_name.clone()).collect(),
    };
    let stopped = stop_services(&instance, &names).await?;
    ui::tell(match stopped {
        0 if !asked.is_empty() => format!("{} of {} not running", args.services.join(", "), cx.stack.name),
        0 => format!("{} is not running", cx.stack.name),
        _ => format!(
            "{} stopped; data stay. Next: `cargo xtask up{}`",
            units::plural(stopped, "service"),
            cx.stack_option()
        ),
    });
    Ok(Exit::Done)
}

/// Servers of this checkout whose state somebody removed: only `doctor --fix` may end those.
pub fn refuse_if_forgotten(cx: &Context) -> Result<()> {
    let ours = |entry: &registry::Entry| {
        entry.identity.checkout == cx.repository.root && entry.identity.stack == cx.stack.name
    };
    let running: usize = registry::entries()
        .iter()
        .filter(|entry| ours(entry))
        .map(|entry| entry.records.iter().filter(|record| record.is_alive()).count())
        .sum();
    if running > 0 {
        bail!(
            Failure::new(
                Exit::Failed,
                format!("{} of {} run, and their state is gone", units::plural(running, "server"), cx.stack.name)
            )
            .hint("`cargo xtask doctor --fix` stops them")
        );
    }
    Ok(())
}

/// Stops those that run, all at once; gives their number. Records of servers that died are cleared as well. A server whose
/// folder somebody removed is found by the registry's copy of its record.
pub async fn stop_services(instance: &Instance, names: &[String]) -> Result<usize> {
    let mut running = Vec::new();
    for name in names {
        match observe::service(instance, name)? {
            Observed::Running(record) => running.push(record),
            Observed::Died(_) => stop::forget(instance, name)?,
            Observed::Absent | Observed::Stopped => {}
        }
    }
    for record in observe::without_folder(instance) {
        if names.contains(&record.service) && !running.contains(&record) {
            running.push(record);
        }
    }
    let _waiting = Waiting::new(format!("stopping {}", units::plural(running.len(), "service")));
    let stops = running.iter().map(|record| stop::stop(instance, record));
    let failed: Vec<anyhow::Error> =
        futures_util::future::join_all(stops).await.into_iter().filter_map(Result::err).collect();
    match failed.len() {
        0 => Ok(running.len()),
        1 => Err(failed.into_iter().next().unwrap_or_else(|| anyhow::anyhow!("failed"))),
        count => {
            let body: String = failed.iter().map(ui::failure::rendered).collect();
            bail!(Failure::new(Exit::Failed, format!("{count} services did not stop")).body(body))
        }
    }
}
