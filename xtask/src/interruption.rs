//! Ctrl-C and its like: how a verb hears of it, and what a person is told then.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Verb;

/// What an interrupted verb leaves, where it leaves something.
pub fn leaves(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::Up(_) | Verb::Down(_) | Verb::Stop(_) | Verb::Restart(_) => Some(
            "what started keeps running and is recorded: `cargo xtask status` shows it, `cargo xtask up` goes on, \
             `cargo xtask stop` stops it",
        ),
        Verb::Seed(_) => Some("a database has all of its seeds or none: `cargo xtask seed` goes on"),
        Verb::Backup(_) => Some("a backup is there whole or not at all: `cargo xtask backup list` shows what there is"),
        Verb::Restore(_) => Some("a database is the restored one or still the old one: `cargo xtask status`"),
        Verb::Upgrade(_) => Some("nothing is lost: `cargo xtask upgrade` goes on"),
        _ => None,
    }
}

/// Ctrl-C, SIGTERM or a closed terminal.
pub async fn wait() -> Result<()> {
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut signals;
    tokio::select! {
        _ = interrupt.recv() => {},
        _ = terminate.recv() => {},
        _ = hangup.recv() => {},
    }
    Ok(())
}
