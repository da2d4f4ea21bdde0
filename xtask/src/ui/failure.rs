//! How a verb ends: the exit codes, and an error with everything a person needs to go on.

use std::fmt;
use std::process::ExitCode;

use super::{BAD, STRONG, paint};

/// The exit codes; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// A step failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// A check found something.
    Found,
    /// Refused for safety.
    Refused,
    /// Ctrl-C, SIGTERM or a closed terminal.
    Interrupted,
    /// The exit code of a program that was run for the person.
    Of(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Found => 3,
            Exit::Refused => 4,
            Exit::Interrupted => 130,
            Exit::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// What went wrong, where, and the command that helps. Causes travel in the `anyhow` chain.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Lower case, no final stop, names in backticks.
    pub title: String,
    /// Indented lines below the title; may be empty.
    pub body: String,
    /// A command that can be pasted, or what to do.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, title: impl Into<String>) -> Failure {
        Failure { exit, title: title.into(), body: String::new(), hint: None }
    }

    pub fn body(self, body: impl Into<String>) -> Failure {
        Failure { body: body.into(), ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.title)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    // A failure may be the outermost context, which is not in the chain under its own type.
    let inner = || error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    error.downcast_ref::<Failure>().or_else(inner).map_or(Exit::Failed, |failure| failure.exit)
}

/// All errors in one: none is fine, one stands for itself, several get a title by their number.
pub fn all_of(mut errors: Vec<anyhow::Error>, exit: Exit, title: impl Fn(usize) -> String) -> anyhow::Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        count => {
            let body: String = errors.iter().map(rendered).collect();
            Err(Failure::new(exit, title(count)).body(body).into())
        }
    }
}

/// The error as it is printed.
pub fn rendered(error: &anyhow::Error) -> String {
    let mut text = format!("{} {}\n", paint(BAD.bold(), "error:"), error);
    let mut hint = error.downcast_ref::<Failure>().and_then(|failure| failure.hint.as_ref());
    let mut said = error.to_string();
    for (depth, cause) in error.chain().enumerate() {
        let words = cause.to_string();
        if depth > 0 && !said.contains(&words) {
            text.push_str(&format!("  {} {words}\n", paint(STRONG, "caused by:")));
        }
        said.push_str(&words);
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            if !failure.body.is_empty() {
                text.push_str(&format!("\n{}\n\n", failure.body.trim_end_matches('\n')));
            }
            hint = failure.hint.as_ref().or(hint);
        }
    }
    if let Some(hint) = hint {
        text.push_str(&format!("{} {hint}\n", paint(STRONG, "hint:")));
    }
    text
}
