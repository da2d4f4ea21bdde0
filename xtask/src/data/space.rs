//! Whether the disks of servers have room for what is about to be written beside the live databases: a disk that is full ends
//! the live ones as well.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;

use super::restore::database::Place;
use crate::engine::clients::SHELL;
use crate::engine::postgres::{self, MAINTENANCE_DATABASE};
use crate::tools::{self, Input};
use crate::ui::{Exit, Failure, units};

/// How much more a copy of a database may take than the database, in percent: its log is written beside it.
const ROOM: u64 = 130;

/// A file system as a server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    /// What tells it from others: servers of one machine share a device, while what has none is taken for a disk of its own.
    id: String,
    free: u64,
}

/// Refuses work for which there is no room: `verb` is done in each place with a database of so many bytes, all at once.
///
/// # Errors
/// Names every disk that is too small, and who wanted to share it.
pub async fn check(verb: &str, wanted: &[(&Place, u64)]) -> Result<()> {
    let disks = try_join_all(wanted.iter().map(|(place, _)| disk_of(place))).await?;
    let wanted: Vec<_> = wanted.iter().zip(disks).map(|((place, bytes), disk)| (&*place.name, *bytes, disk)).collect();
    let short = short(&wanted);
    if short.is_empty() {
        return Ok(());
    }
    let title = short.iter().map(|Short { names, needed, free }| {
        let (needed, free) = (units::megabytes(*needed), units::megabytes(*free));
        format!("{verb} {} needs {needed}, and {free} are free", names.join(", "))
    });
    let name = short.first().map_or("", |short| short.names[0].trim_matches('`'));
    bail!(
        Failure::new(Exit::Failed, title.collect::<Vec<_>>().join("; "))
            .body("  nothing was changed: it is done in a database beside the live one")
            .hint(format!(
                "free some space; `cargo xtask restore {name} --drop-old` drops what earlier restores have replaced"
            ))
    );
}

/// A disk that cannot take what is wanted of it.
#[derive(Debug, PartialEq, Eq)]
struct Short {
    names: Vec<String>,
    needed: u64,
    free: u64,
}

/// Those without room. A disk that is not known is trusted.
fn short(wanted: &[(&str, u64, Option<Disk>)]) -> Vec<Short> {
    let mut disks: BTreeMap<&str, Short> = BTreeMap::new();
    for (name, bytes, disk) in wanted {
        let Some(disk) = disk else { continue };
        let short = disks.entry(&disk.id).or_insert(Short { names: Vec::new(), needed: 0, free: disk.free });
        short.names.push(format!("`{name}`"));
        short.needed += bytes / 100 * ROOM;
        short.free = short.free.min(disk.free);
    }
    disks.into_values().filter(|short| short.free < short.needed).collect()
}

async fn disk_of(place: &Place) -> Result<Option<Disk>> {
    let asked = "SELECT current_setting('data_directory')";
    let rows = postgres::query(&place.door, &place.login.user, MAINTENANCE_DATABASE, asked);
    let folder =
        rows.await?.pop().and_then(|mut row| row.pop()).context("the server does not say where its data are")?;
    let mut command = place.clients.command(SHELL, MAINTENANCE_DATABASE, &[]);
    command.args(["-c", "df -Pk \"$0\"", &folder]);
    let ran = tokio::task::spawn_blocking(move || tools::run(command, Input::Text(String::new()))).await??.ok()?;
    Ok(disk_in(&ran.stdout, &place.name))
}

/// Out of what `df -Pk` says (POSIX): on its second line the device, then in units of 1024 bytes the size, what is used and
/// what is free.
fn disk_in(said: &str, name: &str) -> Option<Disk> {
    let words: Vec<&str> = said.lines().nth(1)?.split_whitespace().collect();
    let (device, size) = (words.first()?, words.get(1)?);
    let id = if device.starts_with('/') { format!("{device} {size}") } else { name.to_owned() };
    Some(Disk { id, free: words.get(3)?.parse::<u64>().ok()? * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_one_disk_share_its_room() {
        let disk = |device: &str, free: u64, name: &str| {
            let said = format!(
                "Filesystem 1024-blocks Used Available Capacity Mounted on\n{device} 1000 1 {free} 1% /a folder\n"
            );
            disk_in(&said, name)
        };
        let shared = |name| (name, 1000 * 1024, disk("/dev/vda1", 3000, name));
        assert_eq!(short(&[shared("a"), shared("b")]), []);
        let of_all =
            Short { names: ["`a`", "`b`", "`c`"].map(str::to_owned).into(), needed: 3_993_600, free: 3_072_000 };
        assert_eq!(short(&[shared("a"), shared("b"), shared("c")]), [of_all]);
        let own = |name| (name, 1000 * 1024, disk("tmpfs", 1400, name));
        assert_eq!(short(&[own("a"), own("b"), own("c")]), []);
        assert_eq!(short(&[("a", u64::MAX / 200, disk_in("df: no such folder\n", "a"))]), []);
    }
}
