//! Proof that a process is the one that was started, and signals to that one only.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

#[cfg(not(target_os = "linux"))]
use crate::tools;

/// When a process began, in the system's own measure. A pid and its birth name one process for ever: pids are reused,
/// and after a reboot so are clock ticks, hence the boot's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth(String);

impl Birth {
    /// Of a process that is not there yet.
    pub fn unknown() -> Birth {
        Birth(String::new())
    }
}

/// How often an ending process is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// The birth of a running process; `None` if there is none. A zombie is none once all its threads have ended: until
/// then they hold its files and ports (the emulator's Java takes a moment).
#[cfg(target_os = "linux")]
pub fn birth_of(pid: i32) -> Option<Birth> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name in parentheses may hold anything; behind it come the state (field 3), the number of threads (field 20) and
    // the start time (field 22).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (state, threads, ticks) = (fields.first()?, fields.get(17)?, fields.get(19)?);
    let has_ended = match *state {
        "Z" => threads.parse::<u32>().is_ok_and(|threads| threads <= 1),
        "X" | "x" => true,
        _ => false,
    };
    if has_ended {
        return None;
    }
    Some(Birth(format!("{}:{ticks}", boot_id())))
}

#[cfg(target_os = "linux")]
fn boot_id() -> &'static str {
    static BOOT_ID: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let bytes = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    })
}

#[cfg(not(target_os = "linux"))]
pub fn birth_of(pid: i32) -> Option<Birth> {
    let shell = tools::shell_in(std::path::Path::new("/")).ok()?;
    let pid = pid.to_string();
    let line = tools::read(xshell::cmd!(shell, "ps -o state=,lstart= -p {pid}"), None).ok()?;
    let (state, started) = line.trim().split_once(' ')?;
    (!state.starts_with('Z')).then(|| Birth(started.trim().to_owned()))
}

/// Whether the pid is in use at all, be it by a zombie or somebody else's process.
pub fn exists(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    matches!(rustix::process::test_kill_process(pid), Ok(()) | Err(rustix::io::Errno::PERM))
}

/// The command line of a process, as its arguments; empty if it cannot be read.
pub fn command_line(pid: i32) -> Vec<String> {
    #[cfg(target_os = "linux")]
    {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let Ok(shell) = tools::shell_in(std::path::Path::new("/")) else { return Vec::new() };
        let pid = pid.to_string();
        let line = tools::read(xshell::cmd!(shell, "ps -o command= -p {pid}"), None).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    }
}

/// The pids whose command line holds `text`. Servers of PostgreSQL carry their `cluster_name` there, children included.
pub fn mentioning(text: &str) -> Vec<i32> {
    #[cfg(target_os = "linux")]
    {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| command_line(*pid).iter().any(|part| part.contains(text)))
            .collect()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let Ok(shell) = tools::shell_in(std::path::Path::new("/")) else { return Vec::new() };
        let lines = tools::read(xshell::cmd!(shell, "ps -axo pid=,command="), None).unwrap_or_default();
        lines
            .lines()
            .filter(|line| line.contains(text))
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect()
    }
}

/// Sends a signal to the process if it still is the one born then. `false`: it is gone.
pub fn signal(pid: i32, birth: &Birth, signal: Signal) -> Result<bool> {
    let Some(target) = Pid::from_raw(pid) else { return Ok(false) };
    // The descriptor pins the process before its birth is compared, so the signal cannot reach a successor.
    #[cfg(target_os = "linux")]
    let pinned = rustix::process::pidfd_open(target, rustix::process::PidfdFlags::empty());
    if birth_of(pid).as_ref() != Some(birth) {
        return Ok(false);
    }
    #[cfg(target_os = "linux")]
    let sent = match pinned {
        Ok(pinned) => rustix::process::pidfd_send_signal(pinned, signal),
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => rustix::process::kill_process(target, signal),
        Err(error) => Err(error),
    };
    #[cfg(not(target_os = "linux"))]
    let sent = rustix::process::kill_process(target, signal);
    match sent {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
    }
}

/// Waits until the process is gone; `false` if it is still there after `cap`.
pub async fn gone(pid: i32, birth: &Birth, cap: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + cap;
    while birth_of(pid).as_ref() == Some(birth) {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    true
}
