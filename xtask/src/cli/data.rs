//! What fills databases and proves them: migrate, seed, check.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use crate::commands::completions;

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
