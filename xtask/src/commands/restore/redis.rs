//! Redis, replaced by a restore. It has no second database to swap with: what it has is backed up first, and `--undo`
//! restores that.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use archive::part::Seal;
use jiff::Timestamp;

use super::service;
use crate::commands::backup::{Order, take_set};
use crate::context::Context;
use crate::data::backup::store::{Kept, Store, name_at};
use crate::data::restore::redis::{self, AsItWas, Side};
use crate::engine::server::Server;
use crate::instance::Instance;
use crate::ui::{Exit, Failure};

/// The label of what is backed up because a restore is about to replace it.
const BEFORE_RESTORE: &str = "before-restore";

/// Everything that can fail before the live server is touched has been done.
#[derive(Debug)]
pub struct Replacement {
    before: Before,
    side: Side,
    live: u16,
}

/// A backup of what it has. Dropped before that is replaced, it goes: there is nothing to undo.
#[derive(Debug)]
struct Before {
    kept: Kept,
    may_be_replaced: bool,
}

impl Drop for Before {
    fn drop(&mut self) {
        if !self.may_be_replaced {
            // What stays behind is a backup as good as any.
            drop(self.kept.remove());
        }
    }
}

impl Replacement {
    /// Keeps what the server has; then the backup's data are loaded beside it.
    pub async fn prepare(
        cx: &Context,
        instance: &Instance,
        kept: &Kept,
        seal: Option<Arc<dyn Seal + Send + Sync>>,
        server: &Server,
    ) -> Result<Replacement> {
        let services = [service(cx, &server.service)?];
        let store = Store::of(&cx.repository, &cx.stack.name);
        let (taken, _) = take_set(cx, instance, &store, &Order::full(&services, Some(BEFORE_RESTORE)))
            .await
            .with_context(|| format!("what `{}` has could not be kept, nothing was changed", server.service))?;
        let taken = taken.into_iter().next().context("nothing was backed up")?;
        let before = Before { kept: taken.kept, may_be_replaced: false };
        let side = redis::prepare(kept, seal, server, instance).await?;
        Ok(Replacement { before, side, live: server.port })
    }

    /// When what it has was kept: the time of everything that is replaced together with it.
    pub fn time(&self) -> Timestamp {
        self.before.kept.time().unwrap_or_else(Timestamp::now)
    }

    /// Lets the live server take the data over; how many keys it has then.
    pub async fn swap(self) -> Result<u64> {
        let Replacement { mut before, side, live } = self;
        let keys = side.keys;
        before.may_be_replaced = true;
        match side.swap(live).await {
            Ok(()) => Ok(keys),
            Err(error) if error.is::<AsItWas>() => {
                before.may_be_replaced = false;
                Err(error)
            }
            Err(error) => {
                let name = &before.kept.name;
                let title = format!("`{name}` was not restored, and may have lost what it had");
                let hint = format!("`cargo xtask restore {name} --undo` brings that back");
                Err(error.context(Failure::new(Exit::Failed, title).hint(hint)))
            }
        }
    }
}

/// What was kept of Redis before the latest restore that replaced it.
pub fn kept_before(cx: &Context, name: &str) -> Result<Option<Kept>> {
    let is_it = |kept: &Kept| kept.time().is_some_and(|time| name_at(time, Some(BEFORE_RESTORE)) == kept.backup);
    Ok(Store::of(&cx.repository, &cx.stack.name).list(name)?.into_iter().rfind(is_it))
}
