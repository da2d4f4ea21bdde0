//! What `up` will do: plain data, from what is wanted and what was observed. `--dry-run` prints exactly this.

use super::native::servers::Blueprint;
use super::server::Server;
use crate::stack::Service;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the data and start.
    Create,
    /// Start on the data that are there.
    Start,
    /// Stop and start, since something that only a start can change has changed.
    Restart { why: String, running: Box<Server> },
    /// Set user, password or database in the running server.
    Mend { running: Box<Server> },
    /// It runs as it should.
    Keep { running: Box<Server> },
}

/// One service's part of the plan.
#[derive(Debug)]
pub struct Step<'a> {
    pub service: &'a Service,
    pub action: Action,
    /// The server as it should run, where the helper itself starts it.
    pub blueprint: Option<Blueprint>,
}

/// A service that is up.
#[derive(Debug, Default)]
pub struct Started {
    pub version: String,
    pub took: std::time::Duration,
    /// What was done besides starting: `6 topics`, `password set`.
    pub notes: Vec<String>,
}

impl Action {
    /// Whether a server is started.
    pub fn starts(&self) -> bool {
        matches!(self, Action::Create | Action::Start | Action::Restart { .. })
    }

    /// The server of ours that lets go of its port before this starts another.
    pub fn lets_go(&self) -> Option<&Server> {
        match self {
            Action::Restart { running, .. } => Some(running),
            _ => None,
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Action::Create => "create and start".into(),
            Action::Start => "start".into(),
            Action::Restart { why, .. } => format!("restart: {why}"),
            Action::Mend { .. } => "set user, password or database".into(),
            Action::Keep { .. } => "unchanged".into(),
        }
    }
}

/// Why a server with another configuration restarts.
pub fn why_changed(running: &Server, service: &Service) -> String {
    match running.port == service.port().number {
        true => "its configuration changed".to_owned(),
        false => format!("its port changes from {} to {}", running.port, service.port().number),
    }
}
