//! Encryption of backups by the `age` program: everybody can seal with a public key, and only its owner can open. The
//! program instead of its library: the library brings eighty crates, a third of the first build, to everybody who never
//! encrypts.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Result, bail};
use archive::part::{Pipe, Seal};

use crate::tools::{self, Output, Piped};
use crate::ui::{Exit, Failure};

/// Who a backup is encrypted for, or who opens one.
#[derive(Debug)]
pub struct Age {
    program: PathBuf,
    /// Public keys (`age1…`, `ssh-ed25519 …`).
    recipients: Vec<String>,
    /// Files with private keys.
    identities: Vec<PathBuf>,
}

impl Age {
    pub fn for_recipients(recipients: &[String]) -> Result<Age> {
        Ok(Age {
            program: tools::needed("age", "encryption")?,
            recipients: recipients.to_vec(),
            identities: Vec::new(),
        })
    }

    pub fn with_identities(identities: &[PathBuf], folder: &Path) -> Result<Age> {
        let identities: Vec<PathBuf> = identities.iter().map(|file| folder.join(file)).collect();
        if let Some(missing) = identities.iter().find(|file| !file.is_file()) {
            bail!(Failure::new(Exit::Usage, format!("there is no file `{}`", missing.display())));
        }
        Ok(Age { program: tools::needed("age", "encryption")?, recipients: Vec::new(), identities })
    }
}

impl Seal for Age {
    fn seal(&self, out: Box<dyn Pipe>) -> Result<Box<dyn Pipe>> {
        let mut command = tools::program(&self.program);
        command.arg("--encrypt");
        for recipient in &self.recipients {
            command.arg("--recipient").arg(recipient);
        }
        let (mut process, output) = tools::pipe(command, Stdio::piped())?;
        let Some(input) = process.stdin() else { bail!("`age` takes no input") };
        // What it seals goes on beside what it is given.
        let copying = std::thread::spawn(move || copy(output, out));
        Ok(Box::new(Sealing { input, process, copying }))
    }

    fn open(&self, mut sealed: Box<dyn Read + Send>) -> Result<Box<dyn Read>> {
        let mut command = tools::program(&self.program);
        command.arg("--decrypt");
        for identity in &self.identities {
            command.arg("--identity").arg(identity);
        }
        let (mut process, output) = tools::pipe(command, Stdio::piped())?;
        let Some(mut input) = process.stdin() else { bail!("`age` takes no input") };
        // It ends early where it cannot open the file, and its own words then say why.
        std::thread::spawn(move || drop(io::copy(&mut sealed, &mut input)));
        Ok(Box::new(Output::new(process, output)))
    }
}

fn copy(mut output: ChildStdout, mut out: Box<dyn Pipe>) -> io::Result<Box<dyn Pipe>> {
    io::copy(&mut output, &mut out).map(|_| out)
}

struct Sealing {
    input: ChildStdin,
    process: Piped,
    copying: std::thread::JoinHandle<io::Result<Box<dyn Pipe>>>,
}

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}

impl Pipe for Sealing {
    fn finish(self: Box<Self>) -> Result<()> {
        let Sealing { input, process, copying } = *self;
        drop(input);
        process.finish()?;
        match copying.join() {
            Ok(copied) => copied?.finish(),
            Err(_) => bail!("the copying thread ended in a panic"),
        }
    }
}
