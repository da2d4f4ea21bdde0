//! The command line: every verb, option and help text. No logic.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use crate::commands::completions;
use crate::data::backup::schedule;
use crate::engine::choice::Wish;
use crate::stack::Profile;

/// The backing infrastructure of an application, from one manifest: databases, cache, event bus.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
#[command(after_help = "Start here: `cargo xtask up`, then `cargo xtask status`.\n\
    Exit codes: 0 done, 1 a step failed, 2 usage or configuration, 3 a check found something, 4 refused for safety, \
    130 interrupted.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub struct Global {
    /// The stack to work on [default: the stack that `.env` belongs to]
    #[arg(long, global = true, env = "XTASK_STACK", hide_env_values = true, value_name = "NAME")]
    #[arg(add = ArgValueCandidates::new(completions::stacks))]
    pub stack: Option<String>,
    /// Never touch the network; say what would have been fetched
    #[arg(long, global = true, env = "XTASK_OFFLINE", hide_env_values = true)]
    #[arg(value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub offline: bool,
    /// Fail at once when another verb is changing this instance, instead of waiting for it
    #[arg(long, global = true)]
    pub no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Up(UpArgs),
    Down(DownArgs),
    Stop(StopArgs),
    Restart(RestartArgs),
    Status(StatusArgs),
    Logs(LogsArgs),
    Ports(PortsArgs),
    Doctor(DoctorArgs),
    Env(EnvArgs),
    Run(RunArgs),
    Psql(PsqlArgs),
    RedisCli(RedisCliArgs),
    Migrate(MigrateArgs),
    Seed(SeedArgs),
    Check(CheckArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Upgrade(UpgradeArgs),
    Toolbox(ToolboxArgs),
    Render(RenderArgs),
    Completions(CompletionsArgs),
}

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

/// Bring databases to where their migrations say they are: the whole set or nothing
///
/// Without a word behind it, `migrate` applies what is pending. All databases are planned first; nothing is committed
/// anywhere until every database has come through. History and files are sqlx's, so `sqlx::migrate!` and `sqlx-cli` agree.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  cargo xtask migrate\n  cargo xtask migrate learning user\n  cargo xtask migrate status\n  \
    cargo xtask migrate new learning add_mood"
)]
pub struct MigrateArgs {
    #[command(subcommand)]
    pub verb: Option<MigrateVerb>,
    #[command(flatten)]
    pub run: MigrateRunArgs,
}

#[derive(Debug, Subcommand)]
pub enum MigrateVerb {
    Run(MigrateRunArgs),
    Status(MigrateStatusArgs),
    Plan(MigratePlanArgs),
    Revert(MigrateRevertArgs),
    New(MigrateNewArgs),
    Check(MigrateCheckArgs),
    Repair(MigrateRepairArgs),
}

#[derive(Debug, Clone, Copy, Args)]
pub struct MigrateTimeouts {
    /// How long to wait for a lock: of a table, or of another migrating client
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub lock_timeout_secs: u64,
    /// How long one statement may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub statement_timeout_secs: u64,
}

impl Default for MigrateTimeouts {
    fn default() -> MigrateTimeouts {
        MigrateTimeouts { lock_timeout_secs: 30, statement_timeout_secs: 600 }
    }
}

