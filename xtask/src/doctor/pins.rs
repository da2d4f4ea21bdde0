//! What is pinned, and whether it agrees: the flake's lock with the flake, and the versions that run or that images hold
//! with those that the stack names.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{Finding, Level};
use crate::engine::Engine;
use crate::engine::docker::images;
use crate::engine::server::Server;
use crate::files;
use crate::stack::{Kind, Service, Stack};
use crate::toolbox::Toolbox;

/// `1.95.0` as numbers that can be compared.
pub fn parts(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

/// Whether flake.lock is of flake.nix. A repository without a flake has nothing to agree.
pub fn flake(root: &Path) -> Vec<Finding> {
    let (Ok(flake), Ok(lock)) = (files::read_text(&root.join("flake.nix")), files::read_text(&root.join("flake.lock")))
    else {
        return Vec::new();
    };
    let fix = "`nix flake lock`, on a machine with a network";
    let Ok(lock) = serde_json::from_str::<Value>(&lock) else {
        return vec![Finding::new("flake-lock", Level::Error, "flake.lock is no JSON").fix(fix)];
    };
    let original = &lock["nodes"]["nixpkgs"]["original"];
    let text = |key: &str| original[key].as_str().unwrap_or_default();
    let locked = format!("{}:{}/{}/{}", text("type"), text("owner"), text("repo"), text("ref"));
    if flake.contains(&format!("\"{locked}\"")) {
        let revision = lock["nodes"]["nixpkgs"]["locked"]["rev"].as_str().unwrap_or_default();
        let text = format!("{locked} at {}", revision.get(..12).unwrap_or(revision));
        return vec![Finding::new("flake", Level::Info, text)];
    }
    let text = format!("flake.lock is of `{locked}`, which flake.nix does not name");
    vec![Finding::new("flake-lock", Level::Error, text).fix(fix)]
}

/// Where toolbox, images and manifest name different majors, and where what runs is not what is pinned.
pub async fn versions(
    stack: &Stack,
    toolbox: Option<&Toolbox>,
    engine: Option<&Engine<'_>>,
    running: &[Server],
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if let (Some(toolbox), Some((_, postgres))) = (toolbox, stack.databases().next())
        && let Some(build) = toolbox.version("postgresql")
        && let Some(image) = stack.find(|kind| matches!(kind, Kind::Postgres(_))).map(pinned)
        && parts(build).first() == Some(&postgres.major)
        && parts(build) != parts(&image)
    {
        let text = format!("the toolbox has PostgreSQL {build}, and the image is {image}");
        findings.push(Finding::new("pins-differ", Level::Info, text));
    }
    if let Some(Engine::Docker(_)) = engine {
        findings.extend(images_that_differ(stack).await?);
    }
    let asked = running.iter().map(async |server: &Server| {
        let service = stack.service(&server.service)?;
        let answer = server.ask(service).await.ok()?;
        Some((service, answer.version?))
    });
    let answers: Vec<(&Service, String)> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
    let mut drifts: Vec<(String, Vec<&str>)> = Vec::new();
    for (service, version) in &answers {
        let pinned = pinned(service);
        if !pinned.is_empty() && parts(version) != parts(&pinned) {
            let text = format!("{version} runs, and {pinned} is pinned");
            match drifts.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) => names.push(&service.short_name),
                None => drifts.push((text, vec![&service.short_name])),
            }
        }
    }
    findings.extend(
        drifts
            .into_iter()
            .map(|(text, names)| Finding::new("version-drift", Level::Info, format!("{}: {text}", names.join(", ")))),
    );
    Ok(findings)
}

/// Images that hold another version than their tag says: named by a tag that has moved, or by `.env`.
async fn images_that_differ(stack: &Stack) -> Result<Vec<Finding>> {
    let services: Vec<&Service> = stack.core().collect();
    let found = images::seen(stack, &services).await?;
    let differing = services.iter().filter_map(|service| {
        let held = found.get(&stack.image_of(service))?.version()?;
        let pinned = pinned(service);
        (!pinned.is_empty() && parts(held) != parts(&pinned)).then(|| {
            let name = &service.short_name;
            Finding::new(
                "image-drift",
                Level::Warning,
                format!("{name}: the image holds {held}, and {pinned} is pinned"),
            )
            .fix(format!("`docker pull {}`, then `cargo xtask up`", stack.image_of(service)))
        })
    });
    Ok(differing.collect())
}

/// The version that a service's image is tagged with: `18.6` of `18.6-alpine3.24`.
fn pinned(service: &Service) -> String {
    let tag = &service.image.tag;
    tag.split('-').next().filter(|version| !parts(version).is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parts("1.95.0") >= parts("1.95"));
        assert!(parts("1.9.0") < parts("1.95"));
        assert_eq!(parts("18.6"), parts("18.6-alpine3.24")[..2]);
    }
}
