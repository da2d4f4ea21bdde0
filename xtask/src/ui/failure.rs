//! How a verb ends: the exit codes, and an error with everything a person needs to go on.

use std::fmt;
use std::process::ExitCode;

use sqlx::postgres::PgDatabaseError;

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

/// What a server says, if it is a server's error: by itself it is written with a place in the server's source.
fn said_by_server(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    let Some(sqlx::Error::Database(error)) = cause.downcast_ref::<sqlx::Error>() else { return None };
    let detail = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::detail);
    let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
    Some(format!("the server says: {}{detail}", error.message()))
}

fn body(failure: &Failure) -> String {
    match failure.body.trim_end_matches('\n') {
        "" => String::new(),
        body => format!("\n{body}\n\n"),
    }
}

/// The error and its causes, each with its words if they are not said yet. What a server's error is made of says the same.
fn causes(error: &anyhow::Error) -> Vec<(Option<String>, &(dyn std::error::Error + 'static))> {
    let mut causes = Vec::new();
    let mut said = String::new();
    for cause in error.chain() {
        let of_server = said_by_server(cause);
        let is_of_server = of_server.is_some();
        let words = of_server.unwrap_or_else(|| cause.to_string());
        let is_new = causes.is_empty() || !said.contains(&words);
        said.push_str(&words);
        causes.push((is_new.then_some(words), cause));
        if is_of_server {
            break;
        }
    }
    causes
}

/// The error and its causes in one line, for tables and scripts.
pub fn in_a_line(error: &anyhow::Error) -> String {
    causes(error).into_iter().filter_map(|(words, _)| words).collect::<Vec<_>>().join(": ")
}

/// The error as it is printed.
pub fn rendered(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut hint = None;
    // A failure that is the context of another error is not in the chain under its own type.
    let mut context = error.downcast_ref::<Failure>();
    for (depth, (words, cause)) in causes(error).into_iter().enumerate() {
        if let Some(words) = words {
            text.push_str(&match depth {
                0 => format!("{} {words}\n", paint(BAD.bold(), "error:")),
                _ => format!("  {} {words}\n", paint(STRONG, "caused by:")),
            });
        }
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            context = context.filter(|context| !std::ptr::eq(*context, failure));
            text.push_str(&body(failure));
            hint = failure.hint.as_ref().or(hint);
        }
    }
    if let Some(failure) = context {
        text.push_str(&body(failure));
        hint = hint.or(failure.hint.as_ref());
    }
    if let Some(hint) = hint {
        text.push_str(&format!("{} {hint}\n", paint(STRONG, "hint:")));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn shown(error: &anyhow::Error) -> String {
        anstream::adapter::strip_str(&rendered(error)).to_string()
    }

    #[test]
    fn a_failure_is_shown_with_its_body_wherever_it_is_in_the_chain() {
        let failure = |title: &str, hint: &str| Failure::new(Exit::Failed, title).body("  a\n  b\n").hint(hint);
        let told = "error: it failed\n\n  a\n  b\n\nhint: mend it\n";
        assert_eq!(shown(&failure("it failed", "mend it").into()), told);
        let told = "error: it failed\n  caused by: no disk\n\n  a\n  b\n\nhint: mend it\n";
        assert_eq!(shown(&anyhow!("no disk").context(failure("it failed", "mend it"))), told);
        let both = anyhow::Error::from(failure("no disk", "buy one")).context(failure("it failed", "mend it"));
        assert!(shown(&both).ends_with("hint: buy one\n"), "what is nearer to the cause");
    }
}
