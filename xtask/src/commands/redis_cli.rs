//! `cargo xtask redis-cli`: redis-cli with the instance's address. Where there is none, one command still works.

use anyhow::{Result, bail};

use super::env::Present;
use crate::cli::RedisCliArgs;
use crate::context::Context;
use crate::engine::redis;
use crate::engine::redis::resp::Value;
use crate::stack::Kind;
use crate::tools;
use crate::ui::{self, Exit, Failure};

pub async fn run(cx: &Context, args: &RedisCliArgs) -> Result<Exit> {
    let Some(service) = cx.stack.find(|kind| matches!(kind, Kind::Redis(_))) else {
        bail!(Failure::new(Exit::Usage, format!("{} has no Redis", cx.stack.name)));
    };
    let live = Present::look(cx).await?.live(cx, service)?;
    let Some(server) = live.server else {
        bail!(
            Failure::new(Exit::Failed, "`redis` is not running")
                .hint(format!("`cargo xtask up redis{}`", cx.stack_option()))
        );
    };
    if let Some(program) = tools::on_path("redis-cli").into_iter().next() {
        let mut command = tools::program(program);
        command.args(["-h", "127.0.0.1", "-p", &live.port.to_string()]).args(&args.arguments);
        return Err(tools::become_program(command));
    }
    let is_command = args.arguments.first().is_some_and(|first| !first.starts_with('-'));
    if let (false, Some(container)) = (is_command, server.container()) {
        let mut command = tools::program("docker");
        command.args(["exec", "--interactive"]);
        if ui::can_ask() {
            command.arg("--tty");
        }
        command.args([&container.id, "redis-cli"]).args(&args.arguments);
        return Err(tools::become_program(command));
    }
    if !is_command {
        bail!(
            Failure::new(Exit::Failed, "there is no `redis-cli` on this machine")
                .body("  without it, one command works: `cargo xtask redis-cli GET greeting`")
                .hint("install Redis' tools")
        );
    }
    let reply = redis::command(live.port, &args.arguments).await?;
    ui::data(&format!("{}\n", rendered(&reply, 0)))?;
    Ok(Exit::Done)
}

/// A reply as redis-cli shows it on a terminal.
fn rendered(value: &Value, depth: usize) -> String {
    match value {
        Value::Nil => "(nil)".into(),
        Value::Integer(number) => format!("(integer) {number}"),
        Value::Status(text) => text.clone(),
        Value::Error(text) => format!("(error) {text}"),
        Value::Bytes(bytes) => match depth {
            0 => String::from_utf8_lossy(bytes).into_owned(),
            _ => format!("{:?}", String::from_utf8_lossy(bytes)),
        },
        Value::List(values) if values.is_empty() => "(empty array)".into(),
        Value::List(values) => {
            let lines = values.iter().enumerate().map(|(index, value)| {
                let margin = if index == 0 { String::new() } else { "   ".repeat(depth) };
                format!("{margin}{}) {}", index + 1, rendered(value, depth + 1))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}
