//! The Rust toolchain on PATH: what the manifests ask for, what the flake's shell was opened with, and whether `cargo` and
//! `rustc` are of one release.

use std::path::Path;

use xshell::cmd;

use super::pins::parts;
use super::{Finding, Level};
use crate::tools;

/// The shell that the flake opens says its name, and which `rustc` it brings.
const SHELL_VARIABLE: &str = "XTASK_SHELL";
const SHELL_RUSTC_VARIABLE: &str = "XTASK_SHELL_RUSTC";

/// `wanted`: each manifest that asks for a version, and the version. A repository may choose its toolchain by a file, hence
/// its `root`.
pub fn findings(root: &Path, wanted: &[(String, String)]) -> Vec<Finding> {
    let shell = match (std::env::var(SHELL_VARIABLE), std::env::var_os("IN_NIX_SHELL")) {
        (Ok(name), _) => format!("inside the flake's shell `{name}`"),
        (Err(_), Some(_)) => "inside a Nix shell that is not the flake's".to_owned(),
        (Err(_), None) => "outside the flake's shell".to_owned(),
    };
    let Some(cargo) = version_of("cargo", root) else {
        return vec![Finding::new("toolchain", Level::Warning, format!("no cargo on PATH, {shell}"))];
    };
    let mut findings = vec![Finding::new("toolchain", Level::Info, format!("cargo {cargo}, {shell}"))];
    let rustc = version_of("rustc", root);
    for (program, found) in [("cargo", Some(&cargo)), ("rustc", rustc.as_ref())] {
        let Some(found) = found else { continue };
        let too_old = wanted.iter().find(|(_, wanted)| parts(found) < parts(wanted));
        if let Some((manifest, wanted)) = too_old {
            let text = format!("{program} is {found}, and {manifest} asks for {wanted}");
            findings.push(Finding::new("toolchain-old", Level::Warning, text).fix("`rustup update`, or `nix develop`"));
        }
    }
    let Some(rustc) = rustc else { return findings };
    if parts(&rustc).get(..2) != parts(&cargo).get(..2) {
        let text = format!("cargo is {cargo}, and rustc is {rustc}: PATH mixes two toolchains");
        findings.push(Finding::new("toolchain-mixed", Level::Warning, text).fix("`command -v cargo rustc` shows both"));
    }
    if let Some(pinned) = std::env::var(SHELL_RUSTC_VARIABLE).ok().filter(|pinned| parts(pinned) != parts(&rustc)) {
        let text = format!("rustc is {rustc}, and the flake's shell brings {pinned}: PATH has another one before it");
        findings.push(Finding::new("toolchain-drift", Level::Warning, text).fix("`command -v rustc` shows which"));
    }
    findings
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn version_of(program: &str, folder: &Path) -> Option<String> {
    let shell = tools::shell_in(folder).ok()?;
    let text = tools::read(cmd!(shell, "{program} --version"), None).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}
