//! `cargo xtask backup verify`: proves backups, by reading them or by a restore for a try.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::list::names;
use super::{opened_by, sources};
use crate::cli::BackupVerifyArgs;
use crate::commands::restore::{open, places, tell_locales};
use crate::context::{Context, unknown};
use crate::data::backup::manifest::Manifest;
use crate::data::backup::seal::Age;
use crate::data::backup::store::{Kept, LATEST, Store, Verified};
use crate::data::backup::take::Taken;
use crate::data::backup::verify;
use crate::data::locale::OtherLocale;
use crate::data::restore::database::{self, Place};
use crate::engine::Engine;
use crate::instance::lock::Lock;
use crate::ui::progress::Waiting;
use crate::ui::{self, Exit, Failure, failure, table, units};

pub async fn run(cx: &Context, args: &BackupVerifyArgs) -> Result<Exit> {
    let (store, seal) = sources(cx, &args.place)?;
    let (mut rows, mut results) = (Vec::new(), Vec::<Value>::new());
    let Chosen { all, mut errors, without } = choose(&store, &names(cx, &store, &args.names)?, args)?;
    let mut locales: Vec<(&str, Option<OtherLocale>)> = Vec::new();
    let seal = seal.map(Arc::new);
    let tried = match args.restore {
        true => Some(Tried::new(cx).await?),
        false => None,
    };
    for kept in &all {
        let waiting = Waiting::new(format!("reading {}", kept.shown()));
        let read = read(kept, seal.as_deref());
        drop(waiting);
        let proven = match (read, &tried) {
            (Ok(manifest), Some(tried)) if manifest.database().is_some() => {
                let restored = tried.restore(kept, &manifest, seal.as_ref()).await;
                restored.map(|other_locale| (manifest, true, other_locale))
            }
            (read, _) => read.map(|manifest| (manifest, false, None)),
        };
        match proven {
            Ok((manifest, was_restored, other_locale)) => {
                let verified = Verified { at: Timestamp::now(), was_restored };
                kept.note_verified(&verified)?;
                results.push(json!({
                    "name": kept.name, "backup": kept.backup, "verified": verified, "other_locale": other_locale,
                }));
                locales.push((&kept.name, other_locale));
                let bytes = units::megabytes(manifest.bytes());
                let how = if was_restored { "restored, and the same" } else { "as it was written" };
                rows.push(vec![kept.name.clone(), kept.backup.clone(), bytes, ui::paint(ui::GOOD, how)]);
            }
            Err(error) => {
                // Another key says nothing about the backup.
                let is_broken = failure::exit_of(&error) != Exit::Usage;
                if is_broken {
                    kept.forget_verified()?;
                }
                results.push(json!({ "name": kept.name, "backup": kept.backup, "error": failure::in_a_line(&error) }));
                let how = if is_broken { "broken" } else { "not opened" };
                rows.push(vec![kept.name.clone(), kept.backup.clone(), String::new(), ui::paint(ui::BAD, how)]);
                errors.push(error);
            }
        }
    }
    if args.json {
        ui::json(&json!({ "stack": cx.stack.name, "backups": results, "without": without }))?;
    }
    let backup = if args.backup == LATEST { String::new() } else { args.backup.clone() };
    let none = |name: &String| vec![name.clone(), backup.clone(), String::new(), ui::paint(ui::FAINT, "no backup")];
    rows.extend(without.iter().map(none));
    ui::tell(table::columns(rows, &[2]));
    tell_locales(locales.iter().map(|(name, other)| (*name, other)));
    failure::all_of(errors, Exit::Found, |count| {
        format!("{count} backups are not as they should be, or cannot be opened")
    })?;
    ui::tell(format!("\n{} verified", units::plural(all.len(), "backup")));
    Ok(Exit::Done)
}

