//! A folder at a remote that the program `rclone` knows (S3, Google Cloud Storage, SFTP, WebDAV, …). Which remotes there are and
//! what opens them is for rclone's own configuration: no secret passes through here.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use archive::part::Pipe;
use jiff::Timestamp;
use serde::Deserialize;

use crate::tools::{self, Input, Output, Piped, Ran};
use crate::ui::{Exit, Failure, units};

/// rclone's exit code for a folder that is not there.
const NO_FOLDER: i32 = 3;
/// Its own patience tries a dead server for minutes. Who wants that sets the variable.
const PATIENCE: [(&str, &str); 4] = [
    ("RCLONE_RETRIES", "1"),
    ("RCLONE_LOW_LEVEL_RETRIES", "3"),
    ("RCLONE_CONTIMEOUT", "15s"),
    ("RCLONE_TIMEOUT", "2m"),
];

/// `remote:path`, as rclone writes it.
#[derive(Debug, Clone)]
pub struct Remote {
    program: PathBuf,
    path: String,
}

/// One thing in a remote's folder.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    pub path: String,
    pub is_dir: bool,
    mod_time: Timestamp,
}

impl Entry {
    /// How long nobody has written to it.
    pub fn age(&self) -> Duration {
        units::since(self.mod_time)
    }
}

impl Remote {
    pub fn new(path: &str) -> Result<Remote> {
        if !path.contains(':') {
            bail!(
                Failure::new(Exit::Usage, format!("`rclone:{path}` names no remote"))
                    .hint("`rclone:REMOTE:PATH`; `rclone listremotes` shows the remotes, `rclone config` makes one")
            );
        }
        let program = tools::needed("rclone", "a place `rclone:…`")?;
        Ok(Remote { program, path: path.trim_end_matches('/').to_owned() })
    }

    pub fn join(&self, below: &str) -> Remote {
        let between = if self.path.ends_with(':') { "" } else { "/" };
        Remote { program: self.program.clone(), path: format!("{}{between}{below}", self.path) }
    }

    /// Everything below it; nothing where there is no such folder.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.list(&["--recursive"])
    }

    fn list(&self, options: &[&str]) -> Result<Vec<Entry>> {
        let mut command = self.command("lsjson");
        command.arg("--no-mimetype").args(options).arg(&self.path);
        let ran = tools::run(command, Input::Text(String::new()))?;
        match ran.status.code() {
            Some(NO_FOLDER) => Ok(Vec::new()),
            _ => serde_json::from_str(&ran.ok()?.stdout).context("rclone lists in another form than it should"),
        }
    }

    /// Copies what those filters choose into a folder here.
    pub fn copy_to(&self, folder: &Path, filters: &[&str]) -> Result<()> {
        let mut command = self.command("copy");
        command.args(filters.iter().map(|filter| format!("--include={filter}"))).arg(&self.path).arg(folder);
        let ran = tools::run(command, Input::Text(String::new()))?;
        if ran.status.code() != Some(NO_FOLDER) {
            ran.ok()?;
        }
        Ok(())
    }

    /// What the file holds, while it comes.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        let mut command = self.command("cat");
        command.arg(&self.path);
        let (process, output) = tools::pipe(command, Stdio::null())?;
        Ok(Box::new(Output::new(process, output)))
    }

    /// Takes a file's bytes there while they come.
    pub fn create(&self) -> Result<Box<dyn Pipe>> {
        let mut command = self.command("rcat");
        command.arg(&self.path);
        let (mut process, output) = tools::pipe(command, Stdio::piped())?;
        drop(output);
        let input = process.stdin();
        Ok(Box::new(Upload { input, process: Some(process) }))
    }

    pub fn write(&self, content: &[u8]) -> Result<()> {
        let mut upload = self.create()?;
        let written = upload.write_all(content);
        // Where it took no more, its own words say why.
        upload.finish()?;
        Ok(written?)
    }

    /// Makes a file the same as another, by the remote itself where it can.
    pub fn copy_from(&self, from: &Remote) -> Result<()> {
        let mut command = self.command("copyto");
        command.arg(&from.path).arg(&self.path);
        self.run(command).map(drop)
    }

    /// Removes a file.
    pub fn remove_file(&self) -> Result<()> {
        let mut command = self.command("deletefile");
        command.arg(&self.path);
        self.run(command).map(drop)
    }

    /// Removes a folder and all below it. There are remotes that list nothing below a folder's own files, where rclone finds
    /// nothing to remove and says that it did.
    pub fn remove(&self) -> Result<()> {
        let mut command = self.command("purge");
        command.arg(&self.path);
        self.run(command)?;
        let left = self.list(&[])?;
        ensure!(left.is_empty(), "`{self}` is no backup any more, but rclone has left files of it there");
        Ok(())
    }

    fn run(&self, command: Command) -> Result<Ran> {
        tools::run(command, Input::Text(String::new()))?.ok()
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = tools::program(&self.program);
        command.arg(verb);
        for (name, value) in PATIENCE {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        command
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rclone:{}", self.path)
    }
}

struct Upload {
    input: Option<ChildStdin>,
    process: Option<Piped>,
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.input.as_mut().map_or(Ok(0), |input| input.write(bytes));
        match (written, self.process.take()) {
            (Err(error), Some(process)) => {
                // It has ended, and says why; a broken pipe does not.
                drop(self.input.take());
                Err(process.finish().err().map_or(error, tools::as_text))
            }
            (written, process) => {
                self.process = process;
                written
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), ChildStdin::flush)
    }
}

impl Pipe for Upload {
    fn finish(mut self: Box<Self>) -> Result<()> {
        drop(self.input.take());
        match self.process.take() {
            Some(process) => process.finish().map(drop),
            None => bail!("the upload ended early"),
        }
    }
}

impl Drop for Upload {
    /// The end of its input would be the end of the file: a half one must not be taken for whole.
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}
