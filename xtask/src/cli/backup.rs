//! What keeps data and brings them back: backup, restore, upgrade.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use crate::commands::completions;
use crate::data::backup::schedule;

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
    cargo xtask backup prune --old-databases\n  cargo xtask backup prune --at /mnt/backups --yes"
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
    /// Drop as well what restores have replaced, on servers that run: `restore --undo` has nothing to go back to then
    #[arg(long)]
    pub old_databases: bool,
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
/// Started by a timer of your systemd or an agent of launchd; where there is neither, a line for `crontab` is printed. What it
/// takes is read back. How the last run went is part of `status` and `doctor`: one that missed what does not run has failed.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["daily", "show", "remove"]))]
#[command(after_help = "Examples:\n  cargo xtask backup schedule --daily 03:00\n  \
    cargo xtask backup schedule --daily 03:00 --incremental --prune --to rclone:nas:backups\n  \
    cargo xtask backup schedule --show\n  cargo xtask backup schedule --remove")]
pub struct BackupScheduleArgs {
    /// Databases, `redis`, `pubsub` [default: all of the instance]
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
    /// Go back to what the last restore has replaced; with `--all`, to everything that it has replaced at once
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
    /// Cut the connections of the old servers' clients, instead of refusing while there are some
    #[arg(long, conflicts_with = "drop_old")]
    pub force: bool,
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
