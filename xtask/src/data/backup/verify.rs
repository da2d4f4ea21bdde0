//! Proving a backup: every byte of every part is read and hashed, and decoded, and what comes out is counted and hashed again.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use archive::content::Hasher;
use archive::custom::Head;
use archive::part::Seal;

use super::manifest::{Database, Evidence, Manifest, Subject};
use super::store::Kept;
use crate::ui::{Exit, Failure, failure};

const READ_AT_ONCE: usize = 256 << 10;
/// What [`decode`] gives of a file's begin.
const BEGIN: usize = 16;
const RDB_MAGIC: &[u8] = b"REDIS";

/// Reads the manifest and proves every part's bytes; all that is wrong is told at once. It blocks.
pub fn bytes(kept: &Kept) -> Result<Manifest> {
    let manifest = kept.manifest()?;
    let faults = each(&manifest.parts, |part| kept.prove(part));
    match faults.is_empty() {
        true => Ok(manifest),
        false => Err(kept.broken(&faults)),
    }
}

/// As [`bytes`], and decodes everything: what a part holds must be what was counted when it was written.
pub fn content(kept: &Kept, seal: Option<&dyn Seal>) -> Result<Manifest> {
    let manifest = bytes(kept)?;
    if let (Some(_), Some(part)) = (seal, manifest.parts.first()) {
        // Its bytes are those that were written: where it does not open, the key is another one.
        let opened = kept.read(&part.file, seal).and_then(|mut part| Ok(part.read(&mut [0])?));
        let title = format!("the key does not open backup `{}` of `{}`", kept.backup, kept.name);
        opened.with_context(|| Failure::new(Exit::Usage, title))?;
    }
    let faults = match &manifest.subject {
        Subject::Database(database) => {
            let mut work: Vec<Job<'_>> = vec![Job::Head(database)];
            work.extend(database.tables.iter().map(|table| Job::Rows(&table.part, &table.evidence)));
            work.extend(database.large_objects.iter().map(|objects| Job::Plain(&objects.part)));
            each(&work, |job| job.run(&manifest, kept, seal))
        }
        Subject::Redis(redis) => {
            let decoded = decode(kept, &redis.part, seal, |_| ());
            let checked = decoded.and_then(|begin| {
                ensure!(begin.starts_with(RDB_MAGIC), "`{}` is no RDB file", redis.part);
                Ok(())
            });
            checked.err().into_iter().map(|error| failure::in_a_line(&error)).collect()
        }
        Subject::PubSub(_) => Vec::new(),
    };
    match faults.is_empty() {
        true => Ok(manifest),
        false => Err(kept.broken(&faults)),
    }
}

enum Job<'a> {
    Head(&'a Database),
    Rows(&'a str, &'a Evidence),
    Plain(&'a str),
}

impl Job<'_> {
    fn run(&self, manifest: &Manifest, kept: &Kept, seal: Option<&dyn Seal>) -> Result<()> {
        match self {
            Job::Head(database) => {
                let head = head(kept, database, seal)?;
                let listed = head.entries.iter().filter(|entry| entry.is_rows() && entry.has_data).count();
                ensure!(
                    listed == database.tables.len(),
                    "the dump lists {listed} tables with rows, and the manifest {}",
                    database.tables.len()
                );
                Ok(())
            }
            Job::Rows(file, evidence) => {
                let part = manifest.part(file)?;
                let mut hasher = Hasher::default();
                let mut bytes = 0;
                decode(kept, &part.file, seal, |piece| {
                    bytes += piece.len() as u64;
                    hasher.update(piece);
                })?;
                ensure!(bytes == part.raw_bytes, "`{file}` decodes to {bytes} bytes instead of {}", part.raw_bytes);
                let found = Evidence::from(hasher.finish());
                ensure!(
                    found == **evidence,
                    "`{file}` holds {} rows of other content than the {} that were dumped",
                    found.rows,
                    evidence.rows
                );
                Ok(())
            }
            Job::Plain(file) => decode(kept, file, seal, |_| ()).map(drop),
        }
    }
}

/// The dump's table of contents.
pub fn head(kept: &Kept, database: &Database, seal: Option<&dyn Seal>) -> Result<Head> {
    let mut bytes = Vec::new();
    let file = &database.head;
    kept.read(file, seal)?.read_to_end(&mut bytes).with_context(|| format!("cannot decode `{file}`"))?;
    Head::parse(&bytes).with_context(|| format!("`{file}` is no dump's head"))
}

/// Reads a part to its end, piece by piece; gives its first bytes.
fn decode(kept: &Kept, file: &str, seal: Option<&dyn Seal>, mut each: impl FnMut(&[u8])) -> Result<Vec<u8>> {
    let mut reader = kept.read(file, seal)?;
    let mut buffer = vec![0; READ_AT_ONCE];
    let mut begin = Vec::new();
    loop {
        let read = reader.read(&mut buffer).with_context(|| format!("cannot decode `{file}`"))?;
        if read == 0 {
            return Ok(begin);
        }
        if begin.is_empty() {
            begin.extend_from_slice(&buffer[..read.min(BEGIN)]);
        }
        each(&buffer[..read]);
    }
}

/// Copies what a part holds.
pub fn decode_to(kept: &Kept, file: &str, seal: Option<&dyn Seal>, out: &mut impl Write) -> Result<()> {
    let mut reader = kept.read(file, seal)?;
    std::io::copy(&mut reader, out).with_context(|| format!("cannot decode `{file}`"))?;
    Ok(())
}

/// Does the same with each, on as many threads as there are processors; gives the faults in their order.
pub fn each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Vec<String> {
    let next = AtomicU64::new(0);
    let faults = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(items.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(index) = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok()
                    && let Some(item) = items.get(index)
                {
                    if let Err(error) = work(item) {
                        let mut faults = faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        faults.push((index, failure::in_a_line(&error)));
                    }
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    faults.sort();
    faults.into_iter().map(|(_, fault)| fault).collect()
}
