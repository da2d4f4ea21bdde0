//! `cargo xtask stop`: ends servers properly; data stay.

use anyhow::{Result, bail};

use crate::cli::StopArgs;
use crate::context::Context;
use crate::engine::native::observe::{self, Observed};
use crate::engine::native::stop;
use crate::instance::Instance;
use crate::ui::{self, Exit, Failure, progress::Waiting, units};

pub async fn run(cx: &Context, args: &StopArgs) -> Result<Exit> {
    let asked = cx.services(&args.services)?;
    let _lock = cx.lock().await?;
    let Some(instance) = cx.instance()? else {
        ui::tell(format!("{} is not running", cx.stack.name));
        return Ok(Exit::Done);
    };
    let names: Vec<String> = match asked.is_empty() {
        true => observe::service_folders(&instance)?,
        false => asked.iter().map(|service| service.short_name.clone()).collect(),
    };
    let stopped = stop_services(&instance, &names).await?;
    ui::tell(match stopped {
        0 => format!("{} is not running", cx.stack.name),
        _ => format!(
            "{} stopped; data stay. Next: `cargo xtask up{}`",
            units::plural(stopped, "service"),
            cx.stack_option()
        ),
    });
    Ok(Exit::Done)
}

/// Stops those that run, all at once; gives their number. Records of servers that died are cleared as well.
pub async fn stop_services(instance: &Instance, names: &[String]) -> Result<usize> {
    let mut running = Vec::new();
    for name in names {
        match observe::service(instance, name)? {
            Observed::Running(record) => running.push(record),
            Observed::Died(_) => stop::forget(instance, name)?,
            Observed::Absent | Observed::Stopped => {}
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
