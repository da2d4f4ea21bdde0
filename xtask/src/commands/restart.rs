//! `cargo xtask restart`: stop, then up, for the services named or all that run.

use anyhow::Result;

use super::up;
use crate::cli::{RestartArgs, UpArgs};
use crate::context::Context;
use crate::engine::Engine;
use crate::engine::choice::Wish;
use crate::engine::server::Observed;
use crate::stack::Service;
use crate::ui::{self, Exit};

pub async fn run(cx: &mut Context, args: &RestartArgs) -> Result<Exit> {
    let mut services: Vec<String> =
        cx.services(&args.services)?.iter().map(|service| service.short_name.clone()).collect();
    let lock = cx.lock().await?;
    let instance = cx.instance()?;
    if let Some(instance) = &instance {
        let engine = Engine::of(&cx.repository, &cx.stack, instance);
        if services.is_empty() {
            let all: Vec<&Service> = cx.stack.services.iter().collect();
            for (service, observed) in all.iter().zip(engine.observe(&all).await?) {
                if matches!(observed?, Observed::Running(_) | Observed::Died { .. }) {
                    services.push(service.short_name.clone());
                }
            }
        }
        engine.stop(&services, &lock).await?;
    }
    drop(lock);
    if services.is_empty() {
        ui::tell(format!("{} is not running; `cargo xtask up{}` starts it", cx.stack.name, cx.stack_option()));
        return Ok(Exit::Done);
    }
    let up = UpArgs {
        no_migrate: true,
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