/// What is verified.
#[derive(Default)]
struct Chosen {
    all: Vec<Kept>,
    /// What was asked for by name and is not there.
    errors: Vec<anyhow::Error>,
    /// Names that have no such backup, where all were meant.
    without: Vec<String>,
}

fn choose(store: &Store, names: &[String], args: &BackupVerifyArgs) -> Result<Chosen> {
    let (mut chosen, mut known) = (Chosen::default(), Vec::new());
    for name in names {
        let listed = store.list(name)?;
        let is_there = listed.iter().any(|kept| args.backup == LATEST || kept.backup.starts_with(&args.backup));
        match args.every {
            true => chosen.all.extend(listed),
            false if args.names.is_empty() && !is_there => {
                chosen.without.push(name.clone());
                known.extend(listed.into_iter().map(|kept| kept.backup));
            }
            false => match store.find(name, &args.backup) {
                Ok(kept) => chosen.all.push(kept),
                Err(error) => chosen.errors.push(error),
            },
        }
    }
    if args.backup != LATEST && chosen.all.is_empty() && chosen.errors.is_empty() {
        bail!(unknown("backup", &args.backup, known.iter().map(String::as_str)));
    }
    Ok(chosen)
}

/// Every byte, and what it decodes to where it can be opened here.
fn read(kept: &Kept, seal: Option<&Age>) -> Result<Manifest> {
    match kept.manifest().and_then(|manifest| opened_by(&manifest, seal)) {
        Ok(seal) => verify::content(kept, seal),
        Err(_) => verify::bytes(kept),
    }
}

/// Reads back what was just taken, and notes that it is as it was written.
pub fn read_back(taken: &[Taken]) -> Result<()> {
    let mut errors = Vec::new();
    for Taken { kept, .. } in taken {
        let _waiting = Waiting::new(format!("reading {}", kept.shown()));
        let noted =
            read(kept, None).and_then(|_| kept.note_verified(&Verified { at: Timestamp::now(), was_restored: false }));
        errors.extend(noted.err());
    }
    failure::all_of(errors, Exit::Failed, |count| format!("{count} of the backups that were taken are broken"))
}

/// The servers that backups are restored into for a try.
struct Tried {
    places: Vec<Place>,
    _lock: Lock,
}

impl Tried {
    async fn new(cx: &Context) -> Result<Tried> {
        let hint = format!("`cargo xtask up{}`", cx.stack_option());
        let Some(instance) = cx.instance()? else {
            bail!(Failure::new(Exit::Failed, format!("{} is not running", cx.stack.name)).hint(hint));
        };
        let lock = cx.lock().await?;
        let running = Engine::of(&cx.repository, &cx.stack, &instance).running(&cx.stack).await?;
        let databases = cx.stack.databases().map(|(service, _)| service.short_name.clone());
        let names: Vec<String> =
            databases.filter(|name| running.iter().any(|server| server.service == *name)).collect();
        if names.is_empty() {
            bail!(Failure::new(Exit::Failed, "no database is running to restore into").hint(hint));
        }
        Ok(Tried { places: places(cx, &instance, &names).await?, _lock: lock })
    }

    /// Restores into a database of its own, which goes away again. Gives what is not as the backup wants it.
    async fn restore(&self, kept: &Kept, manifest: &Manifest, seal: Option<&Arc<Age>>) -> Result<Option<OtherLocale>> {
        let place = self.places.iter().find(|place| place.name == kept.name);
        let place = place
            .with_context(|| format!("`{}` is not running, so its backup cannot be restored for a try", kept.name))?;
        let source = database::source(kept.clone(), open(manifest, seal)?).await?;
        let ready = database::prepare_all(&[source], std::slice::from_ref(place), "restoring for a try").await;
        let mut other_locale = None;
        for ready in ready.with_context(|| format!("backup `{}` of `{}` cannot be restored", kept.backup, kept.name))? {
            ready.side.remove().await?;
            other_locale = ready.loaded.other_locale;
        }
        Ok(other_locale)
    }
}
