//! The manifest as it is written: `config/<stack>.toml`.
//!
//! These types mirror the file and nothing else: defaults that depend on other keys, overrides from the environment
//! and every check across keys belong to [`super::resolve`]. Doc comments here are the texts an editor shows, by way of
//! the generated `config/stack.schema.json`.

#![expect(
    dead_code,
    reason = "the manifest holds the whole inventory; what only rendering and data verbs read is not read yet"
)]

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// A stack: everything that one application team needs to have running.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    pub stack: StackSection,
    pub network: Network,
    /// What all databases of the stack share.
    pub postgres: Postgres,
    /// One PostgreSQL server with one logical database each, by the name a person says (`learning`).
    pub databases: IndexMap<String, Database>,
    pub redis: Option<Redis>,
    pub pubsub: Option<PubSub>,
    /// Services with a user interface or for monitoring, started by their profile.
    #[serde(default)]
    pub tools: IndexMap<String, Tool>,
    /// The team's own programs: what each uses, and the variables it is given.
    #[serde(default)]
    pub applications: IndexMap<String, Application>,
    /// Which backups `cargo xtask backup prune` leaves.
    #[serde(default)]
    pub backup: Backup,
    pub production: Option<Production>,
}

/// Which backups of each database stay: one that any of the rules keeps. The last verified backup always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Backup {
    /// The latest so many.
    pub keep_last: u32,
    /// The latest of each of the last so many days that have one.
    pub keep_daily: u32,
    /// The latest of each of the last so many weeks that have one.
    pub keep_weekly: u32,
    /// The latest of each of the last so many months that have one.
    pub keep_monthly: u32,
}