/// A server that is not this instance's.
#[derive(Debug, Default, Args)]
pub struct OtherServer {
    /// For one database: another server, postgres://USER@localhost:PORT/NAME, its password there or in PGPASSWORD
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Apply what is pending
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask migrate run\n  cargo xtask migrate run learning --json\n  \
    PGPASSWORD=… cargo xtask migrate run learning --url postgres://ci@localhost:5432/learning_test")]
pub struct MigrateRunArgs {
    /// Databases to migrate [default: all]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    #[command(flatten)]
    pub other: OtherServer,
    /// Let each database commit for itself, instead of all or none
    #[arg(long)]
    pub each: bool,
    /// Apply also what is older than what was applied last
    #[arg(long)]
    pub fill_gaps: bool,
    #[command(flatten)]
    pub timeouts: MigrateTimeouts,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what is applied and what is pending
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask migrate status\n  cargo xtask migrate status learning")]
pub struct MigrateStatusArgs {
    /// Databases to show, migration by migration [default: a line for each]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    #[command(flatten)]
    pub other: OtherServer,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what `migrate` would apply, and apply nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask migrate plan\n  cargo xtask migrate plan learning --rehearse")]
pub struct MigratePlanArgs {
    /// Databases to plan for [default: all]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    #[command(flatten)]
    pub other: OtherServer,
    /// Plan also what is older than what was applied last
    #[arg(long)]
    pub fill_gaps: bool,
    /// Apply them to a copy of each database, and tell what they take, lock, rewrite and touch
    #[arg(long, conflicts_with = "url")]
    pub rehearse: bool,
    #[command(flatten)]
    pub timeouts: MigrateTimeouts,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Undo migrations, latest first; their data are lost
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask migrate revert learning\n  cargo xtask migrate revert --to 20251103090000 --dry-run\n  \
    cargo xtask migrate revert --to 0 --yes"
)]
pub struct MigrateRevertArgs {
    /// Databases to go back in [default: all]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    /// How many migrations to undo in each database
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub steps: usize,
    /// Undo everything above this version; 0 undoes all
    #[arg(long, value_name = "VERSION", conflicts_with = "steps")]
    pub to: Option<i64>,
    /// Take no backup first of what has none
    #[arg(long)]
    pub no_backup: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Say what would be undone, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub timeouts: MigrateTimeouts,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Write the two files of a new migration
#[derive(Debug, Args)]
#[command(after_help = "Example: cargo xtask migrate new learning add_mood_to_sessions")]
pub struct MigrateNewArgs {
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub database: String,
    /// What it does, in a word or two
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The folder, where a database has several sources [default: the first]
    #[arg(long, value_name = "FOLDER")]
    pub source: Option<std::path::PathBuf>,
}

/// Look for what is pending, edited, missing, or altered by hand
///
/// Exit code 3 if there is any of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask migrate check\n  cargo xtask migrate check learning --json")]
pub struct MigrateCheckArgs {
    /// Databases to look at [default: all]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    #[command(flatten)]
    pub other: OtherServer,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Take edited files for what was applied
///
/// Nothing is run: the checksum and the text of the file replace those of what was applied.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask migrate repair learning\n  cargo xtask migrate repair --catalog")]
pub struct MigrateRepairArgs {
    /// Databases to repair [default: all]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    /// Take also the catalog as it is, with what was altered by hand
    #[arg(long)]
    pub catalog: bool,
}

/// Fill databases with their seeds: the same rows on every machine, in all of them or in none
///
/// Runs `NNNN_<what>.sql` and `NNNN_<table>.csv` of each database's folder, in the order of their names and in one
/// transaction. What is filled already is left alone; where the files or the scale have changed since, nothing is done
/// (exit code 4) until `--again` is given.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask seed\n  cargo xtask seed --scale 100\n  cargo xtask seed user learning --again\n  \
    cargo xtask seed --again --dry-run"
)]
pub struct SeedArgs {
    /// Databases to fill [default: all that have seeds]
    #[arg(value_name = "DATABASE", add = ArgValueCandidates::new(completions::databases))]
    pub databases: Vec<String>,
    /// How many times the rows that people make [default: that of the last time, at first 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub scale: Option<u32>,
    /// Empty the tables that seeds filled, and fill them again
    #[arg(long)]
    pub again: bool,
    /// Take no backup first of what has none
    #[arg(long, requires = "again")]
    pub no_backup: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prove what must hold between databases
#[derive(Debug, Args)]
#[command(after_help = "Example: cargo xtask check references")]
pub struct CheckArgs {
    #[command(subcommand)]
    pub verb: CheckVerb,
}

#[derive(Debug, Subcommand)]
pub enum CheckVerb {
    /// Find values that refer to nothing in another database, and run the checks of the stack
    ///
    /// References are those that the manifest declares. Checks are `config/<stack>/checks/<name>.<database>.sql`: one file of
    /// a name must give no rows, several of a name must give the same rows. Exit code 3 if something does not hold.
    #[command(after_help = "Examples:\n  cargo xtask check references\n  cargo xtask check references --json")]
    References {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Keep verified copies of databases, Redis and topics
///
/// Without a word behind it, `backup` takes one: a single cut through all members, each with evidence (row counts, hashes of
/// the contents) from the very same moment. It is there whole, or not at all.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  cargo xtask backup learning\n  cargo xtask backup --all --label before-rename\n  \
    cargo xtask backup --all --incremental\n  \
    cargo xtask backup --all --to rclone:nas:backups\n  cargo xtask backup list\n  cargo xtask backup verify --restore learning"
)]
pub struct BackupArgs {
    #[command(subcommand)]
    pub verb: Option<BackupVerb>,
    #[command(flatten)]
    pub take: BackupTakeArgs,
}

#[derive(Debug, Subcommand)]
pub enum BackupVerb {
    List(BackupListArgs),
    Show(BackupShowArgs),
    Verify(BackupVerifyArgs),
    Prune(BackupPruneArgs),
    Schedule(BackupScheduleArgs),
    /// Started by what `schedule` has put in place
    #[command(hide = true)]
    Scheduled,
}

#[derive(Debug, Args)]
pub struct BackupTakeArgs {
    /// Databases, `redis`, `pubsub` [default: all that run]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::services))]
    pub names: Vec<String>,
    /// The whole stack; one that does not run is an error
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// A word behind the time in the backup's name
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Take over what the latest backup holds already: tables that are proven to be unchanged are not written again
    #[arg(long)]
    pub incremental: bool,
    /// Where it goes: a folder, or `rclone:REMOTE:PATH` [default: backups/ of the checkout]
    #[arg(long, value_name = "PLACE")]
    pub to: Option<std::path::PathBuf>,
    /// Encrypt for the owner of this public key, with the program `age`
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what backups there are: age, size, verified or not
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask backup list\n  cargo xtask backup list learning --json")]
pub struct BackupListArgs {
    /// Only of these [default: all]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::services))]
    pub names: Vec<String>,
    /// Where to look: a folder, or `rclone:REMOTE:PATH` [default: backups/ of the checkout]
    #[arg(long, value_name = "PLACE")]
    pub at: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what one backup holds
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask backup show learning\n  cargo xtask backup show learning 2026-11-22T09 --json\n  \
    cargo xtask backup show learning --export > learning.dump"
)]
pub struct BackupShowArgs {
    /// A database, `redis` or `pubsub`
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::services))]
    pub name: String,
    /// The backup, or the begin of its name
    #[arg(value_name = "BACKUP", default_value = "latest")]
    pub backup: String,
    /// Write it to stdout in pg_dump's custom format (Redis: as an RDB file), for other tools
    #[arg(long, conflicts_with = "json")]
    pub export: bool,
    #[command(flatten)]
    pub place: BackupPlaceArgs,
    /// Print the backup's manifest
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BackupPlaceArgs {
    /// Where to look: a folder, or `rclone:REMOTE:PATH` [default: backups/ of the checkout]
    #[arg(long, value_name = "PLACE")]
    pub at: Option<std::path::PathBuf>,
    /// The private key of an encrypted backup
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<std::path::PathBuf>,
}

/// Prove backups: read, hash and decode every byte, and restore them for a try
///
/// Exit code 3 if one is broken.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask backup verify\n  cargo xtask backup verify learning --restore\n  \
    cargo xtask backup verify --every")]
pub struct BackupVerifyArgs {
    /// Whose backups [default: all]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::services))]
    pub names: Vec<String>,
    /// The backup, or the begin of its name
    #[arg(long, value_name = "BACKUP", default_value = "latest")]
    pub backup: String,
    /// Every backup, and not only the latest
    #[arg(long, conflicts_with = "backup")]
    pub every: bool,
    /// Restore each into a database of its own, compare all contents, and drop it again
    #[arg(long)]
    pub restore: bool,
    #[command(flatten)]
    pub place: BackupPlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Remove the backups that no rule keeps, and what interrupted ones have left
///
/// One that any of the numbers keeps stays, and so does the last verified one of each name, and one of each name in any case.
/// A broken one is named and left alone. The numbers are those of `[backup]` in the manifest, unless they are given here.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask backup prune --dry-run\n  cargo xtask backup prune learning --keep-last 1 --keep-daily 0\n  \
    cargo xtask backup prune --at /mnt/backups --yes"
)]
pub struct BackupPruneArgs {
    /// Whose backups [default: all]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::services))]
    pub names: Vec<String>,
    /// The latest so many stay
    #[arg(long, value_name = "NUMBER")]
    pub keep_last: Option<u32>,
    /// The latest of each of the last so many days stays
    #[arg(long, value_name = "NUMBER")]
    pub keep_daily: Option<u32>,
    /// The latest of each of the last so many weeks stays
    #[arg(long, value_name = "NUMBER")]
    pub keep_weekly: Option<u32>,
    /// The latest of each of the last so many months stays
    #[arg(long, value_name = "NUMBER")]
    pub keep_monthly: Option<u32>,
    /// Where to look: a folder, or `rclone:REMOTE:PATH` [default: backups/ of the checkout]
    #[arg(long, value_name = "PLACE")]
    pub at: Option<std::path::PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// Take a backup every day
///
/// Started by a timer of your systemd or an agent of launchd; where there is neither, a line for `crontab` is printed. How the
/// last run went is part of `status` and `doctor`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["daily", "show", "remove"]))]
#[command(after_help = "Examples:\n  cargo xtask backup schedule --daily 03:00\n  \
    cargo xtask backup schedule --daily 03:00 --incremental --prune --to rclone:nas:backups\n  \
    cargo xtask backup schedule --show\n  cargo xtask backup schedule --remove")]
pub struct BackupScheduleArgs {
    /// Databases, `redis`, `pubsub` [default: all that run]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completions::services), requires = "daily")]
    pub names: Vec<String>,
    /// The time of day
    #[arg(long, value_name = "HH:MM", value_parser = schedule::time_of_day)]
    pub daily: Option<jiff::civil::Time>,
    /// Take over what the latest backup holds already
    #[arg(long, requires = "daily")]
    pub incremental: bool,
    /// Remove afterwards what the rules of the manifest do not keep
    #[arg(long, requires = "daily")]
    pub prune: bool,
    /// Where they go: a folder, or `rclone:REMOTE:PATH` [default: backups/ of the checkout]
    #[arg(long, value_name = "PLACE", requires = "daily")]
    pub to: Option<std::path::PathBuf>,
    /// Encrypt for the owner of this public key, with the program `age`
    #[arg(long, value_name = "KEY", requires = "daily")]
    pub recipient: Vec<String>,
    /// Show what is scheduled, how the last run went, and its log
    #[arg(long)]
    pub show: bool,
    /// Schedule no backup any more
    #[arg(long)]
    pub remove: bool,
    /// Print JSON
    #[arg(long, requires = "show")]
    pub json: bool,
}

/// Bring back what a backup holds, without losing what is there
///
/// Each database is restored beside the live one, compared with what was backed up, and only then takes its place, by a
/// rename. The one that was there is kept: `--undo` brings it back at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask restore learning\n  cargo xtask restore learning 2026-11-22T09\n  \
    cargo xtask restore --all\n  cargo xtask restore --all 2026-11-22T09\n  cargo xtask restore learning --undo")]
pub struct RestoreArgs {
    /// A database, `redis` or `pubsub`
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCandidates::new(completions::services))]
    pub name: Option<String>,
    /// The backup, or the begin of its name
    #[arg(value_name = "BACKUP", default_value = "latest")]
    pub backup: String,
    /// Everything that was backed up together; the first word is then the backup's name
    #[arg(long)]
    pub all: bool,
    /// Only this table, beside the live one: its columns and rows, without indexes
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["all", "undo", "drop_old", "from"])]
    pub table: Option<String>,
    /// Leave the live one alone: the name of a new database, or with `--table` of a new table
    #[arg(long, value_name = "NAME", conflicts_with_all = ["all", "undo", "drop_old"])]
    pub into: Option<String>,
    /// A dump that was made elsewhere: SQL, or pg_dump's custom, tar or directory format, compressed or not
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "undo", "drop_old", "backup", "at"])]
    pub from: Option<std::path::PathBuf>,
    /// Go back to what the last restore has replaced
    #[arg(long)]
    pub undo: bool,
    /// Drop what restores have replaced
    #[arg(long, conflicts_with = "undo")]
    pub drop_old: bool,
    /// Cut the connections of clients, instead of refusing while there are some
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub place: BackupPlaceArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Move databases to the major version of PostgreSQL that the manifest asks for
///
/// The old server runs once more and is backed up; a new one is made and gets the backup, compared with it. The old data are
/// kept until `--drop-old`. What was interrupted, the next call finishes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask upgrade --dry-run\n  cargo xtask upgrade\n  cargo xtask upgrade --drop-old"
)]
pub struct UpgradeArgs {
    /// Drop the data that upgrades have replaced
    #[arg(long)]
    pub drop_old: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Say what would be upgraded, and do nothing
    #[arg(long, conflicts_with = "drop_old")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Pinned builds of the servers for a machine without Docker and Nix
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask toolbox list\n  cargo xtask toolbox fetch")]
pub struct ToolboxArgs {
    #[command(subcommand)]
    pub verb: ToolboxVerb,
}

#[derive(Debug, Subcommand)]
pub enum ToolboxVerb {
    /// Show every build, and whether it is there
    #[command(after_help = "Example: cargo xtask toolbox list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch builds before they are needed
    #[command(after_help = "Example: cargo xtask toolbox fetch postgresql")]
    Fetch {
        /// Builds to fetch [default: all of this platform]
        names: Vec<String>,
    },
}

/// Write the files that are generated from manifests and types
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask render\n  cargo xtask render --check\n  cargo xtask render compose --print"
)]
pub struct RenderArgs {
    /// What to write [default: all]
    #[arg(value_enum)]
    pub what: Vec<Rendered>,
    /// Write nothing; exit code 3 with a diff if a file is not what it should be
    #[arg(long)]
    pub check: bool,
    /// Write nothing; print to stdout
    #[arg(long, conflicts_with = "check")]
    pub print: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rendered {
    /// config/stack.schema.json
    Schema,
    /// .env.example and .env.<stack>.example
    EnvExample,
    /// docker/<stack>/compose.yaml
    Compose,
}

/// Print a script that completes `cargo xtask` in your shell, names of databases included
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  echo 'source <(cargo xtask completions bash)' >> ~/.bashrc\n  \
    cargo xtask completions fish > ~/.config/fish/completions/cargo-xtask.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: CompletionShell,
    /// Words so far, given by the script itself
    #[arg(last = true, hide = true)]
    pub words: Vec<std::ffi::OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}
