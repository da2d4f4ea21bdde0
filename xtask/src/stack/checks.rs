//! What a valid stack must keep to: names, files, limits, and that each port, name and volume is one thing's alone.

use std::collections::HashMap;

use super::fault::{Fault, Faults, is_secret, nearest};
use super::manifest::{self, Manifest};
use super::model::{Application, ConfigFile, Kind, Service, Stack};
use super::overrides::{Overrides, Source};
use super::repository::Repository;
use super::resolve::{Resolver, screaming};
use crate::files;

/// Below this, only root may listen (`net.ipv4.ip_unprivileged_port_start`).
pub const FIRST_UNPRIVILEGED_PORT: i64 = 1024;
/// PostgreSQL cuts identifiers at 63 bytes without a word.
const LONGEST_IDENTIFIER: usize = 63;
/// Folders that an instance has beside those of its services.
const RESERVED_NAMES: [&str; 4] = ["run", "removed", "lock", "instance"];
/// Names that PostgreSQL keeps for itself.
const RESERVED_IDENTIFIERS: [&str; 4] = ["template0", "template1", "public", "none"];
/// Long enough for any name here, short enough for socket paths and host names.
const LONGEST_NAME: usize = 40;

impl Resolver<'_> {
    /// Ports, service names, volumes and variables must each be one thing's alone.
    pub fn check_uniqueness(&mut self, manifest: &Manifest, services: &[Service], applications: &[Application]) {
        let mut ports: HashMap<u16, String> = HashMap::new();
        let mut variables: HashMap<String, String> = HashMap::new();
        let mut names: HashMap<String, String> = HashMap::new();
        let mut volumes: HashMap<String, String> = HashMap::new();
        for service in services {
            let key = self.key_of(service, manifest);
            for port in &service.ports {
                if let Some(other) = ports.insert(port.number, service.short_name.clone()) {
                    let at = self.override_fault(&port.variable, &format!("{key}.port"), &port.source);
                    let free = (port.number..=u16::MAX).find(|free| !ports.contains_key(free));
                    self.faults.push(Fault {
                        found: format!("port {}, which `{other}` has as well", port.number),
                        expected: "a port of its own".into(),
                        fix: free.map(|free| {
                            format!("{}={free} in {}", port.variable, self.overrides.env_file.path.display())
                        }),
                        ..at
                    });
                }
                if let Some(other) = variables.insert(port.variable.clone(), service.short_name.clone()) {
                    let found = format!("`{}`, which `{other}` has as well", port.variable);
                    self.fault(&format!("{key}.port-variable"), found, "a variable of its own", None);
                }
            }
            for name in [&service.name, &service.short_name] {
                if let Some(other) = names.insert(name.clone(), service.name.clone())
                    && other != service.name
                {
                    self.fault(
                        &key,
                        format!("the name `{name}`, which `{other}` has as well"),
                        "a name of its own",
                        None,
                    );
                }
            }
            if let Some(volume) = &service.volume
                && let Some(other) = volumes.insert(volume.clone(), service.short_name.clone())
            {
                let found = format!("`{volume}`, which `{other}` has as well");
                self.fault(&format!("{key}.volume"), found, "a volume of its own", None);
            }
        }
        for application in applications {
            if let Some(other) = names.insert(application.name.clone(), application.name.clone()) {
                let found = format!("the name `{}`, which the service `{other}` has as well", application.name);
                self.fault(&format!("applications.{}", application.name), found, "a name of its own", None);
            }
            let Some(port) = application.port else { continue };
            if let Some(other) = ports.insert(port, application.name.clone()) {
                let found = format!("port {port}, which `{other}` has as well");
                self.fault(&format!("applications.{}.port", application.name), found, "a port of its own", None);
            }
        }
    }

    fn key_of(&self, service: &Service, manifest: &Manifest) -> String {
        match &service.kind {
            Kind::Postgres(_) => format!("databases.{}", service.short_name),
            Kind::Tool(_) if manifest.tools.contains_key(&service.short_name) => {
                format!("tools.{}", service.short_name)
            }
            _ => service.short_name.clone(),
        }
    }

    /// A server's configuration file, with a hash of its text: another text needs another start.
    pub fn config_file(&mut self, key: &str, path: &str) -> ConfigFile {
        let text = match files::read_text(&self.repository.root.join(path)) {
            Ok(text) => text,
            Err(problem) => {
                let found = format!("`{path}`: {}", problem.found);
                self.fault(key, found, "a text file, from the repository's root", None);
                String::new()
            }
        };
        ConfigFile { path: path.into(), hash: files::short_hash([text.as_str()]) }
    }

    /// Compose takes lower-case letters, digits, `-` and `_` for a project.
    pub fn check_project(&mut self, name: &str, source: &Source) {
        let is_first = |first: char| first.is_ascii_lowercase() || first.is_ascii_digit();
        let is_inner = |part: char| is_first(part) || part == '-' || part == '_';
        if !name.starts_with(is_first) || !name.chars().all(is_inner) {
            let fault = self.override_fault("COMPOSE_PROJECT_NAME", "stack.name", source);
            let expected = "a name of lower-case letters, digits, `-` and `_`".into();
            self.faults.push(Fault { found: format!("`{name}`"), expected, ..fault });
        }
    }

    pub fn check_subnet(&mut self, subnet: &str, source: &Source) {
        if !is_ipv4_cidr(subnet) {
            let fault = self.override_fault("NETWORK_SUBNET", "network.subnet", source);
            let expected = "an IPv4 network in CIDR form".into();
            self.faults.push(Fault {
                found: format!("`{subnet}`"),
                expected,
                fix: Some("\"172.20.0.0/16\"".into()),
                ..fault
            });
        }
    }

    pub fn check_resources(&mut self, key: &str, resources: Option<manifest::Resources>) {
        let Some(resources) = resources else { return };
        // Not a number fits into nothing.
        let cpu_fits = resources.cpu_limit > 0.0 && resources.cpu_reservation <= resources.cpu_limit;
        if !cpu_fits || resources.cpu_reservation < 0.0 {
            let found = format!(
                "a reservation of {} CPUs within a limit of {}",
                resources.cpu_reservation, resources.cpu_limit
            );
            self.fault(key, found, "a reservation that fits into the limit", None);
        }
        if resources.memory_reservation_mib > resources.memory_limit_mib {
            let found = format!(
                "a reservation of {} MiB within a limit of {} MiB",
                resources.memory_reservation_mib, resources.memory_limit_mib
            );
            self.fault(key, found, "a reservation that fits into the limit", None);
        }
    }

    pub fn check_pool(&mut self, pool: Option<manifest::Pool>) {
        let Some(pool) = pool else { return };
        if pool.max_connections == 0 || pool.min_connections > pool.max_connections {
            let found = format!("{} to {} connections", pool.min_connections, pool.max_connections);
            self.fault("postgres.pool", found, "a largest number that is not below the least, and not 0", None);
        }
    }

    pub fn check_backup(&mut self, backup: manifest::Backup) {
        let manifest::Backup { keep_last, keep_daily, keep_weekly, keep_monthly } = backup;
        if [keep_last, keep_daily, keep_weekly, keep_monthly] == [0; 4] {
            let expected = "at least one number above 0";
            self.fault("backup", "rules that keep nothing".into(), expected, Some("keep-last = 3".into()));
        }
    }

    pub fn check_name(&mut self, key: &str, name: &str) {
        let well = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|part| part.is_ascii_lowercase() || part.is_ascii_digit() || part == '-')
            && name.len() <= LONGEST_NAME;
        if RESERVED_NAMES.contains(&name) {
            let expected = format!("another name: the helper keeps {} for itself", RESERVED_NAMES.join(", "));
            self.fault(key, format!("`{name}`"), &expected, Some(format!("{name}-database")));
            return;
        }
        if !well {
            let folded: String =
                name.to_lowercase().chars().map(|part| if part.is_ascii_alphanumeric() { part } else { '-' }).collect();
            let expected = format!(
                "a name of lower-case letters, digits and `-`, at most {LONGEST_NAME} long, that begins with a letter"
            );
            let fix = folded.starts_with(|first: char| first.is_ascii_lowercase()).then_some(folded);
            self.fault(key, format!("`{name}`"), &expected, fix);
        }
    }

    pub fn check_identifier(&mut self, key: &str, variable: &str, name: &str, source: &Source) {
        let well = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            && name.chars().all(|part| part.is_ascii_lowercase() || part.is_ascii_digit() || part == '_')
            && name.len() <= LONGEST_IDENTIFIER
            && !name.starts_with("pg_")
            && !RESERVED_IDENTIFIERS.contains(&name);
        let stands_in = *source == Source::Manifest && self.file.stands_in(key);
        if !well && !stands_in {
            let fault = self.override_fault(variable, key, source);
            self.faults.push(Fault {
                found: format!("`{name}`"),
                expected: format!(
                    "a PostgreSQL name of lower-case letters, digits and `_`, at most {LONGEST_IDENTIFIER} long, not beginning with `pg_`, and none of {}",
                    RESERVED_IDENTIFIERS.join(", ")
                ),
                ..fault
            });
        }
    }
}