impl Default for Backup {
    fn default() -> Backup {
        Backup { keep_last: 3, keep_daily: 7, keep_weekly: 4, keep_monthly: 6 }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StackSection {
    /// The stack's name; the same as the file's.
    pub name: String,
    /// What the stack is for, in a sentence.
    pub description: String,
    /// What `ENVIRONMENT` (or the stack's own variable for it) says on this machine.
    #[serde(default = "default_environment")]
    pub environment: String,
    /// The variable that names the environment.
    #[serde(default = "default_environment_variable")]
    pub environment_variable: String,
    /// The least memory of the machine that the whole stack is comfortable with, in GiB.
    #[serde(default = "default_memory")]
    pub recommended_memory_gib: u32,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    pub name: String,
    #[serde(default = "default_network_driver")]
    pub driver: String,
    /// The network's addresses in CIDR form, where they must be fixed.
    pub subnet: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Postgres {
    /// The major version: another one is never used silently.
    pub major: u32,
    /// The image's key in `config/images.toml`.
    pub image: String,
    /// The superuser of every server (`POSTGRES_USER`).
    pub user: String,
    /// The development password (`POSTGRES_PASSWORD`).
    pub password: String,
    /// The server's configuration file, from the repository's root.
    pub config: String,
    pub resources: Option<Resources>,
    pub healthcheck: Option<Healthcheck>,
    pub pool: Option<Pool>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Database {
    /// The logical database's name (`learning_db`).
    pub database: String,
    /// The variable that overrides the logical database's name, where the stack has one (`POSTGRES_DB`).
    pub database_variable: Option<String>,
    /// The service's name; `postgres-<name>` unless written.
    pub service: Option<String>,
    /// The host port.
    pub port: i64,
    /// The variable that overrides the port; `POSTGRES_<NAME>_PORT` unless written.
    pub port_variable: Option<String>,
    /// What the database holds.
    pub purpose: String,
    /// The schema that holds its tables in production, where all databases share one server.
    pub production_schema: Option<String>,
    /// The schema in the connection URL, for clients that read one there (`?schema=public`).
    pub url_schema: Option<String>,
    /// The named volume of the Docker engine.
    pub volume: String,
    /// Folders of migrations, from the repository's root; `config/<stack>/<name>/migrations` unless written.
    pub migrations: Option<Vec<String>>,
    /// The folder of seeds, from the repository's root; `config/<stack>/<name>/seeds` unless written.
    pub seeds: Option<String>,
    /// Columns that refer to a neighbour database: `learning_sessions.user_id = "user.users.id"`.
    #[serde(default)]
    pub references: IndexMap<String, String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Redis {
    /// The least major version.
    pub major: u32,
    pub image: String,
    pub port: i64,
    /// The variable that overrides the port.
    #[serde(default = "default_redis_port_variable")]
    pub port_variable: String,
    /// The server's configuration file, from the repository's root.
    pub config: String,
    pub volume: String,
    /// What it is used for.
    pub purposes: Vec<String>,
    pub resources: Option<Resources>,
    pub healthcheck: Option<Healthcheck>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PubSub {
    pub image: String,
    pub port: i64,
    #[serde(default = "default_pubsub_port_variable")]
    pub port_variable: String,
    /// The project id that clients of the emulator name (`PUBSUB_PROJECT_ID`).
    pub project: String,
    pub resources: Option<Resources>,
    /// Topics, by id.
    pub topics: IndexMap<String, Topic>,
    /// Subscriptions, by id.
    #[serde(default)]
    pub subscriptions: IndexMap<String, Subscription>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Topic {
    /// The types of the events that are published to it.
    pub events: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Subscription {
    pub topic: String,
    /// The application that listens.
    pub application: String,
    /// Whether messages with one ordering key arrive in order.
    #[serde(default)]
    pub ordering: bool,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tool {
    pub image: String,
    pub profile: Profile,
    pub purpose: String,
    /// Its ports, the one that people open first.
    pub ports: Vec<ToolPort>,
    /// Variables of the container; each may be overridden by name.
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    pub volume: Option<String>,
    pub resources: Option<Resources>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ToolPort {
    pub port: i64,
    /// The port inside the container.
    pub container_port: i64,
    pub variable: String,
    pub purpose: String,
}

/// A group of services that starts only when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Tools with a user interface for the databases and the cache.
    Tools,
    /// Metrics, dashboards and traces.
    Monitoring,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Application {
    pub purpose: String,
    pub protocol: Protocol,
    /// The port it listens on (`SERVICE_PORT`).
    pub port: Option<i64>,
    /// The database it owns.
    pub database: Option<String>,
    /// Whether it uses Redis.
    #[serde(default)]
    pub redis: bool,
    /// Whether it uses Pub/Sub.
    #[serde(default)]
    pub pubsub: bool,
    /// The applications it calls.
    #[serde(default)]
    pub calls: Vec<String>,
    /// Variables of its own, each may be overridden by name.
    #[serde(default)]
    pub environment: IndexMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Grpc,
    Http,
}

/// Limits and reservations of one container.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Resources {
    /// In CPUs.
    pub cpu_limit: f64,
    pub memory_limit_mib: u32,
    /// In CPUs.
    pub cpu_reservation: f64,
    pub memory_reservation_mib: u32,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Healthcheck {
    pub interval_secs: u32,
    pub timeout_secs: u32,
    pub retries: u32,
}

/// How an application sizes its connection pool.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pool {
    pub min_connections: u32,
    pub max_connections: u32,
    pub idle_timeout_secs: u32,
}

/// The production side: Cloud Run for the applications, one Neon database with a schema for each database here.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Production {
    pub cloud_run: CloudRun,
    pub neon: Neon,
    pub fallback: Fallback,
    /// What a month is expected to use, and what is free.
    pub costs: Vec<Cost>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CloudRun {
    /// The application that is deployed.
    pub application: String,
    pub image: String,
    pub region: String,
    pub container_port: u16,
    pub cpu_throttling: bool,
    pub http2: bool,
    pub allow_unauthenticated: bool,
    /// The secret that holds the database's URL, and its key.
    pub database_secret: String,
    pub database_secret_key: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Neon {
    pub max_connections: u32,
    pub connect_timeout_secs: u32,
    pub ssl_mode: String,
}

/// When, and to what, production moves away from Neon.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fallback {
    pub service: String,
    pub tier: String,
    pub monthly_usd: f64,
    pub migration_hours: [u32; 2],
    pub evaluate_within_days: u32,
    pub max_latency_ms: u32,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cost {
    pub service: String,
    pub unit: String,
    pub free_per_month: f64,
    pub expected_per_month: f64,
    pub monthly_usd: f64,
}

fn default_environment() -> String {
    "development".into()
}

fn default_environment_variable() -> String {
    "ENVIRONMENT".into()
}

fn default_memory() -> u32 {
    2
}

fn default_network_driver() -> String {
    "bridge".into()
}

fn default_redis_port_variable() -> String {
    "REDIS_PORT".into()
}

fn default_pubsub_port_variable() -> String {
    "PUBSUB_PORT".into()
}
