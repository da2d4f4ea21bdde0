//! `cargo xtask ports`: every port of the stack and who holds it; with `--fix`, free ones in place of taken ones.

use anyhow::{Result, bail};
use serde_json::json;

use crate::cli::PortsArgs;
use crate::context::Context;
use crate::engine::Engine;
use crate::engine::server::Server;
use crate::instance::EngineKind;
use crate::ports::fix::{Proposal, proposals};
use crate::ports::{self, Conflict, holders::Holders};
use crate::stack::env_file::EnvFile;
use crate::stack::fault::Faults;
use crate::stack::overrides::Source;
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &PortsArgs) -> Result<Exit> {
    let ours = held_by_us(cx).await?;
    let runs_tools = cx.instance()?.is_some_and(|instance| instance.identity.engine == EngineKind::Docker);
    let taken: Vec<Conflict> = ports::conflicts(cx.stack.services.iter(), &ours);
    // Tools run in containers only: elsewhere their ports are shown, and do not count.
    let counts = |conflict: &&Conflict| runs_tools || !is_tool(cx, &conflict.service);
    let counted: Vec<Conflict> = taken.iter().filter(counts).cloned().collect();
    if args.fix {
        if counted.is_empty() {
            ui::tell("no port is taken by something else, nothing to write");
            return Ok(Exit::Done);
        }
        let change = fix(cx, &counted)?;
        if !args.dry_run {
            change.write(cx)?;
        }
        tell_change(cx, &change);
        if !args.dry_run {
            ui::tell(format!("\nNext: `cargo xtask up{}`", cx.stack_option()));
        }
        return Ok(Exit::Done);
    }
    let holders = Holders::look();
    let mut rows =
        vec![["port", "service", "variable", "set in", "state"].map(|name| ui::paint(ui::FAINT, name)).to_vec()];
    let mut values = Vec::new();
    for service in &cx.stack.services {
        for port in &service.ports {
            let conflict = taken.iter().find(|conflict| conflict.port == port.number);
            let is_ours = ours.contains(&port.number);
            let state = match conflict {
                Some(conflict) => conflict.holder.describe(),
                None if is_ours => "this instance".into(),
                None => "free".into(),
            };
            let style = match (conflict, is_ours) {
                (Some(_), _) => ui::BAD,
                (None, true) => ui::GOOD,
                (None, false) => ui::FAINT,
            };
            rows.push(vec![
                port.number.to_string(),
                label(service),
                port.variable.clone(),
                port.source.to_string(),
                ui::paint(style, &state),
            ]);
            values.push(json!({
                "port": port.number, "service": service.short_name, "variable": port.variable,
                "source": port.source.to_string(), "state": if conflict.is_some() { "taken" } else if is_ours { "ours" } else { "free" },
                "holder": conflict.map(|conflict| conflict.holder.describe()), "pid": holders.pid_of(port.number),
            }));
        }
    }
    match args.json {
        true => ui::json(&json!({ "stack": cx.stack.name, "ports": values }))?,
        false => ui::data(&table::columns(rows, &[0]))?,
    }
    if counted.is_empty() {
        return Ok(Exit::Done);
    }
    if !args.json {
        ui::tell(format!(
            "\n{} taken; `cargo xtask ports --fix{}` moves them",
            units::plural(counted.len(), "port"),
            cx.stack_option()
        ));
    }
    Ok(Exit::Found)
}

fn label(service: &Service) -> String {
    match service.kind {
        Kind::Tool(_) => format!("{} (container)", service.short_name),
        _ => service.short_name.clone(),
    }
}

fn is_tool(cx: &Context, short_name: &str) -> bool {
    cx.stack.service(short_name).is_some_and(|service| matches!(service.kind, Kind::Tool(_)))
}

/// The ports that running servers of this instance hold.
async fn held_by_us(cx: &Context) -> Result<Vec<u16>> {
    let Some(instance) = cx.instance()? else { return Ok(Vec::new()) };
    let running = Engine::of(&cx.repository, &cx.stack, &instance).running(&cx.stack).await?;
    // A tool may publish several.
    let of_container = |server: &Server| -> Vec<u16> {
        server.container().map(|container| container.ports.values().copied().collect()).unwrap_or_default()
    };
    Ok(running.iter().flat_map(|server| [vec![server.port], of_container(server)].concat()).collect())
}

/// A change of the stack's `.env` file.
#[derive(Debug)]
pub struct Change {
    file: EnvFile,
    proposals: Vec<Proposal>,
}

impl Change {
    pub fn write(&self, cx: &Context) -> Result<()> {
        self.file.write(&cx.repository.root)
    }
}

/// Free ports for all conflicts; those set in the environment cannot be changed from here.
pub fn fix(cx: &Context, taken: &[Conflict]) -> Result<Change> {
    let fixed: Vec<&str> = taken
        .iter()
        .filter(|conflict| conflict.source == Source::Environment)
        .map(|conflict| conflict.variable.as_str())
        .collect();
    if !fixed.is_empty() {
        bail!(
            Failure::new(
                Exit::Usage,
                format!("{} set in the environment, which goes before any file", fixed.join(", "))
            )
            .hint(format!("set a free port there, or unset: `unset {}`", fixed.join(" ")))
        );
    }
    let proposals = proposals(&cx.stack, &taken.iter().collect::<Vec<_>>());
    let mut file = EnvFile::read(&cx.repository.root, &cx.stack.env_file, &mut Faults::default());
    for proposal in &proposals {
        file = file.with(&proposal.variable, &proposal.to.to_string());
    }
    Ok(Change { file, proposals })
}

pub fn tell_change(cx: &Context, change: &Change) {
    let rows = change.proposals.iter().map(|proposal| {
        vec![proposal.service.clone(), proposal.from.to_string(), format!("→ {}={}", proposal.variable, proposal.to)]
    });
    let path = cx.relative(&cx.repository.root.join(&cx.stack.env_file));
    ui::tell(format!("{}:\n{}", path.display(), table::columns(rows.collect(), &[1])));
}
