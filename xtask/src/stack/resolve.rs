//! Manifest, pins and overrides → [`Stack`], or every fault that stands in the way.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::IndexMap;

use super::checks::{FIRST_UNPRIVILEGED_PORT, check_variable_names, is_usable_port};
use super::fault::{Fault, Faults, nearest};
use super::images::{self, IMAGES_FILE, Image};
use super::manifest::{self, Manifest};
use super::model::*;
use super::overrides::{Overrides, Source};
use super::repository::Repository;
use super::toml_file::TomlFile;

/// Pub/Sub refuses shorter resource ids.
const SHORTEST_TOPIC: usize = 3;
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

/// Joins what is written; see `checks` for what it must keep to.
pub struct Resolver<'a> {
    pub repository: &'a Repository,
    pub file: &'a TomlFile,
    pub images: IndexMap<String, Image>,
    pub overrides: &'a Overrides,
    pub faults: &'a mut Faults,
    pub settings: Vec<Setting>,
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
        let (project, project_source) =
            self.setting("COMPOSE_PROJECT_NAME", name, "what names of containers begin with", SettingGroup::Compose);
        self.check_project(&project, &project_source);
        let compose_file = format!("docker/{name}/compose.yaml");
        self.setting("COMPOSE_FILE", &compose_file, "the generated file", SettingGroup::Compose);
        let mut network = manifest.network.clone();
        if let Some(subnet) = &manifest.network.subnet {
            let (subnet, source) =
                self.setting("NETWORK_SUBNET", subnet, "addresses of the stack's network", SettingGroup::Compose);
            self.check_subnet(&subnet, &source);
            network.subnet = Some(subnet);
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
        self.check_backup(manifest.backup);
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
            network,
            project: (project_source != Source::Manifest).then_some(project),
            pool: manifest.postgres.pool,
            backup: manifest.backup,
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
        let config = self.config_file("postgres.config", &shared.config);
        self.check_resources("postgres.resources", shared.resources);
        self.check_pool(shared.pool);

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
                    config: config.clone(),
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
        if let Some(image) = &image
            && !self.file.stands_in("redis.major")
            && image
                .tag
                .split(['.', '-'])
                .next()
                .and_then(|major| major.parse().ok())
                .is_some_and(|major: u32| major < written.major)
        {
            let found = format!("`{}`, whose tag is {}", written.image, image.tag);
            self.fault("redis.image", found, &format!("an image of Redis {} or later", written.major), None);
        }
        let config = self.config_file("redis.config", &written.config);
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
            kind: Kind::Redis(Redis { major: written.major, config, purposes: written.purposes.clone() }),
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

    pub fn unknown<'k>(&mut self, key: &str, written: &str, known: impl Iterator<Item = &'k str> + Clone, what: &str) {
        let near = nearest(written, known.clone()).map(|name| format!("\"{name}\""));
        let expected = format!("a known {what}: {}", known.collect::<Vec<_>>().join(", "));
        self.fault(key, format!("`{written}`"), &expected, near);
    }

    pub fn fault(&mut self, key: &str, found: String, expected: &str, fix: Option<String>) {
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
    pub fn override_fault(&self, variable: &str, key: &str, source: &Source) -> Fault {
        let (file, line, key) = match source {
            Source::Manifest => (self.file.path.clone(), self.file.line_of(key), key),
            Source::EnvFile { path, line } => (path.clone(), Some(*line), variable),
            Source::Environment => (Path::new("").to_owned(), None, variable),
        };
        Fault { file, line, key: key.to_owned(), found: String::new(), expected: String::new(), fix: None }
    }
}

pub fn screaming(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
