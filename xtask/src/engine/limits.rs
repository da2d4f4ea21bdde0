//! What stands in the way of a start on either engine: no room, or data of another major version.

use std::path::Path;

use anyhow::{Result, bail};

use crate::stack::{Service, Stack};
use crate::ui::{Exit, Failure, units};

/// What one new database takes on the disk, in bytes: the copied cluster, and room to work.
const NEW_DATABASE: u64 = 64_000_000;

/// An error if the disk of a folder has no room for so many new databases. One that cannot be seen from here is not asked.
pub fn check_space(folder: &Path, new: usize) -> Result<()> {
    let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let (free, needed) = (space.f_bavail * space.f_frsize, new as u64 * NEW_DATABASE);
    if free < needed {
        let (needed, free) = (units::megabytes(needed), units::megabytes(free));
        bail!(
            Failure::new(Exit::Failed, format!("{new} new databases need {needed}, and {free} are free"))
                .body(format!("  on the disk of {}", folder.display()))
                .hint("free some space, or start fewer: `cargo xtask up learning redis`")
        );
    }
    Ok(())
}

/// The refusal of data that another major version made; `place` is where they lie.
pub fn other_major(stack: &Stack, service: &Service, found: u32, place: &str) -> Failure {
    let wanted = service.postgres().map_or(0, |postgres| postgres.major);
    let name = &service.short_name;
    Failure::new(
        Exit::Refused,
        format!("the data of `{name}` are PostgreSQL {found}'s, and the manifest asks for {wanted}"),
    )
    .body(format!("  {place}\n  A server never starts on another major version's data."))
    .hint(match found < wanted {
        true => "`cargo xtask upgrade` moves them, and keeps the old ones".to_owned(),
        false => format!("set `postgres.major = {found}` in {}", stack.manifest_file.display()),
    })
}
