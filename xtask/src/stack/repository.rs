//! Where the repository is and which stacks it has.

use std::path::{Path, PathBuf};

use super::images::IMAGES_FILE;

/// Files of `config/` that are no manifests.
const NOT_MANIFESTS: [&str; 2] = ["images", "toolbox"];
/// The stack that `.env` belongs to, where there are several.
const PREFERRED_STACK: &str = "effect";

#[derive(Debug, Clone)]
pub struct Repository {
    /// Absolute, without symbolic links.
    pub root: PathBuf,
    /// The names of the stacks, sorted.
    pub stacks: Vec<String>,
}

impl Repository {
    /// Looks from `start` upwards for the folder that has `config/images.toml`.
    pub fn find(start: &Path) -> Option<Repository> {
        let start = std::fs::canonicalize(start).ok()?;
        let root = start.ancestors().find(|folder| folder.join(IMAGES_FILE).is_file())?.to_owned();
        let mut stacks: Vec<String> = std::fs::read_dir(root.join("config"))
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .filter(|name| !NOT_MANIFESTS.contains(&name.as_str()))
            .collect();
        stacks.sort();
        Some(Repository { root, stacks })
    }

    /// The stack that is meant when none is named.
    pub fn default_stack(&self) -> &str {
        let preferred = self.stacks.iter().find(|name| *name == PREFERRED_STACK);
        preferred.or(self.stacks.first()).map_or(PREFERRED_STACK, String::as_str)
    }

    pub fn manifest_of(&self, stack: &str) -> PathBuf {
        PathBuf::from("config").join(format!("{stack}.toml"))
    }

    /// `.env` is the default stack's, `.env.<stack>` another's: both use names such as `POSTGRES_USER`.
    pub fn env_file_of(&self, stack: &str) -> PathBuf {
        match stack == self.default_stack() {
            true => PathBuf::from(".env"),
            false => PathBuf::from(format!(".env.{stack}")),
        }
    }

    /// Run state of this checkout; ignored by Git.
    pub fn state_folder(&self, stack: &str) -> PathBuf {
        self.root.join(".xtask").join(stack)
    }
}
