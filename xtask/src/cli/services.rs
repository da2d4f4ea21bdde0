//! The verbs of every day: services up and down, looked at and used.

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use crate::commands::completions;
use crate::engine::choice::Wish;
use crate::stack::Profile;

/// Start services and wait until each answers
///
/// Makes the data of what is new, starts what is stopped, restarts what was changed, sets a password that was changed in
/// `.env`. What runs as it should is left alone.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask up\n  cargo xtask up learning redis\n  cargo xtask up --without pubsub\n  \
    cargo xtask up --stack nanika --auto-ports"
)]
pub struct UpArgs {
    /// Services to start [default: all core services]
    #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(completions::services))]
    pub services: Vec<String>,
    /// Leave a service out
    #[arg(long, value_name = "SERVICE", add = ArgValueCandidates::new(completions::services))]
    pub without: Vec<String>,
    /// Start a group of services as well
    #[arg(long, value_enum)]
    pub profile: Vec<Profile>,
    /// Where services run
    #[arg(long, value_enum, env = "XTASK_ENGINE", hide_env_values = true, default_value_t = Wish::Auto)]
    pub engine: Wish,
    /// Move taken ports to free ones, written into `.env`, before starting
    #[arg(long)]
    pub auto_ports: bool,
    /// Leave the databases as they are
    #[arg(long)]
    pub no_migrate: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// How long one service may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_secs: u64,
}

/// Stop all services and forget their run state; data stay
///
/// With `--volumes` the data go too: they are listed, you are asked, what was never backed up is backed up, and they are put
/// aside where `cargo xtask down --undo` finds them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask down\n  cargo xtask down --volumes\n  cargo xtask down --volumes --yes --discard\n  \
    cargo xtask down --undo"
)]
pub struct DownArgs {
    /// Remove the data as well
    #[arg(long)]
    pub volumes: bool,
    /// Do not put the removed data aside: they are gone for good
    #[arg(long, requires = "volumes")]
    pub discard: bool,
    /// Bring back the data that the last `down --volumes` put aside
    #[arg(long, conflicts_with_all = ["volumes", "discard", "dry_run"])]
    pub undo: bool,
    /// Take no backup first of what has none
    #[arg(long, requires = "volumes")]
    pub no_backup: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Stop services; data stay
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask stop\n  cargo xtask stop learning redis")]
pub struct StopArgs {
    /// Services to stop [default: all]
    #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(completions::services))]
    pub services: Vec<String>,
}

/// Stop services and start them again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask restart\n  cargo xtask restart learning")]
pub struct RestartArgs {
    /// Services to restart [default: all that run]
    #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(completions::services))]
    pub services: Vec<String>,
    /// How long one service may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout_secs: u64,
}

/// Show what runs: state, address, version, data, connections
///
/// Exit code 3 unless every core service is ready.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask status\n  cargo xtask status --watch\n  cargo xtask status --json | jq '.services[].state'"
)]
pub struct StatusArgs {
    /// Redraw every second until interrupted
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what servers wrote to their logs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask logs learning\n  cargo xtask logs --follow --tail 0\n  cargo xtask logs redis --since 10m"
)]
pub struct LogsArgs {
    /// Services to show [default: all]
    #[arg(value_name = "SERVICE", add = ArgValueCandidates::new(completions::services))]
    pub services: Vec<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines of each service [default: 200]
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Only lines since a time ago: 30s, 10m, 2h, 1d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// Show every port, who holds it, and move taken ones
///
/// Exit code 3 if a port is taken by something else.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask ports\n  cargo xtask ports --fix --stack nanika")]
pub struct PortsArgs {
    /// Write free ports into `.env` in place of taken ones
    #[arg(long)]
    pub fix: bool,
    /// With `--fix`: show the change, and write nothing
    #[arg(long, requires = "fix")]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Look for everything that could be wrong on this machine
///
/// Exit code 3 if there is an error or a warning.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask doctor\n  cargo xtask doctor --fix\n  cargo xtask doctor --json")]
pub struct DoctorArgs {
    /// Mend what is provably ours: stale records, servers whose checkout is gone
    #[arg(long)]
    pub fix: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Print the variables that an application, a database or a service needs
///
/// Addresses and passwords are those of the running instance.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask env learning-service > .env.local\n  eval \"$(cargo xtask env learning --format shell)\"\n  \
    cargo xtask env --format json"
)]
pub struct EnvArgs {
    /// An application (learning-service), a database (learning) or a service (redis) [default: the whole stack]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::applications_and_services))]
    pub name: Option<String>,
    #[arg(long, value_enum, default_value_t = EnvFormat::Dotenv)]
    pub format: EnvFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// `NAME=value`
    Dotenv,
    /// `export NAME='value'`, for `eval`
    Shell,
    /// One object
    Json,
}

/// Run a command with an application's variables
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask run learning-service -- cargo run\n  cargo xtask run learning -- psql"
)]
pub struct RunArgs {
    /// An application, a database or a service, as for `env`
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::applications_and_services))]
    pub name: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Open psql on a database, or run one statement
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask psql learning\n  cargo xtask psql learning -c 'SELECT count(*) FROM learning_sessions'\n  \
    cargo xtask psql learning -f query.sql"
)]
pub struct PsqlArgs {
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub database: String,
    /// Arguments of psql
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Open redis-cli, or run one command
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask redis-cli\n  cargo xtask redis-cli SET greeting hello\n  cargo xtask redis-cli KEYS '*'"
)]
pub struct RedisCliArgs {
    /// A command of Redis, or arguments of redis-cli
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}
