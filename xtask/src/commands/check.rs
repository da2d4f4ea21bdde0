//! `cargo xtask check references`: proves what holds between databases, where no server can: every declared reference
//! leads somewhere, and the stack's own checks hold.

use std::time::Instant;

use anyhow::{Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::cli::{CheckArgs, CheckVerb};
use crate::context::{self, Context};
use crate::data::target::{self, Target};
use crate::data::{checks, references};
use crate::engine::Engine;
use crate::stack::fault::Faults;
use crate::ui::{self, Exit, progress::Waiting, table, units};

/// Each has two connections: enough to keep the servers at work, and far from what they allow.
const AT_ONCE: usize = 4;

pub async fn run(cx: &Context, args: &CheckArgs) -> Result<Exit> {
    match args.verb {
        CheckVerb::References { json } => check_references(cx, json).await,
    }
}

async fn check_references(cx: &Context, json: bool) -> Result<Exit> {
    let begun = Instant::now();
    let databases: Vec<&str> = cx.stack.databases().map(|(service, _)| service.short_name.as_str()).collect();
    let mut faults = Faults::default();
    let checks = checks::list(&cx.repository.root, &cx.stack.name, &databases, &mut faults)?;
    if !faults.0.is_empty() {
        bail!(context::configuration_failure(faults));
    }
    let asked = |name: &str| {
        let mut declared = cx.stack.databases().flat_map(|(from, postgres)| {
            postgres.references.iter().map(|reference| (from.short_name.as_str(), reference.to_database.as_str()))
        });
        declared.any(|(from, to)| from == name || to == name)
            || checks.iter().flat_map(|check| &check.sides).any(|side| side.database == name)
    };
    let names: Vec<String> = databases.iter().filter(|name| asked(name)).map(|name| (*name).to_owned()).collect();
    if names.is_empty() {
        ui::tell(format!("{} declares no references, and has no checks", cx.stack.name));
        return Ok(Exit::Done);
    }
    let instance = cx.running_instance()?;
    let engine = Engine::of(&cx.repository, &cx.stack, &instance);
    let mut targets = target::open(&engine, &cx.stack, &names).await?;
    let mut tables = Vec::new();
    for target in &mut targets {
        tables.push(references::tables(target).await?);
    }
    let waiting = Waiting::new("comparing databases");
    let side = |name: &str| -> Result<(&Target<'_>, &references::Tables)> {
        let index = targets.iter().position(|target| target.name() == name);
        index.map(|index| (&targets[index], &tables[index])).ok_or_else(|| anyhow::anyhow!("`{name}` is not open"))
    };
    let declared =
        targets.iter().flat_map(|target| target.postgres.references.iter().map(|reference| (target.name(), reference)));
    let checking = declared
        .map(async |(from, reference)| references::check(reference, side(from)?, side(&reference.to_database)?).await);
    let references: Vec<references::Checked> = stream::iter(checking).buffered(AT_ONCE).try_collect().await?;
    let checking = checks.iter().map(|check| checks::check(check, &targets));
    let checks: Vec<checks::Checked> = stream::iter(checking).buffered(AT_ONCE).try_collect().await?;
    drop(waiting);
    let wrong = references.iter().filter(|one| !one.holds()).count() + checks.iter().filter(|one| !one.holds()).count();
    if json {
        ui::json(&json!({ "stack": cx.stack.name, "references": references, "checks": checks }))?;
    } else {
        ui::data(&rendered(&references, &checks))?;
    }
    let what = format!("{} and {}", units::plural(references.len(), "reference"), units::plural(checks.len(), "check"));
    let took = units::seconds(begun.elapsed());
    ui::tell(match wrong {
        0 => format!("\n{what} hold, in {took}"),
        _ => format!("\n{wrong} of {what} do not hold, in {took}"),
    });
    Ok(if wrong == 0 { Exit::Done } else { Exit::Found })
}

fn rendered(references: &[references::Checked], checks: &[checks::Checked]) -> String {
    let verdict = |holds: bool, what: String| match holds {
        true => ui::paint(ui::GOOD, "holds"),
        false => ui::paint(ui::BAD, what),
    };
    let mut rows = Vec::new();
    for one in references {
        let problem = one.problem.clone().unwrap_or_else(|| units::plural(one.orphans, "orphan"));
        let examples = one.examples.join(", ");
        let values = units::plural(one.values, "value");
        rows.push(vec![one.from.clone(), one.to.clone(), values, verdict(one.holds(), problem), examples]);
    }
    for one in checks {
        let wrong = one.wrong.iter().map(|wrong| match one.databases.len() {
            1 => units::plural(wrong.rows, "row"),
            _ => format!("{} only in {}", units::plural(wrong.rows, "row"), wrong.database),
        });
        let wrong = wrong.collect::<Vec<_>>().join(", ");
        let examples = one.wrong.iter().flat_map(|wrong| &wrong.examples).take(2).cloned().collect::<Vec<_>>();
        let count = if one.databases.len() == 1 { String::new() } else { units::plural(one.rows, "row") };
        let what = one.problem.clone().unwrap_or(wrong);
        rows.push(vec![
            one.name.clone(),
            one.databases.join(" = "),
            count,
            verdict(one.holds(), what),
            examples.join(", "),
        ]);
    }
    table::columns(rows, &[2])
}
