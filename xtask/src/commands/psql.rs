//! `cargo xtask psql`: psql with the database's address and login in its environment. Where there is no psql, one
//! statement (`-c`) still works.

use anyhow::{Result, bail};

use super::env::{self, Live, Present};
use crate::cli::PsqlArgs;
use crate::context::{Context, unknown};
use crate::engine::native::programs;
use crate::engine::postgres::{self, Door};
use crate::tools;
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &PsqlArgs) -> Result<Exit> {
    let Some((service, postgres)) =
        cx.stack.databases().find(|(service, _)| [&service.short_name, &service.name].contains(&&args.database))
    else {
        let known: Vec<&str> = cx.stack.databases().map(|(service, _)| service.short_name.as_str()).collect();
        bail!(unknown("database", &args.database, known));
    };
    let live = Present::look(cx).await?.live(cx, service)?;
    if live.server.is_none() {
        bail!(Failure::new(Exit::Failed, format!("`{}` is not running", service.short_name)).hint(format!(
            "`cargo xtask up {}{}`",
            service.short_name,
            cx.stack_option()
        )));
    }
    if let Some(psql) = find_psql(cx, &live, postgres.major).await? {
        let mut command = tools::program(psql);
        for name in env::ELSEWHERE {
            command.env_remove(name);
        }
        command.args(&args.arguments).envs(env::service_variables(service, live));
        return Err(tools::become_program(command));
    }
    if let Some((container, login)) = live.server.as_ref().and_then(|server| Some((server.container()?, &live.login))) {
        let Some(login) = login else { bail!("`{}` has no login", service.short_name) };
        // The container's own psql, by its owner's socket.
        let mut command = tools::program("docker");
        command.args(["exec", "--interactive"]);
        if ui::can_ask() {
            command.arg("--tty");
        }
        command.args([&container.id, "psql", "--username", &login.user, "--dbname", &login.database]);
        command.args(&args.arguments);
        return Err(tools::become_program(command));
    }
    let (Some(login), Some(sql)) = (live.login, statement(&args.arguments)) else {
        bail!(
            Failure::new(Exit::Failed, "there is no `psql` on this machine")
                .body("  without it, only one statement works: `cargo xtask psql learning -c 'SELECT 1'`")
                .hint("install PostgreSQL's client programs")
        );
    };
    let door = Door::Tcp { port: live.port, password: login.password };
    let rows = postgres::query(&door, &login.user, &login.database, &sql).await?;
    let count = rows.len().saturating_sub(1);
    ui::data(&format!("{}({})\n", table::columns(rows, &[]), units::plural(count, "row")))?;
    Ok(Exit::Done)
}

/// On `PATH`, beside the running server, else from wherever the server would come.
async fn find_psql(cx: &Context, live: &Live, major: u32) -> Result<Option<std::path::PathBuf>> {
    if let Some(psql) =
        tools::on_path("psql").into_iter().find(|psql| programs::version_of(psql, "(PostgreSQL)").is_some())
    {
        return Ok(Some(psql));
    }
    if let Some(program) = live.server.as_ref().and_then(|server| server.program()) {
        let beside = program.with_file_name("psql");
        if beside.is_file() {
            return Ok(Some(beside));
        }
    }
    let found = programs::find_postgres(major, None, &cx.toolbox()?).await?;
    Ok(found.ok().map(|found| found.bin.join("psql")).filter(|psql| psql.is_file()))
}

/// The statement of `-c SQL`, `-cSQL` or `--command=SQL`, if that is all there is.
fn statement(arguments: &[String]) -> Option<String> {
    match arguments {
        [flag, sql] if flag == "-c" || flag == "--command" => Some(sql.clone()),
        [one] => one.strip_prefix("--command=").or_else(|| one.strip_prefix("-c")).map(str::to_owned),
        _ => None,
    }
}
