//! Ports: checked before anything starts, their holders named, free ones proposed. Nothing is ever killed here.

pub mod fix;
pub mod holders;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::stack::model::Port;
use crate::stack::overrides::Source;
use crate::stack::{Service, Stack};
use crate::tools;
use crate::ui::{Exit, Failure, table, units};
use holders::{Holder, Holders};

/// A port that a service needs and something else holds.
#[derive(Debug, Clone)]
pub struct Conflict {
    pub service: String,
    pub port: u16,
    pub variable: String,
    pub source: Source,
    pub holder: Holder,
}

impl Conflict {
    pub fn of(service: &Service, port: &Port, holders: Holders) -> Conflict {
        Conflict {
            service: service.short_name.clone(),
            port: port.number,
            variable: port.variable.clone(),
            source: port.source.clone(),
            holder: holders.holder_of(port.number),
        }
    }

    /// The conflict of a port, if something holds it.
    pub fn find(service: &Service, port: &Port) -> Option<Conflict> {
        is_taken(port.number).then(|| Conflict::of(service, port, Holders::look()))
    }
}

/// Every conflict of the services' ports. `ours` are ports that servers of this instance hold and will let go of.
pub fn conflicts<'a>(services: impl Iterator<Item = &'a Service>, ours: &[u16]) -> Vec<Conflict> {
    let taken: Vec<(&Service, &Port)> = services
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
        .filter(|(_, port)| !ours.contains(&port.number) && is_taken(port.number))
        .collect();
    if taken.is_empty() {
        return Vec::new();
    }
    let holders = Holders::look();
    taken
        .into_iter()
        // Whoever is seen to have ended meanwhile is no conflict.
        .filter(|(_, port)| holders.pid_of(port.number).is_some() || is_taken(port.number))
        .map(|(service, port)| Conflict::of(service, port, holders.clone()))
        .collect()
}

/// Whether something listens on the port at an address that a client of `localhost` could reach: loopback or any
/// address, IPv4 or IPv6. Tried by binding, never by listening: nothing becomes reachable for a moment.
pub fn is_taken(port: u16) -> bool {
    let addresses: [IpAddr; 4] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    addresses.into_iter().any(|address| {
        let bound = bind(SocketAddr::new(address, port));
        bound.is_err_and(|error| matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied))
    })
}

fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Without it, connections that are still winding down would count.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// All conflicts in one error, with the lines that solve them.
pub fn conflict_failure(stack: &Stack, conflicts: &[Conflict], asked: usize) -> anyhow::Error {
    let rows = conflicts
        .iter()
        .map(|conflict| vec![conflict.port.to_string(), conflict.service.clone(), conflict.holder.describe()]);
    let verb = if conflicts.len() == 1 { "is" } else { "are" };
    let title = format!("{} of {} {verb} taken, nothing was started", conflicts.len(), units::plural(asked, "port"));
    let failure = Failure::new(Exit::Failed, title).body(table::columns(rows.collect(), &[]));
    let (fixable, fixed): (Vec<_>, Vec<_>) =
        conflicts.iter().partition(|conflict| conflict.source != Source::Environment);
    let mut hint = String::new();
    if !fixable.is_empty() {
        let stack_option =
            if stack.env_file.as_os_str() == ".env" { String::new() } else { format!(" --stack {}", stack.name) };
        hint.push_str(&format!(
            "`cargo xtask ports --fix{stack_option}` writes free ones into {}:\n",
            stack.env_file.display()
        ));
        let lines: Vec<String> = fix::proposals(stack, &fixable)
            .iter()
            .map(|proposal| format!("{}={}", proposal.variable, proposal.to))
            .collect();
        hint.push_str(&tools::indented(&lines.join("\n")));
    }
    for conflict in fixed {
        hint.push_str(&format!("`{}` is set in the environment: set a free port there\n", conflict.variable));
    }
    failure.hint(hint.trim_end()).into()
}
