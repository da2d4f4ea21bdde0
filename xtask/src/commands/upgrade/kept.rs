//! What upgrades have replaced: shown, and with `--drop-old` let go.

use anyhow::{Result, bail};

use super::old;
use super::state::State;
use crate::cli::UpgradeArgs;
use crate::context::Context;
use crate::engine::Engine;
use crate::engine::aside::Aside;
use crate::instance::Instance;
use crate::ui::{self, Exit, Failure, table, units};

pub async fn drop_old(cx: &Context, args: &UpgradeArgs, instance: &Instance, engine: &Engine<'_>) -> Result<Exit> {
    if State::read(instance)?.is_some() {
        bail!(
            Failure::new(Exit::Refused, "an upgrade was interrupted: what it replaces is still needed")
                .hint(format!("`cargo xtask upgrade{}` goes on", cx.stack_option()))
        );
    }
    let aside = engine.aside().await?;
    if aside.is_empty() {
        ui::tell("no upgrade has left old data");
        return Ok(Exit::Done);
    }
    ui::tell(format!("This drops what upgrades have replaced:\n\n{}", listed(&aside)));
    if !args.yes {
        let command = format!("cargo xtask upgrade --drop-old --yes{}", cx.stack_option());
        cx.agree(&command, "nothing was done").await?;
    }
    for one in &aside {
        engine.drop_aside(one).await?;
    }
    ui::tell(format!("the old data of {} dropped", units::plural(aside.len(), "database")));
    Ok(Exit::Done)
}

/// A line for each.
pub fn listed(aside: &[Aside]) -> String {
    let rows = aside.iter().map(|one| {
        vec![
            one.service.clone(),
            one.note.as_ref().map_or_else(String::new, |note| format!("PostgreSQL {}", note.major)),
            one.bytes.map_or_else(String::new, units::megabytes),
            one.place.clone(),
            match one.note.as_ref().map_or(&[][..], |note| &note.behind) {
                [] => String::new(),
                behind => format!("with {}", old::listed(behind)),
            },
        ]
    });
    table::columns(rows.collect(), &[2])
}
