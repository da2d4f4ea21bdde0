//! Manifest, pins and overrides → [`Stack`], or every fault that stands in the way.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use indexmap::IndexMap;

use super::fault::{Fault, Faults, is_secret, nearest};
use super::images::{self, IMAGES_FILE, Image};
use super::manifest::{self, Manifest};
use super::model::*;
use super::overrides::{Overrides, Source};
use super::repository::Repository;
use super::toml_file::TomlFile;

/// Below this, only root may listen (`net.ipv4.ip_unprivileged_port_start`).
const FIRST_UNPRIVILEGED_PORT: i64 = 1024;
/// PostgreSQL cuts identifiers at 63 bytes without a word.
const LONGEST_IDENTIFIER: usize = 63;
/// Pub/Sub refuses shorter resource ids.
const SHORTEST_TOPIC: usize = 3;
/// Folders that an instance has beside those of its services.
const RESERVED_NAMES: [&str; 4] = ["run", "removed", "lock", "instance"];
/// Names that PostgreSQL keeps for itself.
const RESERVED_IDENTIFIERS: [&str; 4] = ["template0", "template1", "public", "none"];
/// Long enough for any name here, short enough for socket paths and host names.
const LONGEST_NAME: usize = 40;

/// The stack called `name`, with `process` as the process environment.
pub fn load(repository: &Repository, name: &str, process: &BTreeMap<String, String>) -> Result<Stack, Faults> {
    let mut faults = Faults::default();
    let images = images::read(&repository.root, &mut faults);
    let overrides = Overrides::read(repository, name, process, &mut faults);
    let file = TomlFile::read(&repository.root, &repository.manifest_of(name), &mut faults);
    let stack = file.and_then(|file| {
        let manifest: Manifest = file.parse(&mut faults)?;
        let resolver =
            Resolver { repository, file: &file, images, overrides: &overrides, faults: &mut faults, settings: vec![] };
        Some(resolver.stack(&manifest, name))
    });
    match stack {
        Some(mut stack) => {
            check_variable_names(repository, &stack, &overrides, &mut faults);
            if !faults.0.is_empty() {
                return Err(faults);
            }
            stack.settings.sort_by_key(|setting| setting.group as u8);
            Ok(stack)
        }
        None => Err(faults),
    }
}

struct Resolver<'a> {
    repository: &'a Repository,
    file: &'a TomlFile,
    images: IndexMap<String, Image>,
    overrides: &'a Overrides,
    faults: &'a mut Faults,
    settings: Vec<Setting>,
}