/// A name in `.env` that is nearly one of ours, or one of another stack's, does nothing: worse than an error.
pub fn check_variable_names(repository: &Repository, stack: &Stack, overrides: &Overrides, faults: &mut Faults) {
    let known: Vec<&str> = stack.settings.iter().map(|setting| setting.name.as_str()).collect();
    for assignment in &overrides.assignments {
        let name = assignment.name.as_str();
        if known.contains(&name) || name.starts_with("XTASK_") || name.starts_with("COMPOSE_") {
            continue;
        }
        let fault = Fault {
            file: overrides.env_file.path.clone(),
            line: Some(assignment.line),
            key: name.to_owned(),
            found: format!("`{name}`, which the stack {} does not read", stack.name),
            expected: String::new(),
            fix: None,
        };
        let owner =
            repository.stacks.iter().find(|other| **other != stack.name && reads_variable(repository, other, name));
        if let Some(owner) = owner {
            let expected = format!("variables of {owner} in {}", repository.env_file_of(owner).display());
            faults.push(Fault { expected, ..fault });
        } else if let Some(near) = nearest(name, known.iter().copied()) {
            faults.push(Fault {
                expected: format!("did you mean `{near}`?"),
                fix: Some(format!("{near}={}", if is_secret(near) { "…" } else { &assignment.value })),
                ..fault
            });
        } else if name.starts_with("POSTGRES_") && name.ends_with("_PORT") {
            let ports = known.iter().filter(|known| known.ends_with("_PORT")).copied().collect::<Vec<_>>().join(", ");
            faults.push(Fault { expected: format!("one of: {ports}"), ..fault });
        }
    }
}

/// Whether another stack of the repository reads a login or port variable of that name.
fn reads_variable(repository: &Repository, stack: &str, name: &str) -> bool {
    let Ok(text) = crate::files::read_text(&repository.root.join(repository.manifest_of(stack))) else { return false };
    let Ok(manifest) = toml::from_str::<Manifest>(&text) else { return false };
    manifest.databases.iter().any(|(short_name, database)| {
        let derived = format!("POSTGRES_{}_PORT", screaming(short_name));
        database.port_variable.as_ref().unwrap_or(&derived) == name
            || database.database_variable.as_deref() == Some(name)
    })
}

pub fn is_usable_port(port: i64) -> bool {
    (FIRST_UNPRIVILEGED_PORT..=i64::from(u16::MAX)).contains(&port)
}

fn is_ipv4_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<std::net::Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)
    })
}
