//! The stack as every other room sees it: each default filled, each name leading somewhere, valid by construction.

#![expect(
    dead_code,
    reason = "the model holds the whole inventory; what only rendering and data verbs read is not read yet"
)]

use std::path::PathBuf;

use super::fault::nearest;
use super::images::Image;
use super::manifest::{Backup, Healthcheck, Network, Pool, Production, Profile, Protocol, Resources};
use super::overrides::Source;

#[derive(Debug, Clone)]
pub struct Stack {
    pub name: String,
    pub description: String,
    /// `development` or `production`, and the variable that says so.
    pub environment: String,
    pub environment_variable: String,
    pub recommended_memory_gib: u32,
    /// Relative to the repository's root.
    pub manifest_file: PathBuf,
    pub env_file: PathBuf,
    pub services: Vec<Service>,
    pub applications: Vec<Application>,
    pub network: Network,
    /// The Compose project that a person asks for.
    pub project: Option<String>,
    pub pool: Option<Pool>,
    pub backup: Backup,
    pub production: Option<Production>,
    /// Every variable that the stack reads, in the order of `.env.example`.
    pub settings: Vec<Setting>,
}

/// One thing that runs in the stack.
#[derive(Debug, Clone)]
pub struct Service {
    /// As Compose knows it: `postgres-learning`.
    pub name: String,
    /// As a person says it: `learning`.
    pub short_name: String,
    pub purpose: String,
    /// `None`: a core service, started always.
    pub profile: Option<Profile>,
    pub image: Image,
    /// At least one; the first is the one that clients use.
    pub ports: Vec<Port>,
    pub volume: Option<String>,
    pub resources: Option<Resources>,
    pub healthcheck: Option<Healthcheck>,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Postgres(Postgres),
    Redis(Redis),
    PubSub(PubSub),
    Tool(Tool),
}

#[derive(Debug, Clone)]
pub struct Port {
    pub number: u16,
    pub container: u16,
    pub variable: String,
    pub source: Source,
    pub purpose: String,
}

#[derive(Debug, Clone)]
pub struct Postgres {
    pub major: u32,
    pub user: String,
    pub password: String,
    pub database: String,
    pub config: ConfigFile,
    pub url_schema: Option<String>,
    pub production_schema: Option<String>,
    pub migrations: Vec<PathBuf>,
    pub seeds: PathBuf,
    pub references: Vec<Reference>,
}

/// A server's configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Relative to the repository's root.
    pub path: PathBuf,
    /// Of its text.
    pub hash: String,
}

/// A column here whose values are those of a column in a neighbour database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub table: String,
    pub column: String,
    pub to_database: String,
    pub to_table: String,
    pub to_column: String,
}

#[derive(Debug, Clone)]
pub struct Redis {
    /// The least major version.
    pub major: u32,
    pub config: ConfigFile,
    pub purposes: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct PubSub {
    pub project: String,
    pub topics: Vec<Topic>,
    pub subscriptions: Vec<Subscription>,
}

#[derive(Debug, Clone)]
pub struct Topic {
    pub id: String,
    pub events: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Subscription {
    pub id: String,
    pub topic: String,
    pub application: String,
    pub ordering: bool,
}

#[derive(Debug, Clone)]
pub struct Tool {
    pub environment: Vec<(String, String)>,
}

/// One of the team's own programs.
#[derive(Debug, Clone)]
pub struct Application {
    pub name: String,
    pub purpose: String,
    pub protocol: Protocol,
    pub port: Option<u16>,
    /// The short name of the database it owns.
    pub database: Option<String>,
    pub redis: bool,
    pub pubsub: bool,
    pub calls: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// One variable: what it says, and who said so.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub default: String,
    pub source: Source,
    /// What it is, in a word or two.
    pub word: String,
    pub group: SettingGroup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingGroup {
    Environment,
    Login,
    Port,
    Tool,
    Application,
    Image,
    Compose,
}

impl Stack {
    /// Services that start when nothing else is asked for.
    pub fn core(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.profile.is_none())
    }

    pub fn databases(&self) -> impl Iterator<Item = (&Service, &Postgres)> {
        self.services.iter().filter_map(|service| match &service.kind {
            Kind::Postgres(postgres) => Some((service, postgres)),
            _ => None,
        })
    }

    /// The service of that name, long or short.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name || service.short_name == name)
    }

    pub fn application(&self, name: &str) -> Option<&Application> {
        self.applications.iter().find(|application| application.name == name)
    }

    pub fn service_names(&self) -> Vec<&str> {
        self.services.iter().map(|service| service.short_name.as_str()).collect()
    }

    /// The image that a service runs, as the engine is asked for it.
    pub fn image_of(&self, service: &Service) -> String {
        let variable = &service.image.variable;
        let setting = self.settings.iter().find(|setting| setting.name == *variable);
        setting.map_or_else(|| service.image.to_string(), |setting| setting.value.clone())
    }

    /// The same stack with another major version of PostgreSQL, run from that image.
    pub fn with_postgres(&self, major: u32, image: &Image, reference: &str) -> Stack {
        let mut stack = self.clone();
        for service in &mut stack.services {
            if let Kind::Postgres(postgres) = &mut service.kind {
                postgres.major = major;
                service.image = image.clone();
            }
        }
        for setting in stack.settings.iter_mut().filter(|setting| setting.name == image.variable) {
            setting.value = reference.to_owned();
            setting.default = image.to_string();
        }
        stack
    }

    /// The first service that does what the predicate asks for.
    pub fn find(&self, wanted: impl Fn(&Kind) -> bool) -> Option<&Service> {
        self.services.iter().find(|service| wanted(&service.kind))
    }
}

impl Service {
    pub fn port(&self) -> &Port {
        &self.ports[0]
    }

    pub fn postgres(&self) -> Option<&Postgres> {
        match &self.kind {
            Kind::Postgres(postgres) => Some(postgres),
            _ => None,
        }
    }
}

/// The locale arguments of initdb, the same wherever a server runs: the built-in provider sorts alike on every platform;
/// servers before 17 have only the C library's.
pub fn initdb_locale(major: u32) -> Vec<&'static str> {
    match major {
        17.. => vec!["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
        _ => vec!["--locale=C.UTF-8"],
    }
}

/// A name that leads nowhere, with the nearest that does.
#[derive(Debug)]
pub struct UnknownName {
    pub nearest: Option<String>,
    pub known: Vec<String>,
}

impl UnknownName {
    pub fn new<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> UnknownName {
        UnknownName {
            nearest: nearest(written, known.clone()).map(str::to_owned),
            known: known.into_iter().map(str::to_owned).collect(),
        }
    }
}
