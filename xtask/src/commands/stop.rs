//! `cargo xtask stop`: ends servers properly; data stay.

use anyhow::{Result, bail};

use crate::cli::StopArgs;
use crate::context::Context;
use crate::engine::Engine;
use crate::instance::registry;
use crate::ui::{self, Exit, Failure, units};

pub async fn run(cx: &Context, args: &StopArgs) -> Result<Exit> {
    let asked = cx.services(&args.services)?;
    let lock = cx.lock().await?;
    let Some(instance) = cx.instance()? else {
        refuse_if_forgotten(cx)?;
        ui::tell(format!("{} is not running", cx.stack.name));
        return Ok(Exit::Done);
    };
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    let names: Vec<String> = match asked.is_empty() {
        true => engine.all_services().await?,
        false => asked.iter().map(|service| service.short_name.clone()).collect(),
    };
    let stopped = engine.stop(&names, &lock).await?;
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
