//! One lock per instance, held by every verb that changes it.
//!
//! The lock is the kernel's (`flock`), so it ends with its holder however that ends. The file's text only tells people
//! who holds it. A starting server inherits the lock until its record is written (see `engine::native::launch`).

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::ui::{self, Exit, Failure, units};

/// How often a waiting verb tries again.
const INTERVAL: Duration = Duration::from_millis(40);

/// How often the lock is tried before a holder that does not say who it is goes without a name.
const NAMELESS_ATTEMPTS: u32 = 5;

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    command: String,
    started: Timestamp,
}

/// Held until dropped.
#[derive(Debug)]
pub struct Lock(File);

/// What to do when another verb holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    Wait,
    Fail,
}

impl Lock {
    /// Takes the lock of the instance in `folder`, which is made if need be.
    pub async fn take(folder: &Path, command: &str, busy: Busy) -> Result<Lock> {
        files::create_folder(folder)?;
        let path = folder.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| cannot_open(&path, error))?;
        let mut told = false;
        for attempt in 0u32.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
                }
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = match holder(&mut file) {
                Some(holder) => holder.describe(),
                // It has taken the lock and is about to write who it is.
                None if attempt < NAMELESS_ATTEMPTS => {
                    tokio::time::sleep(INTERVAL).await;
                    continue;
                }
                None => "another verb".into(),
            };
            if busy == Busy::Fail {
                bail!(
                    Failure::new(Exit::Failed, format!("{holder} is changing this instance"))
                        .hint("wait for it, or run this without `--no-wait` to have it waited for")
                );
            }
            if !told {
                ui::tell(format!("waiting for {holder}"));
                told = true;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        let holder = Holder { pid: std::process::id(), command: command.to_owned(), started: Timestamp::now() };
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&serde_json::to_vec(&holder)?)?;
        Ok(Lock(file))
    }

    /// Another handle of the same lock: it is held until both are closed.
    pub fn share(&self) -> Result<File> {
        Ok(self.0.try_clone()?)
    }
}

fn cannot_open(path: &Path, error: std::io::Error) -> anyhow::Error {
    let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
    let error = anyhow::Error::new(error);
    match (is_denied, path.parent().and_then(Path::parent)) {
        (true, Some(folder)) => error.context(
            Failure::new(Exit::Failed, format!("`{}` is another user's", folder.display()))
                .hint(format!("`sudo chown -R \"$USER\" '{}'`, or work as that user", folder.display())),
        ),
        _ => error.context(format!("cannot open `{}`", path.display())),
    }
}

impl Holder {
    fn describe(&self) -> String {
        format!("`{}` (pid {}, since {})", self.command, self.pid, units::clock(self.started))
    }
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}
