//! Databases that are swapped together: all of them, or none. What they replace has one time in its names, and so it is known
//! for one group later.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use jiff::Timestamp;

use super::swap::Server;
use crate::ui::{Exit, Failure, failure, units};

/// A database that is to take the live one's place.
#[derive(Debug)]
pub struct Member<'a> {
    pub server: Server<'a>,
    pub live: &'a str,
    pub new: &'a str,
    /// Statements for the same transaction.
    pub beside: String,
}

/// A member that is live now.
#[derive(Debug)]
pub struct Swapped<'a> {
    member: Member<'a>,
    /// The name of what was there, if anything was.
    old: Option<String>,
    pub took: Duration,
}

/// Swaps one database after the other, then does the rest that belongs to them. Where anything fails, every database has the
/// name that it had.
pub async fn swap<'a, T>(
    members: Vec<Member<'a>>,
    replaced: Timestamp,
    rest: impl Future<Output = Result<T>>,
) -> Result<(Vec<Swapped<'a>>, T)> {
    let mut swapped = Vec::new();
    for member in members {
        let begun = Instant::now();
        match member.server.swap(member.new, member.live, replaced, &member.beside).await {
            Ok(old) => swapped.push(Swapped { member, old, took: begun.elapsed() }),
            Err(error) => return Err(swap_back(&swapped, error).await),
        }
    }
    match rest.await {
        Ok(rest) => Ok((swapped, rest)),
        Err(error) => Err(swap_back(&swapped, error).await),
    }
}

/// Gives the error with how it stands now.
async fn swap_back(swapped: &[Swapped<'_>], error: Error) -> Error {
    let (mut stuck, mut errors) = (Vec::new(), Vec::new());
    for Swapped { member, old, .. } in swapped.iter().rev() {
        if let Err(error) = member.server.rename_back(member.new, member.live, old.as_deref()).await {
            stuck.push(member.server.name);
            errors.push(error);
        }
    }
    match (swapped.len(), &stuck[..]) {
        (0, _) => error,
        (count, []) => {
            let databases = units::plural(count, "database");
            let title = format!("not everything could be restored: {databases} swapped back, and as before");
            error.context(Failure::new(Exit::Failed, title))
        }
        (_, stuck) => {
            let mut body: String = errors.iter().map(failure::rendered).collect();
            for name in stuck {
                body.push_str(&format!("  `cargo xtask restore {name} --undo` brings back what `{name}` had\n"));
            }
            let title = format!("not everything could be restored, and {} could not be swapped back", stuck.join(", "));
            error.context(Failure::new(Exit::Failed, title).body(body))
        }
    }
}
