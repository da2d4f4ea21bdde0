//! An upgrade that was begun, as it is written down from the moment there is no way but forward. It is about data, and goes
//! where they go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::old::BackedUp;
use crate::context::Context;
use crate::engine::aside::{Behind, Note};
use crate::files;
use crate::instance::Instance;
use crate::ui::{Exit, Failure};

/// In the instance's folder while an upgrade is under way.
pub const FILE: &str = "upgrade.json";

#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The id of the instance whose data it is about. Earlier versions of the helper did not say.
    #[serde(default)]
    instance: Option<String>,
    /// Short name → the major version that its data are of.
    pub from: BTreeMap<String, u32>,
    pub to: u32,
    pub backup: String,
    /// Short name → the databases that this backup does not have.
    #[serde(default)]
    pub behind: BTreeMap<String, Vec<Behind>>,
}

impl State {
    pub fn of(instance: &Instance, from: BTreeMap<String, u32>, to: u32, backed_up: &BackedUp) -> State {
        let BackedUp { backup, behind, .. } = backed_up;
        State { instance: Some(instance.identity.id.clone()), from, to, backup: backup.clone(), behind: behind.clone() }
    }

    /// The one that was interrupted. What another instance has left is removed: its data are gone.
    pub fn read(instance: &Instance) -> Result<Option<State>> {
        let state: Option<State> = files::read_json(&path(instance))?;
        match state.as_ref().and_then(|state| state.instance.as_ref()) {
            Some(id) if *id != instance.identity.id => {
                State::forget(instance)?;
                Ok(None)
            }
            _ => Ok(state),
        }
    }

    pub fn write(&self, instance: &Instance) -> Result<()> {
        files::write_json(&path(instance), self)
    }

    pub fn forget(instance: &Instance) -> Result<()> {
        files::remove_if_present(&path(instance))
    }

    /// Moves it into the folder that the data are put into.
    pub fn put_into(instance: &Instance, folder: &Path) -> Result<()> {
        move_file(&path(instance), &folder.join(FILE))
    }

    /// Brings it back out of that folder.
    pub fn bring_back(instance: &Instance, folder: &Path) -> Result<()> {
        move_file(&folder.join(FILE), &path(instance))
    }

    /// What is written down with the data of a database.
    pub fn note(&self, name: &str, major: u32) -> Note {
        Note { major, backup: self.backup.clone(), behind: self.behind.get(name).cloned().unwrap_or_default() }
    }

    pub fn names(&self) -> Vec<String> {
        self.from.keys().cloned().collect()
    }

    /// `game, learning`.
    pub fn shown(&self) -> String {
        self.names().join(", ")
    }
}

fn path(instance: &Instance) -> PathBuf {
    instance.folder.join(FILE)
}

/// To another file system as well; where there is none, nothing happens.
fn move_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(state) = files::read_json::<State>(from)? {
        files::write_json(to, &state)?;
    }
    files::remove_if_present(from)
}

/// Of a new instance, whatever is there is about data that are gone.
pub fn forget_of_another(instance: &Instance) -> Result<()> {
    match State::read(instance)? {
        Some(state) if state.instance.is_none() => State::forget(instance),
        _ => Ok(()),
    }
}

/// An empty new server must not be taken for the database: whatever starts, fills or keeps one waits for the upgrade. To be
/// asked while the instance's lock is held, for one that goes on is none that was interrupted.
pub fn refuse_if_interrupted(cx: &Context, instance: &Instance) -> Result<()> {
    let Some(state) = State::read(instance)? else { return Ok(()) };
    bail!(
        Failure::new(
            Exit::Refused,
            format!("an upgrade of {} to PostgreSQL {} was interrupted", state.shown(), state.to)
        )
        .body(format!("  nothing is lost: the data are in the backup `{}`, and the old ones are kept", state.backup))
        .hint(format!("`cargo xtask upgrade{}` goes on", cx.stack_option()))
    )
}
