//! `docker/<stack>/compose.yaml`: the stack as a Compose project, usable by plain `docker compose`.
//!
//! Every value that `.env` may override is left to Compose (`${POSTGRES_LEARNING_PORT:-5433}`), so that the committed file
//! is the same on every machine. Written as text: the file is read and reviewed by people, in this order.

use std::fmt::Write;

use super::GeneratedFile;
use crate::stack::model::{Kind, Postgres, Service, initdb_locale};
use crate::stack::{Profile, Stack};

/// Where the official image of PostgreSQL keeps its data: from 18 on in a folder of the major version, so that the volume
/// is mounted one level higher.
const FIRST_MAJOR_WITH_OWN_FOLDER: u32 = 18;
/// Checkpoints of a large database take longer than Docker's ten seconds.
const POSTGRES_GRACE_SECS: u32 = 60;
/// Until then, a failing check does not count: initdb of eight databases on a small machine.
const START_PERIOD_SECS: u32 = 60;

/// On a container: the hash of the configuration file that it mounts.
const CONFIG_LABEL: &str = "cargo-xtask.config";

/// Where the official image mounts its volume.
pub fn volume_target(major: u32) -> &'static str {
    match major {
        FIRST_MAJOR_WITH_OWN_FOLDER.. => "/var/lib/postgresql",
        _ => "/var/lib/postgresql/data",
    }
}

/// The file of a stack, relative to the repository's root.
pub fn path(stack: &str) -> std::path::PathBuf {
    format!("docker/{stack}/compose.yaml").into()
}

/// The file, from a stack without overrides.
pub fn file(stack: &Stack) -> GeneratedFile {
    let mut text = format!(
        "# Generated from {} and config/images.toml by `cargo xtask render`; do not edit.\n\
         # From the repository's root: `docker compose --file docker/{name}/compose.yaml up --detach`, or set COMPOSE_FILE as\n\
         # {env}.example shows. Published ports are on 127.0.0.1 only.\n\n\
         name: ${{COMPOSE_PROJECT_NAME:-{name}}}\n\nservices:\n",
        stack.manifest_file.display(),
        name = stack.name,
        env = stack.env_file.display(),
    );
    for service in &stack.services {
        text.push_str(&service_text(stack, service));
    }
    text.push_str("networks:\n");
    line(&mut text, 1, &format!("{}:", stack.network.name));
    line(&mut text, 2, &format!("driver: {}", stack.network.driver));
    if let Some(subnet) = &stack.network.subnet {
        line(&mut text, 2, "ipam:");
        line(&mut text, 3, "config:");
        let default = default_of(stack, "NETWORK_SUBNET").unwrap_or_else(|| subnet.clone());
        line(&mut text, 4, &format!("- subnet: ${{NETWORK_SUBNET:-{default}}}"));
    }
    let volumes: Vec<&String> = stack.services.iter().filter_map(|service| service.volume.as_ref()).collect();
    if !volumes.is_empty() {
        text.push_str("\nvolumes:\n");
    }
    for volume in volumes {
        line(&mut text, 1, &format!("{volume}:"));
    }
    GeneratedFile { path: path(&stack.name), text }
}

fn service_text(stack: &Stack, service: &Service) -> String {
    let mut text = String::new();
    line(&mut text, 1, &format!("# {}", service.purpose));
    line(&mut text, 1, &format!("{}:", service.name));
    let image = default_of(stack, &service.image.variable).unwrap_or_else(|| service.image.to_string());
    line(&mut text, 2, &format!("image: ${{{}:-{image}}}", service.image.variable));
    if let Some(profile) = service.profile {
        let profile = match profile {
            Profile::Tools => "tools",
            Profile::Monitoring => "monitoring",
        };
        line(&mut text, 2, &format!("profiles: [{profile}]"));
    }
    let parts = Parts::of(stack, service);
    if !parts.command.is_empty() {
        line(&mut text, 2, &format!("command: [{}]", quoted_list(&parts.command)));
    }
    if !parts.environment.is_empty() {
        line(&mut text, 2, "environment:");
        for (name, value) in &parts.environment {
            line(&mut text, 3, &format!("{name}: {}", quoted(value)));
        }
    }
    line(&mut text, 2, "ports:");
    for port in &service.ports {
        let default = default_of(stack, &port.variable).unwrap_or_else(|| port.number.to_string());
        line(&mut text, 3, &format!("- \"127.0.0.1:${{{}:-{default}}}:{}\"", port.variable, port.container));
    }
    if !parts.volumes.is_empty() {
        line(&mut text, 2, "volumes:");
        for volume in &parts.volumes {
            line(&mut text, 3, &format!("- {volume}"));
        }
    }
    line(&mut text, 2, &format!("networks: [{}]", stack.network.name));
    if let Some(hash) = parts.config_hash {
        line(&mut text, 2, &format!("labels: {{ {CONFIG_LABEL}: \"{hash}\" }}"));
    }
    if let Some(signal) = parts.stop_signal {
        line(&mut text, 2, &format!("stop_signal: {signal}"));
        line(&mut text, 2, &format!("stop_grace_period: {POSTGRES_GRACE_SECS}s"));
    }
    if let Some(test) = parts.healthcheck {
        let (interval, timeout, retries) =
            service.healthcheck.map_or((10, 5, 5), |check| (check.interval_secs, check.timeout_secs, check.retries));
        line(&mut text, 2, "healthcheck:");
        line(&mut text, 3, &format!("test: [\"CMD-SHELL\", {}]", quoted(test)));
        for (name, value) in [("interval", interval), ("timeout", timeout), ("start_period", START_PERIOD_SECS)] {
            line(&mut text, 3, &format!("{name}: {value}s"));
        }
        line(&mut text, 3, "start_interval: 1s");
        line(&mut text, 3, &format!("retries: {retries}"));
    }
    if let Some(resources) = service.resources {
        line(&mut text, 2, "deploy:");
        line(&mut text, 3, "resources:");
        for (name, cpus, memory) in [
            ("limits", resources.cpu_limit, resources.memory_limit_mib),
            ("reservations", resources.cpu_reservation, resources.memory_reservation_mib),
        ] {
            line(&mut text, 4, &format!("{name}:"));
            line(&mut text, 5, &format!("cpus: \"{cpus}\""));
            line(&mut text, 5, &format!("memory: {memory}M"));
        }
    }
    line(&mut text, 2, "logging:");
    line(&mut text, 3, "driver: json-file");
    line(&mut text, 3, "options: { max-size: 10m, max-file: \"3\" }");
    text.push('\n');
    text
}

