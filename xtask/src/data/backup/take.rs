//! Taking a backup of a set: one cut, every member's dump beside the others, and all of them kept or none.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use archive::part::{Seal, Shelf, Writer};
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use super::begun::Begun;
use super::cut::{self, Facts, Moment, Snapshot};
use super::dump::{Inventory, Wanted};
use super::earlier::Earlier;
use super::manifest::{Database, FORMAT, Manifest, Origin, Part, PubSub, Redis, Set, Subject, Subscription};
use super::store::{Kept, Store};
use crate::data::target::Target;
use crate::engine::clients::Clients;
use crate::engine::pubsub;
use crate::engine::redis::snapshot;
use crate::ui::progress::Progress;

const RDB: &str = "parts/dump.rdb.zst";

/// A member of the set that is a database.
#[derive(Debug)]
pub struct Source<'a> {
    pub target: Target<'a>,
    pub clients: Clients,
}

/// A member that is no database.
#[derive(Debug, Clone)]
pub enum Other {
    Redis { name: String, port: u16 },
    PubSub { name: String, port: u16, project: String },
}

impl Other {
    pub fn name(&self) -> &str {
        match self {
            Other::Redis { name, .. } | Other::PubSub { name, .. } => name,
        }
    }
}

/// How a backup is made.
#[derive(Clone)]
pub struct Recipe<'a> {
    pub store: &'a Store,
    pub stack: &'a str,
    pub origin: &'a Origin,
    pub backup: &'a str,
    pub label: Option<&'a str>,
    pub seal: Option<Arc<dyn Seal + Send + Sync>>,
    /// Whom the seal is for.
    pub recipients: &'a [String],
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Full,
    /// What the latest backup holds already is taken over from it.
    Incremental,
}

/// A member that was backed up.
#[derive(Debug)]
pub struct Taken {
    pub kept: Kept,
    pub manifest: Manifest,
}

/// What was asked of Redis and the emulator at the moment of the cut.
enum Asked {
    Redis(snapshot::Snapshot),
    PubSub(String, pubsub::Present),
}

/// Takes the backup of all members.
pub async fn set(sources: Vec<Source<'_>>, others: &[Other], recipe: &Recipe<'_>) -> Result<(Vec<Taken>, Moment)> {
    let names: Vec<String> = sources.iter().map(|source| source.target.service.short_name.clone()).collect();
    let members: Vec<String> =
        names.iter().cloned().chain(others.iter().map(|other| other.name().to_owned())).collect();
    let wanted: Vec<Wanted> =
        sources.iter().map(|source| Wanted::all_of(&source.clients, &source.target.login.database)).collect();
    let progress = Progress::new("backing up", &members);
    let targets = sources.into_iter().map(|source| source.target).collect();
    let (snapshots, moment, asked) = progress.watch(cut::take(targets, ask(others))).await?;
    let about = About { recipe, members: &members, moment, begun: RefCell::default() };
    // More dumps than processors take longer, all together, and more memory. The largest goes first.
    let places = Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from).max(2));
    let mut order: Vec<usize> = (0..snapshots.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(snapshots[*index].facts.size_bytes));
    let mut jobs: Vec<_> = snapshots.into_iter().zip(wanted).map(Some).collect();
    let dumps = order.into_iter().filter_map(|index| jobs[index].take().map(|job| (index, job)));
    let (names, places, about, progress) = (&names, &places, &about, &progress);
    let dumps = dumps.map(async |(index, (mut snapshot, wanted))| {
        let _place = places.acquire().await?;
        let wanted = Wanted { snapshot: Some(snapshot.id.clone()), ..wanted };
        let database = database(about, &names[index], wanted, &mut snapshot, progress).await;
        let database = database.with_context(|| format!("cannot back up `{}`", names[index]))?;
        progress.done(&names[index]);
        snapshot.release().await?;
        Ok::<_, anyhow::Error>((index, database))
    });
    let rest = others.iter().zip(asked).map(async |(other, asked)| {
        let made = self::other(about, other.name(), asked).await;
        let made = made.with_context(|| format!("cannot back up `{}`", other.name()))?;
        progress.done(other.name());
        Ok::<_, anyhow::Error>(made)
    });
    let made = tokio::try_join!(progress.watch(try_join_all(dumps)), try_join_all(rest));
    if made.is_err() {
        // The threads of the others end with the helper, and may not come to remove what they wrote.
        about.begun.borrow().iter().for_each(|name| recipe.store.abandon(name, recipe.backup));
    }
    let (mut dumps, rest) = made?;
    dumps.sort_by_key(|(index, _)| *index);
    let all: Vec<(Begun, Manifest)> = dumps.into_iter().map(|(_, made)| made).chain(rest).collect();
    let kept = all.into_iter().map(|(begun, manifest)| Ok(Taken { kept: begun.keep()?, manifest }));
    Ok((kept.collect::<Result<_>>()?, moment))
}

/// What the members of one set have in common.
struct About<'a> {
    recipe: &'a Recipe<'a>,
    members: &'a [String],
    moment: Moment,
    /// Those that are being written: nobody else's.
    begun: RefCell<Vec<String>>,
}

