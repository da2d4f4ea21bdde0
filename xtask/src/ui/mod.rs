//! What a person sees. Data goes to stdout; everything else goes to stderr; colour only where a terminal shows it.

pub mod failure;
pub mod progress;
pub mod table;
pub mod units;

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
pub use failure::{Exit, Failure};

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const WARNING: Style = AnsiColor::Yellow.on_default();
pub const FAINT: Style = Style::new().dimmed();
pub const STRONG: Style = Style::new().bold();

/// The text in a style; the streams here drop it where nobody sees colours.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes data to stdout. A reader that went away (`| head`) is the wish to hear no more: [`Failure`] with no fault in it.
pub fn data(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Done, "nobody reads").into()),
        written => Ok(written?),
    }
}

/// Writes a value to stdout as JSON.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    data(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Tells a person something, on stderr. A closed stderr must not stop the work.
pub fn tell(text: impl AsRef<str>) {
    let mut out = anstream::stderr().lock();
    let text = text.as_ref();
    let written = out.write_all(text.as_bytes()).and_then(|()| match text.ends_with('\n') {
        true => Ok(()),
        false => out.write_all(b"\n"),
    });
    drop(written);
}

/// Whether somebody can be asked a question.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on stderr and reads one line.
pub fn ask(question: &str) -> io::Result<String> {
    let mut out = anstream::stderr().lock();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}
