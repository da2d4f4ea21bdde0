//! How a server starts without ever being unrecorded, even if the helper is killed between any two instructions.
//!
//! The helper starts *itself* with the hidden argument below and a description of the server in a file. That process
//! opens its own session, writes the record with its own pid and birth, and only then becomes the server: `exec` keeps
//! both. Its standard input is the instance's lock until then, so that no other verb looks before the record is there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::process;
use super::record::Record;
use crate::files;
use crate::instance::server_user::ServerUser;
use crate::tools;

/// The hidden first argument.
pub const ARGUMENT: &str = "internal-launch";
/// A log larger than this is put aside when its server starts, in bytes.
const LARGEST_LOG: u64 = 32 << 20;

/// Everything needed to start one server. The pid and birth in `record` are filled in by the new process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub working_folder: PathBuf,
    pub log: PathBuf,
    pub user: Option<ServerUser>,
    pub record: Record,
    /// Where the record is written: beside the data, and a copy for looking up.
    pub service_folder: PathBuf,
    pub registry_copy: PathBuf,
}

/// Starts the server. The child's pid is the server's.
pub fn launch(launch: &Launch, lock: File) -> Result<Child> {
    let description = launch.service_folder.join("launch.json");
    files::write_json(&description, launch)?;
    // On Linux the running program is found even after a build has replaced its file.
    let helper = match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => std::env::current_exe()?,
    };
    let mut command = tools::program(helper);
    command.args([ARGUMENT.as_ref(), description.as_os_str()]).stdin(Stdio::from(lock));
    command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command.spawn().with_context(|| format!("cannot start `{}`", launch.record.service))
}

/// The new process's side: returns only if the server could not be started.
pub fn become_server(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Error {
    let Some(description) = arguments.next().map(PathBuf::from) else {
        return anyhow!("`{ARGUMENT}` needs a description");
    };
    let launch = match files::read_json::<Launch>(&description) {
        Ok(Some(launch)) => launch,
        Ok(None) => return anyhow!("`{}` is gone", description.display()),
        Err(error) => return error,
    };
    let error = match prepare(&launch, &description) {
        Ok(log) => exec(&launch, log),
        Err(error) => error,
    };
    // The reason goes where the helper looks for it, and nothing is left that claims to run.
    let reason = format!("{error:#}\n");
    if let Ok(mut log) = open_log(&launch.log) {
        let _nobody_left_to_tell = std::io::Write::write_all(&mut log, reason.as_bytes());
    }
    let record = Record::path(&launch.service_folder);
    match files::remove_if_present(&record).and_then(|()| files::remove_if_present(&launch.registry_copy)) {
        Ok(()) => error,
        Err(cleanup) => error.context(cleanup),
    }
}

fn prepare(launch: &Launch, description: &Path) -> Result<File> {
    rustix::process::setsid().context("cannot open a session")?;
    if std::fs::metadata(&launch.log).is_ok_and(|metadata| metadata.len() > LARGEST_LOG) {
        std::fs::rename(&launch.log, launch.log.with_extension("log.1")).context("cannot put the old log aside")?;
    }
    let log = open_log(&launch.log)?;
    let pid = i32::try_from(std::process::id())?;
    let birth = process::birth_of(pid).context("cannot read the process's own start time")?;
    let record = Record { pid, birth, ..launch.record.clone() };
    record.write(&launch.service_folder)?;
    if let Some(folder) = launch.registry_copy.parent() {
        // Only for looking up: a read-only home must not keep a server from starting.
        let _lookup_only =
            files::create_folder(folder).and_then(|()| files::write_json(&launch.registry_copy, &record));
    }
    files::remove_if_present(description)?;
    Ok(log)
}

fn open_log(path: &Path) -> Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open the log `{}`", path.display()))
}

fn exec(launch: &Launch, log: File) -> anyhow::Error {
    let second = match log.try_clone() {
        Ok(second) => second,
        Err(error) => return error.into(),
    };
    let mut command = tools::program(&launch.program);
    command.args(&launch.arguments).env_clear().envs(&launch.environment).current_dir(&launch.working_folder);
    command.stdin(Stdio::null()).stdout(log).stderr(second);
    if let Some(user) = &launch.user {
        command.uid(user.uid).gid(user.gid);
    }
    let error = command.exec();
    anyhow::Error::new(error).context(format!("cannot run `{}`", launch.program.display()))
}
