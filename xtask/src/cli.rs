//! The command line: every verb, option and help text. No logic. This file lists the verbs; what each takes stands in the
//! file of its kind.

mod backup;
mod data;
mod repository;
mod services;

use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCandidates;

pub use backup::*;
pub use data::*;
pub use repository::*;
pub use services::*;

use crate::commands::completions;

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
