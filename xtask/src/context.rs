//! What every verb starts from: the repository, the stack, and what the person said about the run. Built once; nothing
//! reads the environment of the stack after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::cli::Global;
use crate::files;
use crate::instance::Instance;
use crate::instance::lock::{Busy, Lock};
use crate::stack::fault::Faults;
use crate::stack::model::UnknownName;
use crate::stack::{Repository, Service, Stack, resolve};
use crate::toolbox::Toolbox;
use crate::ui::{self, Exit, Failure, units};

#[derive(Debug)]
pub struct Context {
    pub repository: Repository,
    pub stack: Stack,
    /// Where the person stands.
    pub folder: PathBuf,
    pub offline: bool,
    busy: Busy,
    /// The verb as typed, for whoever waits for it.
    command: String,
    process: BTreeMap<String, String>,
}

impl Context {
    pub fn new(global: &Global) -> Result<Context> {
        let folder = std::env::current_dir()?;
        let repository = repository(&folder)?;
        let name = stack_name(global, &repository);
        if !repository.stacks.contains(&name) {
            bail!(unknown("stack", &name, repository.stacks.iter().map(String::as_str)));
        }
        // A variable that is not UTF-8 cannot be one of ours.
        let process =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let process: BTreeMap<String, String> = process.collect();
        let stack = resolve::load(&repository, &name, &process).map_err(configuration_failure)?;
        let typed: Vec<String> = std::env::args().skip(1).collect();
        Ok(Context {
            repository,
            stack,
            folder,
            offline: global.offline,
            busy: if global.no_wait { Busy::Fail } else { Busy::Wait },
            command: format!("cargo xtask {}", typed.join(" ")),
            process,
        })
    }

    /// Reads the configuration again, after `.env` was changed.
    pub fn reload(&mut self) -> Result<()> {
        self.stack = resolve::load(&self.repository, &self.stack.name, &self.process).map_err(configuration_failure)?;
        Ok(())
    }

    /// A variable of the process environment; an empty one is none.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.process.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The lock of this instance, waited for.
    pub async fn lock(&self) -> Result<Lock> {
        Lock::take(&self.repository.state_folder(&self.stack.name), &self.command, self.busy).await
    }

    /// Whether somebody else's work is waited for.
    pub fn waits(&self) -> bool {
        self.busy == Busy::Wait
    }

    /// The instance of this checkout, if there is one.
    pub fn instance(&self) -> Result<Option<Instance>> {
        Instance::open(&self.repository, &self.stack.name)
    }

    /// As [`instance`](Self::instance), for a verb that is nothing without one.
    pub fn running_instance(&self) -> Result<Instance> {
        self.instance()?.ok_or_else(|| {
            let hint = format!("`cargo xtask up{}`", self.stack_option());
            Failure::new(Exit::Failed, format!("{} is not running", self.stack.name)).hint(hint).into()
        })
    }

    pub fn toolbox(&self) -> Result<Toolbox> {
        Toolbox::open(&self.repository.root, self.offline).map_err(|faults| configuration_failure(faults).into())
    }

    /// The services of those names, in the stack's order; all unknown names are told at once.
    pub fn services(&self, names: &[String]) -> Result<Vec<&Service>> {
        let known = self.stack.service_names();
        let unknown_names: Vec<&String> = names.iter().filter(|name| self.stack.service(name).is_none()).collect();
        if let Some(first) = unknown_names.first() {
            let mut failure = unknown("service", first, known.iter().copied());
            if unknown_names.len() > 1 {
                let all = unknown_names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                failure.title = format!("{} has no services {all}", self.stack.name);
            }
            bail!(failure);
        }
        let asked = |service: &&Service| names.iter().any(|name| *name == service.name || *name == service.short_name);
        Ok(self.stack.services.iter().filter(asked).collect())
    }

    /// Asks a person, by the stack's name, before something is destroyed. `command` is the same verb with nobody asked, and
    /// `so_far` what has happened until here.
    pub async fn agree(&self, command: &str, so_far: &str) -> Result<()> {
        if !ui::can_ask() {
            bail!(
                Failure::new(Exit::Refused, format!("nobody is there to ask, {so_far}")).hint(format!("`{command}`"))
            );
        }
        let name = self.stack.name.clone();
        let answer = tokio::task::spawn_blocking(move || ui::ask(&format!("\nType {name} to go on: "))).await??;
        if answer != self.stack.name {
            bail!(Failure::new(Exit::Refused, format!("not agreed, {so_far}")));
        }
        Ok(())
    }

    /// A path as the person would write it.
    pub fn relative(&self, path: &Path) -> PathBuf {
        files::relative_to(path, &self.folder)
    }

    /// ` --stack nanika`, where the stack must be named in a command that is to be pasted.
    pub fn stack_option(&self) -> String {
        match self.stack.name == self.repository.default_stack() {
            true => String::new(),
            false => format!(" --stack {}", self.stack.name),
        }
    }
}

/// The stack that is asked for; an empty name is none.
pub fn stack_name(global: &Global, repository: &Repository) -> String {
    let asked = global.stack.clone().filter(|name| !name.is_empty());
    asked.unwrap_or_else(|| repository.default_stack().to_owned())
}

/// The repository around a folder; `XTASK_ROOT` names another one.
pub fn repository(folder: &Path) -> Result<Repository> {
    let start = std::env::var_os("XTASK_ROOT").map_or_else(|| folder.to_owned(), PathBuf::from);
    match Repository::find(&start) {
        Some(repository) => Ok(repository),
        None => bail!(
            Failure::new(Exit::Usage, format!("no `config/images.toml` in `{}` or above", start.display()))
                .hint("run this inside the repository, or set `XTASK_ROOT` to it")
        ),
    }
}

/// A wrong name: the nearest right one, and all of them.
pub fn unknown<'a>(what: &str, written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Failure {
    let unknown = UnknownName::new(written, known);
    let failure = Failure::new(Exit::Usage, format!("there is no {what} `{written}`"))
        .body(format!("  there are: {}", unknown.known.join(", ")));
    match unknown.nearest {
        Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
        None => failure,
    }
}

/// Every fault of the configuration in one error.
pub fn configuration_failure(faults: Faults) -> Failure {
    let count = units::plural(faults.0.len(), "fault");
    Failure::new(Exit::Usage, format!("{count} in the configuration, nothing was done")).body(faults.to_string())
}