/// What differs between kinds of services.
#[derive(Default)]
struct Parts<'a> {
    command: Vec<String>,
    environment: Vec<(String, String)>,
    volumes: Vec<String>,
    stop_signal: Option<&'static str>,
    healthcheck: Option<&'static str>,
    /// Of the mounted configuration file. A label, so that Compose restarts what has another text.
    config_hash: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(stack: &Stack, service: &'a Service) -> Parts<'a> {
        let volume = |target: &str| service.volume.as_ref().map(|volume| format!("{volume}:{target}"));
        match &service.kind {
            Kind::Postgres(postgres) => Parts {
                // The server itself says whose it is: verbs that change data ask it first.
                command: [
                    "postgres".to_owned(),
                    "-c".to_owned(),
                    "config_file=/etc/postgresql/postgresql.conf".to_owned(),
                    "-c".to_owned(),
                    format!("cluster_name=${{COMPOSE_PROJECT_NAME:-{}}}/{}", stack.name, service.short_name),
                ]
                .to_vec(),
                config_hash: Some(&postgres.config.hash),
                environment: postgres_environment(stack, postgres),
                volumes: [
                    volume(volume_target(postgres.major)),
                    Some(format!("../../{}:/etc/postgresql/postgresql.conf:ro", postgres.config.path.display())),
                ]
                .into_iter()
                .flatten()
                .collect(),
                // Fast shutdown; SIGTERM would wait for clients.
                stop_signal: Some("SIGINT"),
                // Over TCP: on its first start, the image runs a temporary server on the socket only.
                healthcheck: Some(
                    "pg_isready --quiet --host=127.0.0.1 --username=\"$$POSTGRES_USER\" --dbname=postgres",
                ),
            },
            Kind::Redis(redis) => Parts {
                // Reached through the published port on 127.0.0.1 and from the stack's own network.
                command: ["redis-server", "/usr/local/etc/redis/redis.conf", "--protected-mode", "no"]
                    .map(str::to_owned)
                    .to_vec(),
                config_hash: Some(&redis.config.hash),
                volumes: [
                    volume("/data"),
                    Some(format!("../../{}:/usr/local/etc/redis/redis.conf:ro", redis.config.path.display())),
                ]
                .into_iter()
                .flatten()
                .collect(),
                healthcheck: Some("redis-cli -h 127.0.0.1 ping | grep -q PONG"),
                ..Parts::default()
            },
            Kind::PubSub(pubsub) => {
                let project = default_of(stack, "PUBSUB_PROJECT_ID").unwrap_or_else(|| pubsub.project.clone());
                let project = format!("--project=${{PUBSUB_PROJECT_ID:-{project}}}");
                let port = format!("--host-port=0.0.0.0:{}", service.port().container);
                let words = ["gcloud", "beta", "emulators", "pubsub", "start", &port, &project];
                Parts { command: words.map(str::to_owned).to_vec(), ..Parts::default() }
            }
            Kind::Tool(tool) => Parts {
                environment: tool
                    .environment
                    .iter()
                    .map(|(name, value)| {
                        let default = default_of(stack, name).unwrap_or_else(|| value.clone());
                        (name.clone(), format!("${{{name}:-{default}}}"))
                    })
                    .collect(),
                volumes: volume("/data").into_iter().collect(),
                ..Parts::default()
            },
        }
    }
}

fn postgres_environment(stack: &Stack, postgres: &Postgres) -> Vec<(String, String)> {
    let variable = |name: &str, fallback: &str| {
        let default = default_of(stack, name).unwrap_or_else(|| fallback.to_owned());
        (name.to_owned(), format!("${{{name}:-{default}}}"))
    };
    let database = match default_of(stack, "POSTGRES_DB") {
        Some(default) => ("POSTGRES_DB".to_owned(), format!("${{POSTGRES_DB:-{default}}}")),
        None => ("POSTGRES_DB".to_owned(), postgres.database.clone()),
    };
    let locale = initdb_locale(postgres.major).join(" ");
    vec![
        variable("POSTGRES_USER", &postgres.user),
        variable("POSTGRES_PASSWORD", &postgres.password),
        database,
        ("POSTGRES_INITDB_ARGS".to_owned(), format!("--encoding=UTF8 {locale}")),
    ]
}

/// The default of a variable that the stack reads, as Compose takes it: a dollar sign of its own is doubled.
fn default_of(stack: &Stack, variable: &str) -> Option<String> {
    let setting = stack.settings.iter().find(|setting| setting.name == variable)?;
    Some(setting.default.replace('$', "$$"))
}

fn line(text: &mut String, depth: usize, content: &str) {
    // Writing to a string cannot fail.
    let _infallible = writeln!(text, "{:width$}{content}", "", width = depth * 2);
}

/// A JSON string is a YAML string, whatever it holds.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn quoted_list(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")
}
