//! `cargo xtask doctor`: looks for everything first, then tells it; `--fix` mends what is provably ours.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::backup::schedule;
use crate::cli::{DoctorArgs, Global};
use crate::context::{Context, repository, stack_name};
use crate::doctor::{Finding, Level, backups, crates, machine, pins, services, toolchain};
use crate::engine::Engine;
use crate::stack::fault::Faults;
use crate::stack::resolve;
use crate::ui::{self, Exit, failure, paint, units};

pub async fn run(global: &Global, args: &DoctorArgs) -> Result<Exit> {
    let mut findings = rust();
    match Context::new(global) {
        Ok(cx) => findings.extend(look(&cx).await),
        // A wrong configuration is a finding among the others here.
        Err(error) => {
            findings.extend(told(machine::engines(None).await));
            findings.extend(configuration(global).ok_or(error)?);
        }
    }
    findings.extend(services::forgotten());
    findings.sort_by_key(|finding| finding.level);

    let mut mended = Vec::new();
    if args.fix {
        let mut remaining = Vec::new();
        for finding in findings {
            match &finding.mend {
                Some(mend) => mended.push(format!("{}: {}", finding.code, mend.carry_out().await?)),
                None => remaining.push(finding),
            }
        }
        findings = remaining;
    }
    let bad = findings.iter().filter(|finding| finding.level != Level::Info).count();
    if args.json {
        ui::json(&json!({ "findings": findings, "mended": mended }))?;
    } else {
        ui::data(&rendered(&findings, &mended, bad))?;
    }
    Ok(if bad == 0 { Exit::Done } else { Exit::Found })
}

/// The toolchain and Cargo's lock, which have nothing to do with a stack.
fn rust() -> Vec<Finding> {
    let folder = std::env::current_dir().unwrap_or_default();
    let root = repository(&folder).map_or(folder, |repository| repository.root);
    let workspace = crates::Workspace::read(&root);
    // Elsewhere, what it takes to build the helper itself.
    let own = || vec![("the helper".to_owned(), env!("CARGO_PKG_RUST_VERSION").to_owned())];
    let mut findings =
        toolchain::findings(&root, &workspace.as_ref().map_or_else(own, crates::Workspace::rust_versions));
    findings.extend(workspace.iter().flat_map(crates::Workspace::lock));
    findings
}

async fn look(cx: &Context) -> Vec<Finding> {
    let stack = &cx.stack;
    let mut findings = machine::memory(stack);
    findings.extend(told(machine::disk(&cx.repository.root)));
    findings.extend(told(machine::server_programs(&cx.repository, stack).await));
    findings.extend(services::passwords(stack));
    findings
        .extend(told(schedule::standing(cx).map(|scheduled| {
            backups::scheduled(scheduled.as_ref().map(|(_, standing)| standing), &cx.stack_option())
        })));
    let instance = match cx.instance() {
        Ok(instance) => instance,
        Err(error) => {
            findings.push(Finding::new("instance-unreadable", Level::Error, failure::in_a_line(&error)));
            None
        }
    };
    findings.extend(told(machine::engines(instance.as_ref()).await));
    findings.extend(pins::flake(&cx.repository.root));
    let toolbox = cx.toolbox().ok();
    // An engine that is gone is a finding already.
    let is_gone = findings.iter().any(|finding| finding.code == "engine-gone");
    let engine = instance.as_ref().map(|instance| Engine::of(&cx.repository, stack, instance));
    let engine = engine.filter(|engine| !(is_gone && matches!(engine, Engine::Docker(_))));
    let running = match &engine {
        Some(engine) => engine.running(stack).await,
        None => Ok(Vec::new()),
    };
    match running {
        Ok(running) => {
            findings.extend(told(pins::versions(stack, toolbox.as_ref(), engine.as_ref(), &running).await));
            findings.extend(told(services::taken_ports(stack, &running, &cx.stack_option())));
        }
        Err(error) => findings.push(not_looked(&error)),
    }
    findings.extend(match &engine {
        Some(Engine::Native(native)) => told(services::instance(stack, native.instance)),
        Some(Engine::Docker(docker)) => told(services::containers(docker).await),
        None => Vec::new(),
    });
    findings
}

/// What one look found; that it could not look is a finding among the others.
fn told(looked: Result<Vec<Finding>>) -> Vec<Finding> {
    looked.unwrap_or_else(|error| vec![not_looked(&error)])
}

fn not_looked(error: &anyhow::Error) -> Finding {
    Finding::new("not-looked", Level::Error, failure::in_a_line(error))
}

/// The faults of the configuration as findings; `None` if it is not the configuration that is wrong.
fn configuration(global: &Global) -> Option<Vec<Finding>> {
    let repository = repository(&std::env::current_dir().ok()?).ok()?;
    let name = stack_name(global, &repository);
    let process =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let Faults(faults) = resolve::load(&repository, &name, &process.collect()).err()?;
    let findings = faults.into_iter().map(|fault| {
        let place = if fault.file == Path::new("") { String::new() } else { format!("{}: ", fault.place()) };
        let text = format!("{place}{}: found {}, expected {}", fault.key, fault.found, fault.expected);
        let finding = Finding::new("configuration", Level::Error, text);
        match fault.fix {
            Some(fix) => finding.fix(format!("write {fix}")),
            None => finding,
        }
    });
    Some(findings.collect())
}

fn rendered(findings: &[Finding], mended: &[String], bad: usize) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Error => paint(ui::BAD, "error  "),
            Level::Warning => paint(ui::WARNING, "warning"),
            Level::Info => paint(ui::FAINT, "info   "),
        };
        text.push_str(&format!("  {level}  {}: {}\n", finding.code, finding.text));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("           {} {fix}\n", paint(ui::STRONG, "fix:")));
        }
    }
    for done in mended {
        text.push_str(&format!("  {}  {done}\n", paint(ui::GOOD, "mended ")));
    }
    let summary = match bad {
        0 => "nothing is wrong".to_owned(),
        _ => format!("{} to look at", units::plural(bad, "thing")),
    };
    format!("{text}\n{summary}\n")
}
