//! `migrate plan --rehearse`: the pending steps on a copy of each database, and what they did there.

use anyhow::{Result, bail};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::restore::places;
use super::{databases, gaps, open};
use crate::cli::MigratePlanArgs;
use crate::context::Context;
use crate::data::migrate::Set;
use crate::data::migrate::locks::Timeouts;
use crate::data::migrate::plan::Gaps;
use crate::data::migrate::rehearse::{self, Report, StepReport};
use crate::data::space;
use crate::ui::{self, Exit, Failure, progress::Waiting, units};

pub async fn run(cx: &Context, args: &MigratePlanArgs, timeouts: Timeouts) -> Result<Exit> {
    let names = databases(cx, &args.databases)?;
    let _lock = cx.lock().await?;
    let mut set = open(cx, &names).await?;
    let gaps = gaps(args.fill_gaps);
    set.check(gaps).await?;
    check_space(cx, &mut set, gaps).await?;
    let waiting = Waiting::new("rehearsing on copies");
    let rehearsing = set.members.into_iter().map(|member| rehearse::run(member, gaps, timeouts));
    let reports: Vec<Result<Report>> = join_all(rehearsing).await;
    drop(waiting);
    let reports: Vec<Report> = reports.into_iter().collect::<Result<_>>()?;
    if args.json {
        let databases = reports.iter().map(|report| {
            let error = report.failure.as_ref().map(|failure| {
                json!({ "version": failure.version, "message": failure.error.message, "notes": failure.error.notes })
            });
            json!({ "name": report.database, "steps": report.steps, "error": error })
        });
        let databases: Vec<Value> = databases.collect();
        ui::json(&json!({ "stack": cx.stack.name, "databases": databases }))?;
    } else {
        let text: String = reports.iter().map(rendered).collect();
        ui::data(&text)?;
    }
    let failures: Vec<_> = reports.iter().filter_map(|report| report.failure.as_ref()).collect();
    if let Some(first) = failures.first() {
        let title = match failures.len() {
            1 => format!("migration {} of `{}` would fail; only a copy was touched", first.version, first.database),
            count => format!("{count} migrations would fail; only copies were touched"),
        };
        let body: Vec<String> = failures.iter().map(|failure| failure.rendered()).collect();
        bail!(Failure::new(Exit::Failed, title).body(body.join("\n")));
    }
    let steps: usize = reports.iter().map(|report| report.steps.len()).sum();
    ui::tell(match steps {
        0 => format!("{} is migrated: nothing to rehearse", cx.stack.name),
        _ => format!("\n{} rehearsed on copies, which are gone again", units::plural(steps, "migration")),
    });
    Ok(Exit::Done)
}

/// A copy of each database that has something pending must have room.
async fn check_space(cx: &Context, set: &mut Set<'_>, gaps: Gaps) -> Result<()> {
    let Some(instance) = cx.instance()? else { return Ok(()) };
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    for member in &mut set.members {
        if member.pending(gaps).is_ok_and(|steps| steps.is_empty()) {
            continue;
        }
        names.push(member.target.name().to_owned());
        sizes.push(member.target.bytes().await?);
    }
    let places = places(cx, &instance, &names).await?;
    space::check("copying", &places.iter().zip(sizes).collect::<Vec<_>>()).await
}

fn rendered(report: &Report) -> String {
    report.steps.iter().map(|step| rendered_step(&report.database, step)).collect()
}

fn rendered_step(database: &str, step: &StepReport) -> String {
    let StepReport { version, description, seconds, locks, rewritten, rows, no_transaction } = step;
    let mut text = format!("  {database}  {version} {description}  {:.1} ms\n", seconds * 1e3);
    for lock in locks {
        text.push_str(&format!("    locks     {lock}, for up to {:.1} ms\n", seconds * 1e3));
    }
    if *no_transaction {
        text.push_str("    outside of a transaction: its locks come and go with each statement\n");
    }
    for table in rewritten {
        text.push_str(&format!("    rewrites  {table}\n"));
    }
    for (table, count) in rows {
        text.push_str(&format!("    rows      {table}: {}\n", units::count(*count)));
    }
    text
}
