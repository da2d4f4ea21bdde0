//! Who holds a port: pid, program, command line, the container behind Docker's proxy, or the checkout it belongs to.

use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;
use listeners::{Listener, Protocol, SocketState};

use crate::engine::docker::containers::{self, Publisher};
use crate::engine::native::process;
use crate::files;
use crate::instance::registry;
use crate::ui::units;

/// Longer command lines are cut.
const LONGEST_COMMAND: usize = 100;

/// All listening sockets, looked up once.
#[derive(Debug, Clone)]
pub struct Holders(Rc<Vec<Listener>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: Option<i32>,
    pub program: Option<String>,
    pub command_line: Option<String>,
    pub container: Option<Publisher>,
    pub instance: Option<HoldingInstance>,
}

/// A service of an instance of ours, in this checkout or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingInstance {
    pub stack: String,
    pub service: String,
    pub checkout: String,
    pub since: Timestamp,
    /// The checkout no longer has it.
    pub is_forgotten: bool,
}

impl Holders {
    pub fn look() -> Holders {
        let found = listeners::get_all().unwrap_or_default();
        Holders(Rc::new(found.into_iter().filter(is_listening).collect()))
    }

    /// The pid that listens on the port, where the system tells it.
    pub fn pid_of(&self, port: u16) -> Option<i32> {
        let listener = self.0.iter().find(|listener| listener.socket.port() == port)?;
        i32::try_from(listener.process.pid).ok()
    }

    pub fn holder_of(&self, port: u16) -> Holder {
        let mut holder = Holder { pid: None, program: None, command_line: None, container: None, instance: None };
        let Some(listener) = self.0.iter().find(|listener| listener.socket.port() == port) else {
            // The proxy of a container is another user's process.
            holder.container = containers::publisher(port);
            return holder;
        };
        let pid = i32::try_from(listener.process.pid).unwrap_or(0);
        holder.pid = Some(pid);
        holder.program = Some(listener.process.name.clone());
        let command_line = process::command_line(pid).join(" ");
        if !command_line.is_empty() {
            holder.command_line = Some(command_line);
        }
        if is_proxy(&listener.process.name) {
            holder.container = containers::publisher(port);
        }
        holder.instance = registry::entries().into_iter().find_map(|entry| {
            let is_forgotten = entry.checkout_is_gone();
            let record = entry.records.into_iter().find(|record| record.pid == pid && record.is_alive())?;
            Some(HoldingInstance {
                is_forgotten,
                stack: entry.identity.stack,
                service: record.service,
                checkout: entry.identity.checkout.display().to_string(),
                since: record.started,
            })
        });
        holder
    }
}

/// The process by which Docker forwards a port to a container.
fn is_proxy(program: &str) -> bool {
    program.starts_with("docker-pr") || program.contains("rootlessport")
}

impl Holder {
    /// Docker's forwarding of a port of which the engine knows nothing: the engine was killed or restarted, and its process
    /// has not ended yet.
    pub fn is_leftover_of_docker(&self) -> bool {
        self.container.is_none() && self.program.as_deref().is_some_and(is_proxy)
    }

    /// In one line for a person.
    pub fn describe(&self) -> String {
        if let Some(instance) = &self.instance {
            let here = std::env::current_dir().unwrap_or_default();
            let checkout = files::relative_to(Path::new(&instance.checkout), &here);
            let forgotten =
                if instance.is_forgotten { ", whose state is gone: `cargo xtask doctor --fix` stops it" } else { "" };
            return format!(
                "{} of {} in {} (native, since {}){forgotten}",
                instance.service,
                instance.stack,
                checkout.display(),
                units::clock(instance.since)
            );
        }
        if let Some(container) = &self.container {
            let here = std::env::current_dir().unwrap_or_default();
            let of = container.folder.as_ref().map_or_else(String::new, |folder| {
                format!(", of Compose in {}", files::relative_to(Path::new(folder), &here).display())
            });
            return format!("container {}{of}", container.name);
        }
        if let (true, Some(pid)) = (self.is_leftover_of_docker(), self.pid) {
            return format!(
                "docker-proxy, pid {pid}, of no container: an engine that was killed left it, `kill {pid}` ends it"
            );
        }
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => {
                let command = self.command_line.as_deref().unwrap_or_default();
                let cut: String = command.chars().take(LONGEST_COMMAND).collect();
                format!("{program}, pid {pid}: {cut}{}", if cut.len() < command.len() { "…" } else { "" })
            }
            _ => "a process of another user, or one that has just ended".into(),
        }
    }
}

fn is_listening(listener: &Listener) -> bool {
    listener.protocol == Protocol::TCP && listener.state == SocketState::Listen
}
