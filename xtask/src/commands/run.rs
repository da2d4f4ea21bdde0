//! `cargo xtask run`: a command with the variables that `cargo xtask env` prints.

use anyhow::{Result, bail};

use crate::cli::RunArgs;
use crate::context::Context;
use crate::tools;
use crate::ui::{Exit, Failure};

pub async fn run(cx: &Context, args: &RunArgs) -> Result<Exit> {
    let variables = super::env::variables(cx, Some(&args.name)).await?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        bail!(Failure::new(Exit::Usage, "no command behind `--`"));
    };
    let mut command = tools::program(program);
    for name in super::env::ELSEWHERE {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables);
    Err(tools::become_program(command))
}
