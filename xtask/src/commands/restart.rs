//! `cargo xtask restart`: stop, then up, for the services named or all that run.

use anyhow::Result;

use super::{stop, up};
use crate::cli::{RestartArgs, UpArgs};
use crate::context::Context;
use crate::engine::Wish;
use crate::engine::native::observe::{self, Observed};
use crate::ui::{self, Exit};

pub async fn run(cx: &mut Context, args: &RestartArgs) -> Result<Exit> {
    let mut services: Vec<String> =
        cx.services(&args.services)?.iter().map(|service| service.short_name.clone()).collect();
    let lock = cx.lock().await?;
    let instance = cx.instance()?;
    if let Some(instance) = &instance {
        if services.is_empty() {
            for service in cx.stack.core() {
                if matches!(observe::service(instance, &service.short_name)?, Observed::Running(_) | Observed::Died(_))
                {
                    services.push(service.short_name.clone());
                }
            }
        }
        stop::stop_services(instance, &services).await?;
    }
    drop(lock);
    if services.is_empty() {
        ui::tell(format!("{} is not running; `cargo xtask up{}` starts it", cx.stack.name, cx.stack_option()));
        return Ok(Exit::Done);
    }
    let up = UpArgs {
        services,
        without: vec![],
        profile: vec![],
        engine: Wish::Auto,
        auto_ports: false,
        dry_run: false,
        json: false,
        timeout_secs: args.timeout_secs,
    };
    up::run(cx, &up).await
}
