//! One initdb for each build of PostgreSQL and its settings, kept in the machine user's cache and copied for every
//! database. An initdb takes half a second of one core, a copy a few hundredths.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::cmd;

use super::programs::PostgresPrograms;
use crate::engine::postgres::{MAINTENANCE_DATABASE, SPARE_DATABASE};
use crate::files;
use crate::instance::server_user::ServerUser;
use crate::stack::model::initdb_locale;
use crate::toolbox::{cache_folder, lock_beside};
use crate::tools;

/// Copied in pieces of this size; a piece of zeros becomes a hole.
const PIECE: usize = 64 << 10;

/// Who may log in and how: the owner's socket freely (its folder lets nobody else in), loopback with the password.
const HBA: &str = "# Written by cargo xtask.
local  all          all                 trust
local  replication  all                 trust
host   all          all  127.0.0.1/32   scram-sha-256
host   all          all  ::1/128        scram-sha-256
";

/// The initialised cluster to copy, made if it is not there yet.
pub async fn provide(programs: &PostgresPrograms, superuser: &str, user: Option<&ServerUser>) -> Result<PathBuf> {
    let major: u32 = programs.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let locale = initdb_locale(major);
    let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    let (bin, uid) = (programs.bin.display().to_string(), uid.to_string());
    let key = files::short_hash([HBA, SPARE_DATABASE, &bin, superuser, &locale.join(" "), &uid]);
    let parent = cache_folder().join("templates");
    let folder = parent.join(format!("postgresql-{}-{key}", programs.version));
    if is_whole(&folder) {
        return Ok(folder);
    }
    files::create_folder(&parent)?;
    let _lock = lock_beside(&folder).await?;
    if !is_whole(&folder) {
        let (bin, superuser, user, target) =
            (programs.bin.clone(), superuser.to_owned(), user.cloned(), folder.clone());
        tokio::task::spawn_blocking(move || initialise(&bin, &superuser, &locale, user.as_ref(), &target)).await??;
    }
    Ok(folder)
}

/// The last file that initdb writes, and the first that a broken copy lacks.
fn is_whole(folder: &Path) -> bool {
    ["PG_VERSION", "pg_hba.conf", "global/pg_control"].iter().all(|file| folder.join(file).is_file())
}

fn initialise(bin: &Path, superuser: &str, locale: &[&str], user: Option<&ServerUser>, target: &Path) -> Result<()> {
    let (parent, name) = (target.parent().unwrap_or(Path::new("/")), target.file_name().unwrap_or_default());
    let prefix = format!("{}.making-", name.to_string_lossy());
    // The lock is held: what has such a name was left by a killed run. A new name each time, since an initdb that
    // outlived its helper may still be writing to the old one.
    files::remove_leftovers(parent, &prefix)?;
    let making = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?;
    let making = making.path();
    if let Some(user) = user {
        std::os::unix::fs::chown(making, Some(user.uid), Some(user.gid))?;
    }
    let shell = tools::shell_in(Path::new("/"))?;
    shell.set_var("LC_ALL", "C");
    shell.set_var("TZ", "UTC");
    let initdb = bin.join("initdb");
    let command = cmd!(
        shell,
        "{initdb} --no-sync --no-instructions --auth=trust --encoding=UTF8 {locale...} --username={superuser} --pgdata={making}"
    );
    let user_ids = user.map(|user| (user.uid, user.gid));
    tools::read(command, user_ids).context("cannot initialise a PostgreSQL cluster")?;
    let postgres = bin.join("postgres");
    let command = cmd!(shell, "{postgres} --single -F -D {making} {MAINTENANCE_DATABASE}");
    tools::feed(command, &format!("CREATE DATABASE {SPARE_DATABASE}\n"), user_ids)
        .context("cannot make a database in a new PostgreSQL cluster")?;
    files::write_atomically(&making.join("pg_hba.conf"), HBA.as_bytes(), 0o644)?;
    files::remove_folder(target)?;
    std::fs::rename(making, target).with_context(|| format!("cannot rename to `{}`", target.display()))
}

/// Copies an initialised cluster to `target`, which appears whole or not at all.
pub fn copy(template: &Path, target: &Path, user: Option<&ServerUser>) -> Result<()> {
    let (parent, name) = (target.parent().unwrap_or(Path::new("/")), target.file_name().unwrap_or_default());
    let prefix = format!("{}.copying-", name.to_string_lossy());
    files::remove_leftovers(parent, &prefix)?;
    files::keep_apart(parent);
    // A name of its own each time: where on the disk the copy goes hangs on it.
    let copy = || -> Result<()> {
        let copying = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?;
        copy_folder(template, copying.path(), user)?;
        Ok(std::fs::rename(copying.path(), target)?)
    };
    copy().with_context(|| format!("cannot make the data directory `{}`", target.display()))
}

fn copy_folder(from: &Path, to: &Path, user: Option<&ServerUser>) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()? {
            kind if kind.is_dir() => {
                std::fs::create_dir(&target)?;
                copy_folder(&source, &target, user)?;
            }
            _ => {
                copy_file(&source, &target)?;
                give(&target, user)?;
            }
        }
    }
    files::set_mode(to, 0o700)?;
    give(to, user)
}

fn give(path: &Path, user: Option<&ServerUser>) -> Result<()> {
    match user {
        Some(user) => Ok(std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))?),
        None => Ok(()),
    }
}

/// Small files by the system's own copy, which shares blocks where the file system can. The write-ahead log, most of it
/// zeros, with holes.
fn copy_file(source: &Path, target: &Path) -> Result<()> {
    let metadata = source.metadata()?;
    if metadata.size() < 4 << 20 {
        std::fs::copy(source, target)?;
        return Ok(());
    }
    let (mut from, mut to) = (File::open(source)?, File::create(target)?);
    let (mut piece, zeros) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = from.read(&mut piece)?;
        match &piece[..read] {
            [] => break,
            // Compared as a whole, which is fast in every profile.
            piece if *piece == zeros[..read] => {
                to.seek(SeekFrom::Current(i64::try_from(read)?))?;
            }
            content => to.write_all(content)?,
        }
    }
    to.set_len(metadata.size())?;
    to.set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o777))?;
    Ok(())
}
