//! A database restored beside the live one, and proven; what happens with it then is for the caller.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use archive::part::Seal;
use futures_util::StreamExt;

use super::compare::compare;
use super::load::{self, Loaded, Source};
use crate::data::backup::manifest::Subject;
use crate::data::backup::store::Kept;
use crate::data::backup::verify;
use crate::data::locale::Origin;
use crate::data::side::{Purpose, Side};
use crate::engine::clients::{Clients, SHELL};
use crate::engine::postgres::{self, Door, Login};
use crate::tools::{self, Input};
use crate::ui::progress::Progress;
use crate::ui::{Exit, Failure, failure, units};

/// How much more a restored database may take than the one that was backed up, in percent: its log is written beside it.
const ROOM: u64 = 130;

/// Where a backup is restored.
#[derive(Debug, Clone)]
pub struct Place {
    /// As a person says it.
    pub name: String,
    pub clients: Clients,
    pub door: Door,
    pub login: Login,
}

/// Restored, analysed and compared.
#[derive(Debug)]
pub struct Ready {
    pub side: Side,
    pub loaded: Loaded,
    /// Until everything was there, and until it was proven.
    pub filling: Duration,
    pub proving: Duration,
}

/// Reads and proves all of a backup, before anything is done with it.
pub async fn source(kept: Kept, seal: Option<Arc<dyn Seal + Send + Sync>>) -> Result<Source> {
    tokio::task::spawn_blocking(move || {
        let manifest = verify::bytes(&kept)?;
        let Subject::Database(database) = manifest.subject.clone() else {
            bail!(Failure::new(Exit::Usage, format!("`{}` is no backup of a database", kept.shown())));
        };
        let head = verify::head(&kept, &database, seal.as_deref().map(|seal| seal as &dyn Seal))?;
        Ok(Source { kept, manifest: Arc::new(manifest), database: Arc::new(database), head: Arc::new(head), seal })
    })
    .await?
}

/// Restores into a database of its own. Whatever fails, that one goes away and nothing else was touched.
pub async fn prepare(source: &Source, place: &Place, bytes: &Arc<AtomicU64>) -> Result<Ready> {
    let begun = Instant::now();
    check_space(source, place).await?;
    let wanted = Purpose::Restore { origin: &Origin::of(&source.head), encoding: &source.database.encoding };
    let side = Side::make(&place.door, &place.login.user, wanted).await?;
    let loaded = load::fill(source, &place.clients, &side, bytes).await.with_context(|| not_restored(place))?;
    let filling = begun.elapsed();
    let proving = async { tokio::try_join!(load::analyze(&side), compare(source, &place.clients, &side.name, bytes)) };
    let ((), differences) = proving.await.with_context(|| not_restored(place))?;
    if !differences.is_empty() {
        bail!(
            Failure::new(Exit::Failed, not_restored(place))
                .body(format!("  what was restored is not what was backed up:\n  {}", differences.join("\n  ")))
        );
    }
    Ok(Ready { side, loaded, filling, proving: begun.elapsed() - filling })
}

/// Prepares several at once; the largest goes first. All errors are one.
pub async fn prepare_all(sources: &[Source], places: &[Place], verb: &'static str) -> Result<Vec<Ready>> {
    let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
    let progress = &Progress::new(verb, &names);
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(sources[*index].database.size_bytes));
    let work = order.into_iter().map(async |index| {
        let ready = prepare(&sources[index], &places[index], &progress.bytes).await;
        progress.done(&names[index]);
        (index, ready)
    });
    let at_once = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
    let mut done: Vec<(usize, Result<Ready>)> =
        progress.watch(futures_util::stream::iter(work).buffer_unordered(at_once).collect()).await;
    done.sort_by_key(|(index, _)| *index);
    let (mut ready, mut errors) = (Vec::new(), Vec::new());
    for (_, result) in done {
        match result {
            Ok(one) => ready.push(one),
            Err(error) => errors.push(error),
        }
    }
    failure::all_of(errors, Exit::Failed, |count| format!("{count} databases were not restored, nothing was changed"))?;
    Ok(ready)
}

fn not_restored(place: &Place) -> String {
    format!("`{}` was not restored, and is as it was", place.name)
}

/// The disk of the server's data must have room for the database once more.
async fn check_space(source: &Source, place: &Place) -> Result<()> {
    let rows = postgres::query(
        &place.door,
        &place.login.user,
        postgres::MAINTENANCE_DATABASE,
        "SELECT current_setting('data_directory')",
    );
    let folder =
        rows.await?.pop().and_then(|mut row| row.pop()).context("the server does not say where its data are")?;
    let mut command = place.clients.command(SHELL, postgres::MAINTENANCE_DATABASE, &[]);
    command.args(["-c", "df -Pk \"$0\"", &folder]);
    let ran = tokio::task::spawn_blocking(move || tools::run(command, Input::Text(String::new()))).await??.ok()?;
    // POSIX: the fourth word of the second line is what is free, in units of 1024 bytes.
    let free = ran.stdout.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let Some(free) = free.map(|units| units * 1024) else { return Ok(()) };
    let needed = source.database.size_bytes / 100 * ROOM;
    if free < needed {
        let (needed, free) = (units::megabytes(needed), units::megabytes(free));
        bail!(
            Failure::new(Exit::Failed, format!("restoring `{}` needs {needed}, and {free} are free", place.name))
                .body("  the live database stays until the restored one is proven")
                .hint(format!(
                    "free some space; `cargo xtask restore {} --drop-old` drops what earlier restores have replaced",
                    place.name
                ))
        );
    }
    Ok(())
}
