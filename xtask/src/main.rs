//! `cargo xtask`: an application team's whole backing infrastructure from one manifest.
//!
//! Modules in reading order. Data flows one way: manifest, pins and `.env` are validated into a `Stack`, the running
//! system is observed, a plan is made, carried out, and reported. Lower modules do not know higher ones.

mod cli;
mod commands;
mod context;
mod data;
mod doctor;
mod engine;
mod files;
mod instance;
mod interruption;
mod ports;
mod render;
mod stack;
mod toolbox;
mod tools;
mod ui;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Verb};
use context::Context;
use engine::native::launch;
use ui::{Exit, failure};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == launch::ARGUMENT) {
        ui::tell(failure::rendered(&launch::become_server(arguments)));
        return Exit::Failed.into();
    }
    if rustix::process::geteuid().is_root() {
        // Root's servers run as somebody else, who must reach what is made here; secrets set their own permissions.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, errors to stderr; a closed stream leaves nobody to tell.
            let _nobody_left_to_tell = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            ui::tell(failure::rendered(&error.into()));
            return Exit::Failed.into();
        }
    };
    let left = interruption::leaves(&cli.verb);
    let exit = runtime.block_on(async {
        tokio::select! {
            done = run(cli) => done,
            interrupted = interruption::wait() => interrupted.map(|()| {
                if let Some(words) = left {
                    ui::tell(format!("\ninterrupted; {words}"));
                }
                Exit::Interrupted
            }),
        }
    });
    // Work on other threads (a copy, a download) writes to names that the next run cleans up.
    runtime.shutdown_background();
    match exit {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = failure::exit_of(&error);
            if exit != Exit::Done {
                ui::tell(failure::rendered(&error));
            }
            exit.into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit> {
    if let Verb::Completions(args) = &cli.verb {
        return commands::completions::run(args);
    }
    if let Verb::Doctor(args) = &cli.verb {
        return commands::doctor::run(&cli.global, args).await;
    }
    let mut cx = Context::new(&cli.global)?;
    match &cli.verb {
        Verb::Up(args) => commands::up::run(&mut cx, args).await,
        Verb::Down(args) => commands::down::run(&cx, args).await,
        Verb::Stop(args) => commands::stop::run(&cx, args).await,
        Verb::Restart(args) => commands::restart::run(&mut cx, args).await,
        Verb::Status(args) => commands::status::run(&cx, args).await,
        Verb::Logs(args) => commands::logs::run(&cx, args).await,
        Verb::Ports(args) => commands::ports::run(&cx, args).await,
        Verb::Env(args) => commands::env::run(&cx, args).await,
        Verb::Run(args) => commands::run::run(&cx, args).await,
        Verb::Psql(args) => commands::psql::run(&cx, args).await,
        Verb::RedisCli(args) => commands::redis_cli::run(&cx, args).await,
        Verb::Migrate(args) => commands::migrate::run(&cx, args).await,
        Verb::Seed(args) => commands::seed::run(&cx, args).await,
        Verb::Check(args) => commands::check::run(&cx, args).await,
        Verb::Backup(args) => commands::backup::run(&cx, args).await,
        Verb::Restore(args) => commands::restore::run(&cx, args).await,
        Verb::Upgrade(args) => commands::upgrade::run(&cx, args).await,
        Verb::Toolbox(args) => commands::toolbox::run(&cx, args).await,
        Verb::Render(args) => commands::render::run(&cx, args),
        Verb::Doctor(_) | Verb::Completions(_) => Ok(Exit::Done),
    }
}
