//! The machine: engines, memory, disk, and the programs that servers need.

use std::path::Path;

use anyhow::Result;

use super::{Finding, Level};
use crate::engine::docker::client;
use crate::engine::native::programs;
use crate::instance::{EngineKind, Instance, server_user};
use crate::stack::{Repository, Service, Stack};
use crate::toolbox::Toolbox;
use crate::ui::units;

/// Less free space than this is worth a word, in bytes.
const LITTLE_SPACE: u64 = 2_000_000_000;

/// Which engines there are. An instance of containers whose engine is gone is an error; elsewhere it is good to know.
pub async fn engines(instance: Option<&Instance>) -> Result<Vec<Finding>> {
    let is_needed = instance.is_some_and(|instance| instance.identity.engine == EngineKind::Docker);
    Ok(vec![match client::versions().await? {
        Ok(versions) => {
            let text = format!("native; Docker {} with Compose {}", versions.engine, versions.compose);
            Finding::new("engines", Level::Info, text)
        }
        Err(unusable) if is_needed => {
            let text = format!("the services are containers, and {}", unusable.why);
            Finding::new("engine-gone", Level::Error, text).fix(unusable.hint)
        }
        Err(unusable) => Finding::new("engines", Level::Info, format!("native; {}", unusable.why)),
    }])
}

/// Total memory against what the stack is comfortable with.
pub fn memory(stack: &Stack) -> Vec<Finding> {
    let Some(bytes) = total_memory() else {
        return vec![Finding::new("memory-unknown", Level::Info, "the machine does not say how much memory it has")];
    };
    let recommended = u64::from(stack.recommended_memory_gib) << 30;
    let text = format!(
        "{:.1} GiB of memory, {} GiB recommended for {}",
        bytes as f64 / f64::from(1 << 30),
        stack.recommended_memory_gib,
        stack.name
    );
    // A machine sold as 8 GB shows a little less.
    match bytes < recommended / 10 * 9 {
        true => vec![
            Finding::new("memory-low", Level::Warning, text)
                .fix("start fewer services: `cargo xtask up learning redis`"),
        ],
        false => vec![Finding::new("memory", Level::Info, text)],
    }
}

#[cfg(target_os = "linux")]
fn total_memory() -> Option<u64> {
    let text = crate::files::read_text(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(not(target_os = "linux"))]
fn total_memory() -> Option<u64> {
    let shell = crate::tools::shell_in(Path::new("/")).ok()?;
    crate::tools::read(xshell::cmd!(shell, "sysctl -n hw.memsize"), None).ok()?.trim().parse().ok()
}

pub fn disk(folder: &Path) -> Result<Vec<Finding>> {
    let space = rustix::fs::statvfs(folder)?;
    let free = space.f_bavail * space.f_frsize;
    let text = format!("{} free on the disk of {}", units::megabytes(free), folder.display());
    Ok(vec![match free < LITTLE_SPACE {
        true => Finding::new("disk-low", Level::Warning, text).fix("free some space"),
        false => Finding::new("disk", Level::Info, text),
    }])
}

/// What servers need and this machine lacks. Nothing is fetched for it.
pub async fn server_programs(repository: &Repository, stack: &Stack) -> Result<Vec<Finding>> {
    let user = server_user::choose(&repository.root)?;
    let Ok(toolbox) = Toolbox::open(&repository.root, true) else { return Ok(Vec::new()) };
    let services: Vec<&Service> = stack.core().collect();
    let (found, missing) = programs::find(&services, user.as_ref(), &toolbox).await?;
    let mut findings = vec![];
    if !found.describe().is_empty() {
        findings.push(Finding::new("programs", Level::Info, found.describe()));
    }
    for one in missing {
        let services = one.services.join(", ");
        let fetchable = one.looked.iter().find_map(|looked| looked.strip_prefix("offline: the toolbox would have "));
        findings.push(match fetchable {
            Some(fetched) => Finding::new(
                "programs-unfetched",
                Level::Info,
                format!("{} for {services} will be {fetched}", one.what),
            )
            .fix("`cargo xtask toolbox fetch`, or just `cargo xtask up`"),
            None => Finding::new(
                "programs-missing",
                Level::Warning,
                format!("no {}, which {services} needs: {}", one.what, one.looked.join("; ")),
            )
            .fix(one.ways.join("; ")),
        });
    }
    if let Some(user) = user {
        let text = format!("you are root: servers run as `{}`", user.name);
        findings.push(Finding::new("server-user", Level::Info, text));
    }
    Ok(findings)
}
