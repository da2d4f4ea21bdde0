//! The user that servers run as. PostgreSQL refuses to run as root, so root needs another one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::ui::{Exit, Failure};

/// The variable that names the user for root's servers.
const VARIABLE: &str = "XTASK_SERVER_USER";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl ServerUser {
    /// Whether the user can enter the folder: every part of the path lets it pass.
    pub fn reaches(&self, folder: &Path) -> bool {
        folder.ancestors().all(|part| {
            std::fs::metadata(part).is_ok_and(|metadata| {
                let mode = metadata.mode();
                match () {
                    () if metadata.uid() == self.uid => mode & 0o100 != 0,
                    () if metadata.gid() == self.gid => mode & 0o010 != 0,
                    () => mode & 0o001 != 0,
                }
            })
        })
    }
}

/// For root: who `XTASK_SERVER_USER` says, else the owner of the checkout if that is somebody else (`sudo`, a mounted
/// folder), else `nobody`. For anybody else: nobody but themselves, `None`.
pub fn choose(checkout: &Path) -> Result<Option<ServerUser>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users =
        std::fs::read("/etc/passwd").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    if let Some(name) = std::env::var_os(VARIABLE) {
        let name = name.to_string_lossy().into_owned();
        let user = parse(&users).find(|user| user.name == name && user.uid != 0);
        return user.map(Some).ok_or_else(|| {
            anyhow!(
                Failure::new(
                    Exit::Usage,
                    format!("`{VARIABLE}` names `{name}`, which is no unprivileged user of this machine")
                )
                .hint("name a user of `/etc/passwd`, or unset the variable")
            )
        });
    }
    let owner = std::fs::metadata(checkout)?.uid();
    let by_owner = parse(&users).find(|user| user.uid == owner && owner != 0);
    let nobody = parse(&users).find(|user| user.name == "nobody");
    by_owner.or(nobody).map(Some).ok_or_else(|| {
        anyhow!(
            Failure::new(Exit::Usage, "you are root, and there is no `nobody` to run the servers as")
                .hint(format!("set `{VARIABLE}` to an unprivileged user of this machine"))
        )
    })
}

fn parse(passwd: &str) -> impl Iterator<Item = ServerUser> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some(ServerUser { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}
