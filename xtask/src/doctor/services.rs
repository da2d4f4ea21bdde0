//! The stack's services: ports, data, records, passwords, and servers whose checkout is gone.

use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use super::mend::Mend;
use super::{Finding, Level};
use crate::engine::docker::Docker;
use crate::engine::native::observe::{self, Seen};
use crate::engine::native::servers::data_folder;
use crate::engine::native::start::data_major;
use crate::engine::server::Server;
use crate::instance::{EngineKind, Instance, registry};
use crate::ports;
use crate::stack::fault::is_secret;
use crate::stack::model::SettingGroup;
use crate::stack::{Kind, Service, Stack};
use crate::ui::{Failure, failure};

pub fn taken_ports(stack: &Stack, running: &[Server], option: &str) -> Result<Vec<Finding>> {
    let ours: Vec<u16> = running.iter().map(|server| server.port).collect();
    let taken = ports::conflicts(stack.core(), &ours);
    let findings = taken.iter().map(|conflict| {
        let text =
            format!("port {} of `{}` is held by {}", conflict.port, conflict.service, conflict.holder.describe());
        Finding::new("port-taken", Level::Error, text).fix(format!("`cargo xtask ports --fix{option}`"))
    });
    Ok(findings.collect())
}

/// Default passwords where they must not be.
pub fn passwords(stack: &Stack) -> Vec<Finding> {
    if stack.environment != "production" {
        return Vec::new();
    }
    let defaults = stack.settings.iter().filter(|setting| {
        setting.group != SettingGroup::Image && is_secret(&setting.name) && setting.value == setting.default
    });
    let findings = defaults.map(|setting| {
        let text = format!(
            "{}=production, and `{}` is the default that everybody knows",
            stack.environment_variable, setting.name
        );
        Finding::new("default-password", Level::Error, text).fix(format!(
            "set `{}` in {}",
            setting.name,
            stack.env_file.display()
        ))
    });
    findings.collect()
}

/// The containers of this instance: which died, which the manifest no longer has; and the majors of their data.
pub async fn containers(docker: &Docker<'_>) -> Result<Vec<Finding>> {
    let look = docker.look().await?;
    let mut findings = Vec::new();
    for container in &look.containers {
        let service = docker.stack.service(&container.service);
        let name = service.map_or(&container.service, |service| &service.short_name);
        if service.is_none() {
            let text = format!("`{}` is there, and the manifest no longer has it", container.name);
            findings.push(Finding::new("service-unknown", Level::Warning, text).fix("`cargo xtask down`"));
        } else if container.has_died() {
            let text = format!("`{name}` ended, though nobody stopped it: {}", container.end());
            let fix = format!("`cargo xtask up` starts it again, `cargo xtask logs {name}` may say why");
            findings.push(Finding::new("container-died", Level::Warning, text).fix(fix));
        } else if container.is_paused() {
            let text = format!("`{name}` is paused");
            findings.push(Finding::new("container-paused", Level::Warning, text).fix("`cargo xtask up`"));
        }
    }
    let majors = docker.majors(&look).await?;
    for (service, major, wanted) in majors.into_iter().filter(|(_, found, wanted)| found != wanted) {
        let text = format!(
            "the data of `{service}` are PostgreSQL {major}'s, and {} asks for {wanted}",
            docker.stack.manifest_file.display()
        );
        let fix = to_the_manifest(major, wanted);
        findings.push(Finding::new("data-major", Level::Error, text).fix(fix));
    }
    Ok(findings)
}

/// What brings data and manifest together.
fn to_the_manifest(found: u32, wanted: u32) -> String {
    match found < wanted {
        true => format!("`cargo xtask upgrade` moves them to {wanted}, or set `postgres.major = {found}` again"),
        false => format!("set `postgres.major = {found}` again: newer data do not move to an older server"),
    }
}

