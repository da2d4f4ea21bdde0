//! One running copy of a stack, belonging to one checkout: who it is, where its data lie, who may change it now.
//!
//! State lies beside what it describes, below `.xtask/<stack>/` of the checkout: `instance.json` (who), `lock` (who is
//! changing it) and a folder for each service. Only where the servers' user cannot reach the checkout (root's home, for
//! a start) do the service folders lie elsewhere, and `instance.json` says where.

pub mod known;
pub mod lock;
pub mod registry;
pub mod server_user;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::stack::Repository;
use crate::ui::{Exit, Failure};
use server_user::ServerUser;

/// Where services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    Docker,
    Native,
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            EngineKind::Docker => "docker",
            EngineKind::Native => "native",
        })
    }
}

/// The content of `instance.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Eight hexadecimal digits, drawn once.
    pub id: String,
    pub stack: String,
    pub engine: EngineKind,
    pub checkout: PathBuf,
    pub created: Timestamp,
    /// The unprivileged user of the servers, where the helper runs as root.
    pub server_user: Option<ServerUser>,
    /// The service folders, where they are not beside this file.
    pub data_elsewhere: Option<PathBuf>,
    /// The Compose project, on the docker engine.
    #[serde(default)]
    pub project: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Instance {
    /// `.xtask/<stack>` of the checkout.
    pub folder: PathBuf,
    pub identity: Identity,
}

impl Instance {
    /// The instance of this checkout, if there is one. A checkout that was moved keeps its instance; one that was copied
    /// with its state does not get a second owner for the same servers.
    pub fn open(repository: &Repository, stack: &str) -> Result<Option<Instance>> {
        let folder = repository.state_folder(stack);
        let file = folder.join("instance.json");
        let Some(mut identity) = files::read_json::<Identity>(&file)? else { return Ok(None) };
        if identity.checkout != repository.root {
            let elsewhere = identity.checkout.join(".xtask").join(stack).join("instance.json");
            let original = files::read_json::<Identity>(&elsewhere).ok().flatten();
            if original.is_some_and(|original| original.id == identity.id) {
                bail!(
                    Failure::new(
                        Exit::Refused,
                        format!("`{}` is a copy of another checkout's state", folder.display())
                    )
                    .body(format!("  its servers and data belong to {}", identity.checkout.display()))
                    .hint(format!(
                        "remove the copy: `rm -r '{}'`, then `cargo xtask up` starts afresh",
                        folder.display()
                    ))
                );
            }
            identity.checkout.clone_from(&repository.root);
        }
        Ok(Some(Instance { folder, identity }))
    }

    /// A new instance of plain processes, not yet written.
    pub fn native(repository: &Repository, stack: &str) -> Result<Instance> {
        let server_user = server_user::choose(&repository.root)?;
        let id = random_id()?;
        let reachable = server_user.as_ref().is_none_or(|user| user.reaches(&repository.root));
        let data_elsewhere = (!reachable).then(|| Path::new("/var/lib/cargo-xtask").join(&id));
        let instance = Instance::new(repository, stack, EngineKind::Native, id);
        Ok(Instance { identity: Identity { server_user, data_elsewhere, ..instance.identity }, ..instance })
    }

    /// A new instance of containers, not yet written.
    pub fn docker(repository: &Repository, stack: &str, id: String, project: String) -> Instance {
        let instance = Instance::new(repository, stack, EngineKind::Docker, id);
        Instance { identity: Identity { project: Some(project), ..instance.identity }, ..instance }
    }

    fn new(repository: &Repository, stack: &str, engine: EngineKind, id: String) -> Instance {
        Instance {
            folder: repository.state_folder(stack),
            identity: Identity {
                id,
                stack: stack.to_owned(),
                engine,
                checkout: repository.root.clone(),
                created: Timestamp::now(),
                server_user: None,
                data_elsewhere: None,
                project: None,
            },
        }
    }

    /// Writes `instance.json` and makes the folders. Repeating it changes nothing.
    pub fn save(&self) -> Result<()> {
        files::create_folder(&self.folder)?;
        files::create_folder(self.data_folder())?;
        if self.identity.server_user.is_some() {
            // The servers' user passes through, and sees nothing else.
            for folder in [self.folder.as_path(), self.data_folder()] {
                files::set_mode(folder, 0o711)?;
            }
        }
        let file = self.folder.join("instance.json");
        if files::read_json::<Identity>(&file)?.as_ref() == Some(&self.identity) {
            return Ok(());
        }
        files::write_json(&file, &self.identity)
    }

    /// Where the service folders are.
    pub fn data_folder(&self) -> &Path {
        self.identity.data_elsewhere.as_deref().unwrap_or(&self.folder)
    }

    /// The folder of one service: data, log, record.
    pub fn service_folder(&self, short_name: &str) -> PathBuf {
        self.data_folder().join(short_name)
    }

    /// What a server answers when it is asked who it is: `cluster_name`.
    pub fn cluster_name(&self, short_name: &str) -> String {
        format!("{}/{short_name}/{}", self.identity.stack, self.identity.id)
    }
}

/// Eight hexadecimal digits.
pub fn random_id() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}
