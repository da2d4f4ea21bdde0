//! A database restored beside the live one, and proven; what happens with it then is for the caller.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use archive::part::Seal;
use futures_util::StreamExt;
use sql::literal;
use sqlx::{AssertSqlSafe, Connection};

use super::compare::compare;
use super::load::{self, Loaded, Source};
use crate::data::backup::manifest::Subject;
use crate::data::backup::store::Kept;
use crate::data::backup::verify;
use crate::data::locale::Origin;
use crate::data::side::{Purpose, Side};
use crate::data::space;
use crate::engine::clients::Clients;
use crate::engine::postgres::{self, Door, Login, MAINTENANCE_DATABASE};
use crate::ui::progress::Progress;
use crate::ui::{Exit, Failure, failure};

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
async fn prepare(source: &Source, place: &Place, bytes: &Arc<AtomicU64>) -> Result<Ready> {
    let begun = Instant::now();
    let wanted = Purpose::Restore { origin: &Origin::of(&source.head), encoding: &source.database.encoding };
    let side = Side::make(&place.door, &place.login.user, wanted).await?;
    let loaded = load::fill(source, &place.clients, &side, bytes).await.with_context(|| not_restored(place))?;
    try_settings(source, place).await.with_context(|| not_restored(place))?;
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
    let wanted: Vec<_> = places.iter().zip(sources.iter().map(|source| source.database.size_bytes)).collect();
    space::check("restoring", &wanted).await?;
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

/// What is said in the moment of the swap is said before, without effect: it must not fail there.
async fn try_settings(source: &Source, place: &Place) -> Result<()> {
    let settings = source.settings(&place.login.database);
    if settings.is_empty() {
        return Ok(());
    }
    let mut admin = postgres::open(&place.door, &place.login.user, MAINTENANCE_DATABASE).await?;
    let exists = format!("SELECT FROM pg_database WHERE datname = {}", literal(&place.login.database));
    if sqlx::raw_sql(AssertSqlSafe(exists)).fetch_optional(&mut admin).await?.is_some() {
        let tried = format!("BEGIN; {settings}; ROLLBACK");
        let tried = sqlx::raw_sql(AssertSqlSafe(tried)).execute(&mut admin).await;
        tried.context("the server refuses what the backup says of the database itself")?;
    }
    Ok(admin.close().await?)
}

fn not_restored(place: &Place) -> String {
    format!("`{}` was not restored, and is as it was", place.name)
}