/// Data and records of this instance.
pub fn instance(stack: &Stack, instance: &Instance) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for service in stack.core() {
        findings.extend(data(stack, instance, service)?);
    }
    for record in observe::without_folder(instance) {
        let text = format!("`{}` (pid {}) runs, and its folder is gone", record.service, record.pid);
        findings.push(Finding::new("folder-gone", Level::Error, text).fix("`cargo xtask stop`, then `cargo xtask up`"));
    }
    for name in observe::service_folders(instance)? {
        let observed = match observe::service(instance, &name) {
            Ok(observed) => observed,
            Err(error) => {
                findings.push(unreadable(&name, &error));
                continue;
            }
        };
        match observed {
            Seen::Died(record) => findings.push(
                Finding::new("record-stale", Level::Warning, format!("`{name}` (pid {}) is gone, though nobody stopped it", record.pid))
                    .fix(format!("`cargo xtask up` starts it again, `cargo xtask logs {name}` may say why; `doctor --fix` clears the record"))
                    .mend(Mend::ForgetRecord { instance: instance.clone(), service: name.clone() }),
            ),
            Seen::Running(record) => {
                if stack.service(&name).is_none() {
                    let text = format!("`{name}` (pid {}) runs, and the manifest no longer has it", record.pid);
                    let fix = Finding::new("service-unknown", Level::Warning, text).fix("`cargo xtask down`");
                    findings.push(fix);
                }
                if let Some(sockets) = record.sockets.as_ref().filter(|sockets| !sockets.is_dir()) {
                    let text = format!("the socket folder `{}` of `{name}` is gone", sockets.display());
                    findings.push(Finding::new("sockets-gone", Level::Error, text).fix("`cargo xtask up` restarts it"));
                }
            }
            Seen::Absent | Seen::Stopped => {}
        }
    }
    Ok(findings)
}

fn unreadable(name: &str, error: &anyhow::Error) -> Finding {
    let finding = Finding::new("record-unreadable", Level::Error, format!("{name}: {}", failure::in_a_line(error)));
    match error.downcast_ref::<Failure>().and_then(|failure| failure.hint.clone()) {
        Some(hint) => finding.fix(hint),
        None => finding,
    }
}

fn data(stack: &Stack, instance: &Instance, service: &Service) -> Result<Vec<Finding>> {
    let data = data_folder(instance, &service.short_name);
    let Ok(metadata) = data.metadata() else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    let user = instance.identity.server_user.as_ref();
    let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    if metadata.uid() != uid {
        let name = user.map_or_else(|| uid.to_string(), |user| user.name.clone());
        let text = format!("the data of `{}` belong to user {}, not to {name}", service.short_name, metadata.uid());
        let fix = format!("`sudo chown -R {name} '{}'`", data.display());
        findings.push(Finding::new("data-owner", Level::Error, text).fix(fix));
    }
    if let Kind::Postgres(postgres) = &service.kind
        && let Some(found) = data_major(&data)
        && found != postgres.major
    {
        let text = format!(
            "the data of `{}` are PostgreSQL {found}'s, and {} asks for {}",
            service.short_name,
            stack.manifest_file.display(),
            postgres.major
        );
        let fix = to_the_manifest(found, postgres.major);
        findings.push(Finding::new("data-major", Level::Error, text).fix(fix));
    }
    Ok(findings)
}

/// Instances of this user whose checkout was removed.
pub fn forgotten() -> Vec<Finding> {
    let gone = registry::entries().into_iter().filter(registry::Entry::checkout_is_gone);
    let findings = gone.map(|entry| {
        let containers = entry.identity.engine == EngineKind::Docker;
        let running = entry.records.iter().filter(|record| record.is_alive()).count();
        let checkout = entry.identity.checkout.display().to_string();
        let text = match running {
            _ if containers => {
                format!(
                    "an instance of {} in {checkout}, whose state is gone, may have containers",
                    entry.identity.stack
                )
            }
            0 => format!("an instance of {} in {checkout}, whose state is gone, is still noted", entry.identity.stack),
            _ => format!("{running} servers of {} still run for {checkout}, whose state is gone", entry.identity.stack),
        };
        let level = if running == 0 && !containers { Level::Info } else { Level::Warning };
        Finding::new("checkout-gone", level, text).fix("`cargo xtask doctor --fix` stops them and forgets it").mend(
            Mend::ForgetInstance {
                data: entry.data_folder(),
                folder: entry.folder,
                records: entry.records,
                identity: Box::new(entry.identity),
            },
        )
    });
    findings.collect()
}
