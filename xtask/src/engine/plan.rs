//! What `up` will do: plain data, from what is wanted and what was observed. `--dry-run` prints exactly this.

use crate::engine::native::observe::Observed;
use crate::engine::native::record::Record;
use crate::engine::native::servers::Blueprint;
use crate::stack::Service;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the data and start.
    Create,
    /// Start on the data that are there.
    Start,
    /// Stop and start, since something that only a start can change has changed.
    Restart { why: String, running: Box<Record> },
    /// Set user, password or database in the running server.
    Mend { running: Box<Record> },
    /// It runs as it should.
    Keep { running: Box<Record> },
}

/// One service's part of the plan.
#[derive(Debug)]
pub struct Step<'a> {
    pub service: &'a Service,
    pub blueprint: Blueprint,
    pub action: Action,
}

impl Action {
    /// Whether a server is started.
    pub fn starts(&self) -> bool {
        matches!(self, Action::Create | Action::Start | Action::Restart { .. })
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

/// The plan for one service. `sockets_are_there` tells whether the owner's door of a running server still is.
pub fn step<'a>(service: &'a Service, blueprint: Blueprint, observed: Observed, sockets_are_there: bool) -> Step<'a> {
    let action = match observed {
        Observed::Absent => Action::Create,
        Observed::Stopped | Observed::Died(_) => Action::Start,
        Observed::Running(record) => {
            let running = Box::new(record);
            if !sockets_are_there {
                Action::Restart { why: "its socket folder is gone".into(), running }
            } else if running.fingerprint != blueprint.fingerprint {
                let why = match running.port == service.port().number {
                    true => "its configuration changed".to_owned(),
                    false => format!("its port changes from {} to {}", running.port, service.port().number),
                };
                Action::Restart { why, running }
            } else if running.login != blueprint.login {
                Action::Mend { running }
            } else {
                Action::Keep { running }
            }
        }
    };
    Step { service, blueprint, action }
}