impl About<'_> {
    fn begin(&self, name: &str) -> Result<Begun> {
        let begun = self.recipe.store.begin(name, self.recipe.backup)?;
        self.begun.borrow_mut().push(name.to_owned());
        Ok(begun)
    }

    fn manifest(
        &self,
        name: &str,
        server_version: String,
        parts: Vec<Part>,
        subject: Subject,
        begun: Instant,
    ) -> Manifest {
        Manifest {
            format: FORMAT,
            stack: self.recipe.stack.to_owned(),
            origin: Some(self.recipe.origin.clone()),
            name: name.to_owned(),
            backup: self.recipe.backup.to_owned(),
            label: self.recipe.label.map(str::to_owned),
            taken: self.moment.taken,
            seconds: begun.elapsed().as_secs_f64(),
            set: Set { members: self.members.to_vec(), skew_micros: self.moment.skew_micros },
            helper: env!("CARGO_PKG_VERSION").to_owned(),
            server_version,
            is_encrypted: self.recipe.seal.is_some(),
            recipients: self.recipe.recipients.to_vec(),
            parts,
            subject,
        }
    }
}

async fn database(
    about: &About<'_>,
    name: &str,
    wanted: Wanted,
    snapshot: &mut Snapshot,
    progress: &Progress,
) -> Result<(Begun, Manifest)> {
    let started = Instant::now();
    let begun = about.begin(name)?;
    let facts = Arc::new(snapshot.facts.clone());
    let database = wanted.database.clone();
    let earlier = match about.recipe.kind {
        Kind::Full => None,
        Kind::Incremental => earlier(about.recipe, name, &database, &facts).await?,
    };
    let is_same = match &earlier {
        Some(earlier) if earlier.may_be_same(&facts) => {
            earlier.is_same(&facts, &snapshot.sequences(&earlier.database.sequences).await?)
        }
        _ => false,
    };
    let unchanged = match earlier.as_ref().filter(|_| !is_same).and_then(|earlier| earlier.candidates(&facts)) {
        Some((span, candidates)) => snapshot.unchanged(span, &candidates).await?,
        None => Vec::new(),
    };
    let (seal, read, facts_there) = (about.recipe.seal.clone(), Arc::clone(&progress.bytes), Arc::clone(&facts));
    let (begun, inventory) = tokio::task::spawn_blocking(move || {
        let seal = seal.as_deref().map(|seal| seal as &dyn Seal);
        let inventory = match &earlier {
            Some(earlier) if is_same => Inventory::take_over(earlier, &begun, &facts_there),
            earlier => {
                let earlier = earlier.as_ref().map(|earlier| (earlier, &unchanged[..]));
                Inventory::take(&wanted, &begun, seal, &facts_there, earlier, &read)
            }
        };
        inventory.map(|inventory| (begun, inventory))
    })
    .await??;
    let facts = Arc::unwrap_or_clone(facts);
    let subject = Subject::Database(Database {
        database,
        encoding: facts.encoding,
        system_identifier: facts.system_identifier,
        pg_dump_version: inventory.pg_dump_version,
        size_bytes: facts.size_bytes,
        head: inventory.head,
        sequences: inventory.sequences,
        tables: inventory.tables,
        large_objects: inventory.large_objects,
        extensions: facts.extensions,
        migrations: facts.migrations,
        roles: facts.roles,
        standing: facts.standing,
    });
    finish(about.manifest(name, facts.server_version, inventory.parts, subject, started), begun).await
}

async fn earlier(recipe: &Recipe<'_>, name: &str, database: &str, facts: &Arc<Facts>) -> Result<Option<Earlier>> {
    let (store, recipients) = (recipe.store.clone(), recipe.recipients.to_vec());
    let (name, database, facts) = (name.to_owned(), database.to_owned(), Arc::clone(facts));
    let finding = tokio::task::spawn_blocking(move || Earlier::find(&store, &name, &database, &facts, &recipients));
    Ok(finding.await?)
}

async fn other(about: &About<'_>, name: &str, asked: Asked) -> Result<(Begun, Manifest)> {
    let started = Instant::now();
    let mut begun = about.begin(name)?;
    let (version, parts, subject) = match asked {
        Asked::Redis(snapshot) => {
            let seal = about.recipe.seal.clone();
            let version = snapshot.version.clone();
            let (keys, expiring) = (snapshot.keys, snapshot.expiring);
            let written = tokio::task::spawn_blocking(move || {
                let mut writer = Writer::new(begun.create(RDB)?, seal.as_deref().map(|seal| seal as &dyn Seal))?;
                snapshot.copy(&mut writer)?;
                Ok::<_, anyhow::Error>((begun, writer.finish()?))
            });
            let (still_begun, written) = written.await??;
            begun = still_begun;
            let part = Part::new(RDB, written);
            let subject = Subject::Redis(Redis { keys, expiring, part: part.file.clone() });
            (version, vec![part], subject)
        }
        Asked::PubSub(project, present) => {
            let subscriptions = present.subscriptions.into_iter();
            let subscriptions =
                subscriptions.map(|(id, topic, ordering)| Subscription { id, topic, ordering }).collect();
            let subject = Subject::PubSub(PubSub { project, topics: present.topics, subscriptions });
            (String::new(), Vec::new(), subject)
        }
    };
    finish(about.manifest(name, version, parts, subject, started), begun).await
}

async fn finish(manifest: Manifest, mut begun: Begun) -> Result<(Begun, Manifest)> {
    tokio::task::spawn_blocking(move || {
        begun.settle(&manifest)?;
        Ok((begun, manifest))
    })
    .await?
}

async fn ask(others: &[Other]) -> Result<Vec<Asked>> {
    try_join_all(others.iter().map(async |other| match other.clone() {
        Other::Redis { port, .. } => {
            let taken = tokio::task::spawn_blocking(move || snapshot::take(port)).await?;
            taken.map(Asked::Redis).context("cannot take a snapshot of redis")
        }
        Other::PubSub { port, project, .. } => {
            let present = pubsub::list(port, project.clone()).await.context("cannot list the topics")?;
            Ok(Asked::PubSub(project, present))
        }
    }))
    .await
}
