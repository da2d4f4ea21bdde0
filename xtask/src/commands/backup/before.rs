//! What a verb that destroys data says of backups before it asks, and the backup that it takes first of what has none.

use anyhow::{Context as _, Result};

use super::{Order, take_set};
use crate::context::Context;
use crate::data::backup::store::Store;
use crate::instance::Instance;
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, Failure, units};

/// How it stands with the backups of what is about to be destroyed.
#[derive(Debug)]
pub struct Before<'a> {
    /// Those without a backup whose server can be asked for one.
    lacking: Vec<&'a Service>,
    /// Those without a backup whose server does not run.
    silent: Vec<&'a Service>,
    choice: Choice,
}

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    TakeFirst,
    /// `--no-backup`.
    Without,
}

impl From<bool> for Choice {
    /// Of the flag `--no-backup`.
    fn from(no_backup: bool) -> Choice {
        if no_backup { Choice::Without } else { Choice::TakeFirst }
    }
}

impl Choice {
    /// As it is typed, behind a blank.
    pub fn option(self) -> &'static str {
        match self {
            Choice::TakeFirst => "",
            Choice::Without => " --no-backup",
        }
    }
}

/// `last backup 2 h 10 min ago, verified`, or `never backed up`. One that does not say what it is counts for nothing.
pub fn last(cx: &Context, name: &str) -> Result<String> {
    let mut all = Store::of(&cx.repository, &cx.stack.name).list(name)?.into_iter().rev();
    let found = all.find_map(|kept| Some((kept.manifest().ok()?.taken, kept.verified().is_some())));
    Ok(match found {
        Some((taken, is_verified)) => {
            let verified = if is_verified { ", verified" } else { ", not verified" };
            format!("last backup {} ago{verified}", units::span(units::since(taken)))
        }
        None => "never backed up".to_owned(),
    })
}

impl<'a> Before<'a> {
    /// Of the services with these names that hold what no configuration brings back.
    pub fn look(
        cx: &'a Context,
        names: &[String],
        is_running: impl Fn(&str) -> bool,
        choice: Choice,
    ) -> Result<Before<'a>> {
        let store = Store::of(&cx.repository, &cx.stack.name);
        let holds_data = |service: &&Service| matches!(service.kind, Kind::Postgres(_) | Kind::Redis(_));
        let asked = cx.stack.services.iter().filter(holds_data).filter(|service| names.contains(&service.short_name));
        let mut without = Vec::new();
        for service in asked {
            if !store.list(&service.short_name)?.iter().any(|kept| kept.manifest().is_ok()) {
                without.push(service);
            }
        }
        let (lacking, silent) = without.into_iter().partition(|service: &&Service| is_running(&service.short_name));
        Ok(Before { lacking, silent, choice })
    }

    /// What comes first, for a person who is about to be asked.
    pub fn tell(&self) {
        if self.choice == Choice::Without {
            return;
        }
        if !self.lacking.is_empty() {
            ui::tell(format!("A backup of {} is taken first (`--no-backup` skips it).", names(&self.lacking)));
        }
        if !self.silent.is_empty() {
            ui::tell(format!("No backup of {} can be taken: not running.", names(&self.silent)));
        }
    }

    /// As [`tell`](Self::tell), for a dry run.
    pub fn plan(&self) -> Result<()> {
        match self.choice {
            Choice::TakeFirst => self
                .lacking
                .iter()
                .try_for_each(|service| ui::data(&format!("  {}: back it up first\n", service.short_name))),
            Choice::Without => Ok(()),
        }
    }

    /// Takes it. Where that fails, nothing may be destroyed. The caller holds the instance's lock.
    pub async fn take(&self, cx: &Context, instance: &Instance, label: &str) -> Result<()> {
        if self.choice == Choice::Without || self.lacking.is_empty() {
            return Ok(());
        }
        let store = Store::of(&cx.repository, &cx.stack.name);
        let taken = take_set(cx, instance, &store, &Order::full(&self.lacking, Some(label))).await;
        let (taken, _) = taken.with_context(|| {
            Failure::new(
                Exit::Failed,
                format!("no backup of {} could be taken, nothing was destroyed", names(&self.lacking)),
            )
            .hint("mend that, or go on without one: `--no-backup`")
        })?;
        let backup = taken.first().map_or("", |taken| &taken.kept.backup);
        ui::tell(format!(
            "backed up {} → {}",
            names(&self.lacking),
            store.place.join("*").join(backup).shown(&cx.folder)
        ));
        Ok(())
    }
}

fn names(services: &[&Service]) -> String {
    services.iter().map(|service| service.short_name.as_str()).collect::<Vec<_>>().join(", ")
}
