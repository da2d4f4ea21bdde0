//! The one door to other programs. Arguments are lists, never shell text; secrets go in the environment; a failure
//! shows the command, its exit code and the last lines it wrote.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell};

use crate::ui::{Exit, Failure};

/// Lines of a failed program's output that an error shows.
const LAST_LINES: usize = 12;

/// A shell for short programs, in `folder`.
pub fn shell_in(folder: &Path) -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(folder);
    Ok(shell)
}

/// A program that something other than xshell starts: with another user, another session, or in place of the helper.
#[expect(clippy::disallowed_methods, reason = "the door itself")]
pub fn program(path: impl AsRef<OsStr>) -> Command {
    Command::new(path)
}

/// Runs to the end and gives what it wrote to stdout; as another user where one is given.
pub fn read(command: Cmd<'_>, user: Option<(u32, u32)>) -> Result<String> {
    feed(command, "", user)
}

/// As [`read`], with a short text on stdin.
pub fn feed(command: Cmd<'_>, input: &str, user: Option<(u32, u32)>) -> Result<String> {
    let mut command = Command::from(command);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    let ran = run(command, Input::Text(input.to_owned()))?;
    ran.ok().map(|ran| ran.stdout)
}

/// What a program finds on its stdin.
#[derive(Debug)]
pub enum Input {
    Text(String),
    /// Open until the program ends: a lock that must outlive the helper.
    Held(File),
}

/// A program that has ended, with all that it wrote.
#[derive(Debug)]
pub struct Ran {
    /// As a person would type it.
    pub shown: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// An error with the last lines if it failed.
    pub fn ok(self) -> Result<Ran> {
        if self.status.success() {
            return Ok(self);
        }
        let text = format!("{}{}", self.stdout, self.stderr);
        bail!(
            Failure::new(Exit::Failed, format!("`{}` failed: {}", self.shown, describe(self.status)))
                .body(indented(last_lines(&text, LAST_LINES)))
        )
    }
}

/// Runs a program to its end.
pub fn run(mut command: Command, input: Input) -> Result<Ran> {
    let shown = shown(&command);
    let text = match input {
        Input::Text(text) => {
            command.stdin(Stdio::piped());
            text
        }
        Input::Held(file) => {
            command.stdin(Stdio::from(file));
            String::new()
        }
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = command.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = ran.with_context(|| format!("cannot run `{shown}`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { shown, status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// A program whose output is read while it runs.
#[derive(Debug)]
pub struct Piped {
    shown: String,
    child: Child,
    stderr: JoinHandle<String>,
}

/// Starts a program with a pipe behind it; what it says of its troubles is kept for [`Piped::finish`].
pub fn pipe(mut command: Command, stdin: Stdio) -> Result<(Piped, ChildStdout)> {
    let shown = shown(&command);
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(mut stderr)) = (stdout, stderr) else { bail!("`{shown}` has no output") };
    let stderr = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What cannot be read is missing from an error's text, no more.
        drop(stderr.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    Ok((Piped { shown, child, stderr }, stdout))
}

impl Piped {
    /// What to write to, if the program was given a pipe.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Ends it at once. One that has ended already is as good.
    pub fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits for its end; an error with its last lines if it failed.
    pub fn finish(mut self) -> Result<String> {
        drop(self.child.stdin.take());
        let status = self.child.wait().with_context(|| format!("cannot wait for `{}`", self.shown))?;
        let stderr = self.stderr.join().unwrap_or_default();
        let ran = Ran { shown: self.shown, status, stdout: String::new(), stderr };
        ran.ok().map(|ran| ran.stderr)
    }
}

/// What a program writes. Reading to the end fails if the program did; what is dropped before that ends it.
#[derive(Debug)]
pub struct Output {
    output: ChildStdout,
    process: Option<Piped>,
}

impl Output {
    pub fn new(process: Piped, output: ChildStdout) -> Output {
        Output { output, process: Some(process) }
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.output.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Some(process) = self.process.take()
        {
            process.finish().map_err(as_text)?;
        }
        Ok(read)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

/// An error with all that the program said, where only text can pass through.
pub fn as_text(error: anyhow::Error) -> std::io::Error {
    let body = error.downcast_ref::<Failure>().map_or("", |failure| failure.body.trim_end());
    let between = if body.is_empty() { "" } else { "\n" };
    std::io::Error::other(format!("{error:#}{between}{body}"))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Replaces the helper by a program: only returns if that fails.
pub fn become_program(mut command: Command) -> anyhow::Error {
    let name = command.get_program().to_string_lossy().into_owned();
    anyhow::Error::new(command.exec()).context(format!("cannot run `{name}`"))
}

pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The last lines of a text.
pub fn last_lines(text: &str, lines: usize) -> &str {
    let mut starts = text.trim_end().rmatch_indices('\n').map(|(at, _)| at + 1);
    text.trim_end().get(starts.nth(lines - 1).unwrap_or(0)..).unwrap_or_default()
}

/// Each line four spaces in.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// All programs of that name on `PATH`, first the one that a shell would run.
pub fn on_path(name: &str) -> Vec<std::path::PathBuf> {
    which::which_all(name).map(Iterator::collect).unwrap_or_default()
}

/// The first program of that name on `PATH`, which `what` cannot do without.
pub fn needed(name: &str, what: &str) -> Result<std::path::PathBuf> {
    match on_path(name).into_iter().next() {
        Some(program) => Ok(program),
        None => bail!(
            Failure::new(Exit::Failed, format!("{what} needs the program `{name}`, which is not on PATH"))
                .hint(format!("`apt-get install {name}`, `brew install {name}`, or `nix develop`, which has it"))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_the_last_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\n", 5), "a");
        assert_eq!(last_lines("", 5), "");
    }
}