impl Resolver<'_> {
    fn stack(mut self, manifest: &Manifest, name: &str) -> Stack {
        if manifest.stack.name != name {
            self.fault(
                "stack.name",
                format!("`{}`", manifest.stack.name),
                "the file's own name",
                Some(format!("\"{name}\"")),
            );
        }
        if let Some(subnet) = &manifest.network.subnet
            && !is_ipv4_cidr(subnet)
        {
            self.fault(
                "network.subnet",
                format!("`{subnet}`"),
                "an IPv4 network in CIDR form",
                Some("\"172.20.0.0/16\"".into()),
            );
        }
        let environment_variable = manifest.stack.environment_variable.clone();
        let environment = self
            .setting(&environment_variable, &manifest.stack.environment, "where this runs", SettingGroup::Environment)
            .0;

        let mut services = self.databases(manifest, name);
        services.extend(manifest.redis.as_ref().and_then(|redis| self.redis(redis)));
        services.extend(manifest.pubsub.as_ref().and_then(|pubsub| self.pubsub(pubsub, manifest)));
        for (tool, written) in &manifest.tools {
            services.extend(self.tool(tool, written));
        }
        let applications = self.applications(manifest);
        self.check_uniqueness(manifest, &services, &applications);
        if services.is_empty() {
            self.fault("databases", "none".into(), "at least one service", None);
        }
        Stack {
            name: name.to_owned(),
            description: manifest.stack.description.clone(),
            environment,
            environment_variable,
            recommended_memory_gib: manifest.stack.recommended_memory_gib,
            manifest_file: self.file.path.clone(),
            env_file: self.overrides.env_file.path.clone(),
            services,
            applications,
            network: manifest.network.clone(),
            pool: manifest.postgres.pool,
            production: manifest.production.clone(),
            settings: self.settings,
        }
    }

    fn databases(&mut self, manifest: &Manifest, stack: &str) -> Vec<Service> {
        let shared = &manifest.postgres;
        let image = self.image("postgres.image", &shared.image);
        if let Some(image) = &image
            && !self.file.stands_in("postgres.major")
            && image.tag.split(['.', '-']).next() != Some(&shared.major.to_string())
        {
            let found = format!("`{}`, whose tag is {}", shared.image, image.tag);
            self.fault("postgres.image", found, &format!("an image of PostgreSQL {}", shared.major), None);
        }
        let (user, user_source) =
            self.setting("POSTGRES_USER", &shared.user, "superuser of every database", SettingGroup::Login);
        self.check_identifier("postgres.user", "POSTGRES_USER", &user, &user_source);
        let (password, source) =
            self.setting("POSTGRES_PASSWORD", &shared.password, "the superuser's password", SettingGroup::Login);
        if (password.is_empty() && !self.file.stands_in("postgres.password")) || password.chars().any(char::is_control)
        {
            // The value itself stays out of the report.
            let fault = self.override_fault("POSTGRES_PASSWORD", "postgres.password", &source);
            self.faults.push(Fault {
                found: "an empty password, or one with control characters".into(),
                expected: "a password".into(),
                ..fault
            });
        }
        self.check_file("postgres.config", &shared.config);
        self.check_resources("postgres.resources", shared.resources);

        let mut services = Vec::new();
        for (short_name, written) in &manifest.databases {
            let key = format!("databases.{short_name}");
            self.check_name(&key, short_name);
            let database = match &written.database_variable {
                Some(variable) => {
                    let (database, source) =
                        self.setting(variable, &written.database, "the database's name", SettingGroup::Login);
                    self.check_identifier(&format!("{key}.database"), variable, &database, &source);
                    database
                }
                None => {
                    self.check_identifier(&format!("{key}.database"), "", &written.database, &Source::Manifest);
                    written.database.clone()
                }
            };
            let default_variable = format!("POSTGRES_{}_PORT", screaming(short_name));
            let variable = written.port_variable.as_ref().unwrap_or(&default_variable);
            let port =
                self.port(&format!("{key}.port"), written.port, 5432, variable, &format!("{short_name}: PostgreSQL"));
            if let Some(schema) = &written.production_schema {
                self.check_identifier(&format!("{key}.production-schema"), "", schema, &Source::Manifest);
            }
            let references = self.references(&key, written, manifest);
            let (Some(image), Some(port)) = (image.clone(), port) else { continue };
            let folder = format!("config/{stack}/{short_name}");
            services.push(Service {
                name: written.service.clone().unwrap_or_else(|| format!("postgres-{short_name}")),
                short_name: short_name.clone(),
                purpose: written.purpose.clone(),
                profile: None,
                image,
                ports: vec![port],
                volume: Some(written.volume.clone()),
                resources: shared.resources,
                healthcheck: shared.healthcheck,
                kind: Kind::Postgres(Postgres {
                    major: shared.major,
                    user: user.clone(),
                    password: password.clone(),
                    database,
                    config: shared.config.clone().into(),
                    url_schema: written.url_schema.clone(),
                    production_schema: written.production_schema.clone(),
                    migrations: match &written.migrations {
                        Some(folders) => folders.iter().map(Into::into).collect(),
                        None => vec![format!("{folder}/migrations").into()],
                    },
                    seeds: written.seeds.clone().unwrap_or_else(|| format!("{folder}/seeds")).into(),
                    references,
                }),
            });
        }
        services
    }

    /// `table.column = "database.table.column"`.
    fn references(&mut self, key: &str, written: &manifest::Database, manifest: &Manifest) -> Vec<Reference> {
        let mut references = Vec::new();
        for (from, to) in &written.references {
            let key = format!("{key}.references.{from}");
            let (from_parts, to_parts) = (from.split('.').collect::<Vec<_>>(), to.split('.').collect::<Vec<_>>());
            match (&from_parts[..], &to_parts[..]) {
                ([table, column], [database, to_table, to_column]) => {
                    if !manifest.databases.contains_key(*database) {
                        let known = manifest.databases.keys().map(String::as_str);
                        self.unknown(&key, database, known, "database");
                    }
                    references.push(Reference {
                        table: (*table).into(),
                        column: (*column).into(),
                        to_database: (*database).into(),
                        to_table: (*to_table).into(),
                        to_column: (*to_column).into(),
                    });
                }
                _ => self.fault(
                    &key,
                    format!("`{from}` = `{to}`"),
                    "`\"table.column\" = \"database.table.column\"`",
                    Some("\"learning_sessions.user_id\" = \"user.users.id\"".into()),
                ),
            }
        }
        references
    }

    fn redis(&mut self, written: &manifest::Redis) -> Option<Service> {
        let image = self.image("redis.image", &written.image);
        self.check_file("redis.config", &written.config);
        self.check_resources("redis.resources", written.resources);
        let port = self.port("redis.port", written.port, 6379, &written.port_variable, "Redis");
        Some(Service {
            name: "redis".into(),
            short_name: "redis".into(),
            purpose: written.purposes.join(", "),
            profile: None,
            image: image?,
            ports: vec![port?],
            volume: Some(written.volume.clone()),
            resources: written.resources,
            healthcheck: written.healthcheck,
            kind: Kind::Redis(Redis {
                major: written.major,
                config: written.config.clone().into(),
                purposes: written.purposes.clone(),
            }),
        })
    }

    fn pubsub(&mut self, written: &manifest::PubSub, manifest: &Manifest) -> Option<Service> {
        let image = self.image("pubsub.image", &written.image);
        let port = self.port("pubsub.port", written.port, 8085, &written.port_variable, "Pub/Sub emulator");
        self.check_resources("pubsub.resources", written.resources);
        let project =
            self.setting("PUBSUB_PROJECT_ID", &written.project, "project of the emulator", SettingGroup::Login).0;
        for topic in written.topics.keys() {
            let well = topic.len() >= SHORTEST_TOPIC && topic.starts_with(|first: char| first.is_ascii_alphabetic());
            if !well {
                let expected =
                    format!("a topic id that begins with a letter and has at least {SHORTEST_TOPIC} characters");
                self.fault(&format!("pubsub.topics.{topic}"), format!("`{topic}`"), &expected, None);
            }
        }
        for (id, subscription) in &written.subscriptions {
            let key = format!("pubsub.subscriptions.{id}");
            if !written.topics.contains_key(&subscription.topic) {
                self.unknown(
                    &format!("{key}.topic"),
                    &subscription.topic,
                    written.topics.keys().map(String::as_str),
                    "topic",
                );
            }
            if !manifest.applications.contains_key(&subscription.application) {
                let known = manifest.applications.keys().map(String::as_str);
                self.unknown(&format!("{key}.application"), &subscription.application, known, "application");
            }
        }
        Some(Service {
            name: "pubsub".into(),
            short_name: "pubsub".into(),
            purpose: "event bus".into(),
            profile: None,
            image: image?,
            ports: vec![port?],
            volume: None,
            resources: written.resources,
            healthcheck: None,
            kind: Kind::PubSub(PubSub {
                project,
                topics: written
                    .topics
                    .iter()
                    .map(|(id, topic)| Topic { id: id.clone(), events: topic.events.clone() })
                    .collect(),
                subscriptions: written
                    .subscriptions
                    .iter()
                    .map(|(id, subscription)| Subscription {
                        id: id.clone(),
                        topic: subscription.topic.clone(),
                        application: subscription.application.clone(),
                        ordering: subscription.ordering,
                    })
                    .collect(),
            }),
        })
    }

    fn tool(&mut self, name: &str, written: &manifest::Tool) -> Option<Service> {
        let key = format!("tools.{name}");
        self.check_name(&key, name);
        let image = self.image(&format!("{key}.image"), &written.image);
        self.check_resources(&format!("{key}.resources"), written.resources);
        if written.ports.is_empty() {
            self.fault(&format!("{key}.ports"), "none".into(), "at least one port", None);
        }
        let ports: Vec<Port> = written
            .ports
            .iter()
            .filter_map(|port| {
                let word = format!("{name}: {}", port.purpose);
                self.port(&format!("{key}.ports"), port.port, port.container_port, &port.variable, &word)
            })
            .collect();
        let environment = written
            .environment
            .iter()
            .map(|(variable, value)| {
                (variable.clone(), self.setting(variable, value, &format!("{name}'s own"), SettingGroup::Tool).0)
            })
            .collect();
        (ports.len() == written.ports.len() && !ports.is_empty()).then_some(())?;
        Some(Service {
            name: name.to_owned(),
            short_name: name.to_owned(),
            purpose: written.purpose.clone(),
            profile: Some(written.profile),
            image: image?,
            ports,
            volume: written.volume.clone(),
            resources: written.resources,
            healthcheck: None,
            kind: Kind::Tool(Tool { environment }),
        })
    }

    fn applications(&mut self, manifest: &Manifest) -> Vec<Application> {
        let mut applications = Vec::new();
        for (name, written) in &manifest.applications {
            let key = format!("applications.{name}");
            self.check_name(&key, name);
            if let Some(database) = &written.database
                && !manifest.databases.contains_key(database)
            {
                self.unknown(
                    &format!("{key}.database"),
                    database,
                    manifest.databases.keys().map(String::as_str),
                    "database",
                );
            }
            if written.redis && manifest.redis.is_none() {
                self.fault(&format!("{key}.redis"), "true".into(), "a `[redis]` table in the manifest", None);
            }
            if written.pubsub && manifest.pubsub.is_none() {
                self.fault(&format!("{key}.pubsub"), "true".into(), "a `[pubsub]` table in the manifest", None);
            }
            for called in &written.calls {
                if !manifest.applications.contains_key(called) {
                    let known = manifest.applications.keys().map(String::as_str);
                    self.unknown(&format!("{key}.calls"), called, known, "application");
                }
            }
            let port = written.port.and_then(|port| self.port_number(&format!("{key}.port"), port));
            let environment = written
                .environment
                .iter()
                .map(|(variable, value)| {
                    (
                        variable.clone(),
                        self.setting(variable, value, &format!("{name}'s own"), SettingGroup::Application).0,
                    )
                })
                .collect();
            applications.push(Application {
                name: name.clone(),
                purpose: written.purpose.clone(),
                protocol: written.protocol,
                port,
                database: written.database.clone(),
                redis: written.redis,
                pubsub: written.pubsub,
                calls: written.calls.clone(),
                environment,
            });
        }
        applications
    }

    /// Ports, service names, volumes and variables must each be one thing's alone.
    fn check_uniqueness(&mut self, manifest: &Manifest, services: &[Service], applications: &[Application]) {
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

    /// A variable's value in effect, noted among the settings.
    fn setting(&mut self, name: &str, default: &str, word: &str, group: SettingGroup) -> (String, Source) {
        let (value, source) = match self.overrides.get(name) {
            Some((value, source)) => (value.to_owned(), source),
            None => (default.to_owned(), Source::Manifest),
        };
        if !self.settings.iter().any(|setting| setting.name == name) {
            self.settings.push(Setting {
                name: name.to_owned(),
                value: value.clone(),
                default: default.to_owned(),
                source: source.clone(),
                word: word.to_owned(),
                group,
            });
        }
        (value, source)
    }

    fn port(&mut self, key: &str, written: i64, container: i64, variable: &str, word: &str) -> Option<Port> {
        // The manifest's own port is checked even where it is overridden: it is everybody's default.
        let default = self.port_number(key, written);
        let container = u16::try_from(container).ok().filter(|port| *port > 0);
        if container.is_none() {
            self.fault(key, "a container port that is none".into(), "a port from 1 to 65535", None);
        }
        let (value, source) = self.setting(variable, &written.to_string(), word, SettingGroup::Port);
        let number = match &source {
            Source::Manifest => default,
            _ => match value.trim().parse::<i64>().ok().filter(|number| is_usable_port(*number)) {
                Some(number) => u16::try_from(number).ok(),
                None => {
                    let fault = self.override_fault(variable, key, &source);
                    self.faults.push(Fault {
                        found: format!("`{value}`"),
                        expected: format!("a port from {FIRST_UNPRIVILEGED_PORT} to {}", u16::MAX),
                        fix: Some(format!("{variable}={written}")),
                        ..fault
                    });
                    None
                }
            },
        };
        Some(Port {
            number: number?,
            container: container?,
            variable: variable.to_owned(),
            source,
            purpose: word.to_owned(),
        })
    }

    fn port_number(&mut self, key: &str, written: i64) -> Option<u16> {
        if is_usable_port(written) {
            return u16::try_from(written).ok();
        }
        let expected = match (1..=i64::from(u16::MAX)).contains(&written) {
            true => format!("a port from {FIRST_UNPRIVILEGED_PORT} to {}; below, only root may listen", u16::MAX),
            false => format!("a port from {FIRST_UNPRIVILEGED_PORT} to {}", u16::MAX),
        };
        let fix = (1..FIRST_UNPRIVILEGED_PORT).contains(&written).then(|| format!("port = {}", written + 10_000));
        self.fault(key, written.to_string(), &expected, fix);
        None
    }

    fn image(&mut self, key: &str, name: &str) -> Option<Image> {
        let Some(mut image) = self.images.get(name).cloned() else {
            if !self.images.is_empty() {
                let known: Vec<String> = self.images.keys().cloned().collect();
                self.unknown(key, name, known.iter().map(String::as_str), &format!("image of {IMAGES_FILE}"));
            }
            return None;
        };
        let variable = image.variable.clone();
        let (reference, source) = self.setting(
            &variable,
            &image.to_string(),
            &format!("image of {key}", key = key.trim_end_matches(".image")),
            SettingGroup::Image,
        );
        if source != Source::Manifest {
            let (named, digest) =
                reference.split_once('@').map_or((reference.as_str(), ""), |(name, digest)| (name, digest));
            let (name, tag) = named.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((named, "latest"));
            image = Image { name: name.into(), tag: tag.into(), digest: digest.into(), variable };
        }
        Some(image)
    }

    fn check_file(&mut self, key: &str, path: &str) {
        if !self.repository.root.join(path).is_file() {
            self.fault(key, format!("`{path}`, which is not there"), "a file, from the repository's root", None);
        }
    }

    fn check_resources(&mut self, key: &str, resources: Option<manifest::Resources>) {
        let Some(resources) = resources else { return };
        if resources.cpu_reservation > resources.cpu_limit || resources.cpu_limit <= 0.0 {
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

    fn check_name(&mut self, key: &str, name: &str) {
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

    fn check_identifier(&mut self, key: &str, variable: &str, name: &str, source: &Source) {
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

    fn unknown<'k>(&mut self, key: &str, written: &str, known: impl Iterator<Item = &'k str> + Clone, what: &str) {
        let near = nearest(written, known.clone()).map(|name| format!("\"{name}\""));
        let expected = format!("a known {what}: {}", known.collect::<Vec<_>>().join(", "));
        self.fault(key, format!("`{written}`"), &expected, near);
    }

    fn fault(&mut self, key: &str, found: String, expected: &str, fix: Option<String>) {
        if self.file.stands_in(key) {
            return;
        }
        self.faults.push(Fault {
            file: self.file.path.clone(),
            line: self.file.line_of(key),
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
            fix,
        });
    }

    /// A fault at the place where the value in effect was written: manifest, `.env` or the environment.
    fn override_fault(&self, variable: &str, key: &str, source: &Source) -> Fault {
        let (file, line, key) = match source {
            Source::Manifest => (self.file.path.clone(), self.file.line_of(key), key),
            Source::EnvFile { path, line } => (path.clone(), Some(*line), variable),
            Source::Environment => (Path::new("").to_owned(), None, variable),
        };
        Fault { file, line, key: key.to_owned(), found: String::new(), expected: String::new(), fix: None }
    }
}

/// A name in `.env` that is nearly one of ours, or one of another stack's, does nothing: worse than an error.
fn check_variable_names(repository: &Repository, stack: &Stack, overrides: &Overrides, faults: &mut Faults) {
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

fn screaming(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn is_usable_port(port: i64) -> bool {
    (FIRST_UNPRIVILEGED_PORT..=i64::from(u16::MAX)).contains(&port)
}

fn is_ipv4_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<std::net::Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)
    })
}
