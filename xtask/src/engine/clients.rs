//! PostgreSQL's own client programs (pg_dump, pg_restore, psql) for a running server: of its very version, because they
//! are those beside it. On the docker engine they run in the server's container, by its owner's socket.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::postgres::Door;
use super::server::{Home, Server};
use crate::tools;
use crate::ui::{Exit, Failure};

const NEEDED: [&str; 2] = ["pg_dump", "pg_restore"];

/// Not a client, but it is where they are.
pub const SHELL: &str = "sh";

/// How to start a client of one server.
#[derive(Debug, Clone)]
pub struct Clients {
    user: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Beside { folder: PathBuf, door: Door },
    Container(String),
}

impl Clients {
    /// An error if the server is no PostgreSQL, or has no such programs beside it.
    pub fn of(server: &Server) -> Result<Clients> {
        let Some((door, login)) = server.door() else { bail!("`{}` is no PostgreSQL", server.service) };
        let place = match &server.home {
            Home::Container(container) => Place::Container(container.id.clone()),
            Home::Process(record) => {
                // A link may lead to the server alone, and its clients are beside what it leads to.
                let real = record.program.canonicalize().unwrap_or_else(|_| record.program.clone());
                let folders = [record.program.with_file_name(""), real.with_file_name("")];
                let has_all = |folder: &&PathBuf| NEEDED.iter().all(|name| folder.join(name).is_file());
                let Some(folder) = folders.iter().find(has_all) else {
                    let title = format!("there is no {} beside `{}`", NEEDED.join(" and no "), real.display());
                    bail!(
                        Failure::new(Exit::Failed, title)
                            .hint("install PostgreSQL's client programs of the server's version")
                    );
                };
                Place::Beside { folder: folder.clone(), door }
            }
        };
        Ok(Clients { user: login.user.clone(), place })
    }

    /// What a shell must call the program, where the clients are.
    pub fn path_of(&self, program: &str) -> PathBuf {
        match &self.place {
            Place::Beside { folder, .. } => folder.join(program),
            Place::Container(_) => PathBuf::from(program),
        }
    }

    /// As [`Self::command`], for a program that reads files of this machine; `None` where it cannot.
    pub fn with_file(&self, program: &str, database: &str, environment: &[(&str, &str)]) -> Option<Command> {
        match self.place {
            Place::Beside { .. } => Some(self.command(program, database, environment)),
            Place::Container(_) => None,
        }
    }

    /// The program on one database, with variables of its own and nothing on its stdin yet. No password is in its arguments;
    /// variables of the person's shell that would lead it elsewhere are gone.
    pub fn command(&self, program: &str, database: &str, environment: &[(&str, &str)]) -> Command {
        let mut command = match &self.place {
            Place::Beside { folder, door } => {
                let path = if program == SHELL { PathBuf::from(program) } else { folder.join(program) };
                let mut command = tools::program(path);
                for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
                    command.env_remove(name);
                }
                match door {
                    Door::Socket { folder, port } => {
                        command.env("PGHOST", folder).env("PGPORT", port.to_string());
                    }
                    Door::Tcp { port, password } => {
                        command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGPASSWORD", password);
                    }
                }
                command.env("PGUSER", &self.user).env("PGDATABASE", database).env("PGAPPNAME", "cargo xtask");
                command.envs(environment.iter().copied());
                command
            }
            Place::Container(id) => {
                let mut command = tools::program("docker");
                command.args(["exec", "--interactive", "--env", "PGAPPNAME=cargo xtask", "--env"]);
                command.arg(format!("PGUSER={}", self.user)).arg("--env").arg(format!("PGDATABASE={database}"));
                for (name, value) in environment {
                    command.arg("--env").arg(format!("{name}={value}"));
                }
                command.arg(id).arg(program);
                command
            }
        };
        command.current_dir("/");
        command
    }
}
