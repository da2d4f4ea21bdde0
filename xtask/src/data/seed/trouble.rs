//! What a server says about a seed, as a place in the file.

use std::path::Path;

use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

/// A line longer than this is cut.
const LINE_LIMIT: usize = 160;
/// An error of a table that is not there (PostgreSQL's documentation, appendix A).
const UNDEFINED_TABLE: &str = "42P01";
const UNIQUE_VIOLATION: &str = "23505";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Where it went wrong and what the server says, in lines for the body of a failure.
#[derive(Debug, Default)]
pub struct Trouble {
    pub body: String,
    /// What helps, where the error's kind says it.
    pub remedy: Option<Remedy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    Migrate,
    Again,
    Unlock,
}

/// `done` statements of the file had succeeded.
pub fn of_sql(shown: &Path, text: &str, done: usize, error: &PgDatabaseError) -> Trouble {
    let position = match error.position() {
        Some(PgErrorPosition::Original(position)) => Some(position),
        _ => None,
    };
    // The server counts characters from 1.
    let pointed = position.and_then(|position| text.char_indices().nth(position.saturating_sub(1)));
    let begin = || sql::script(text).statements.get(done).map(|statement| statement.start);
    let Some(at) = pointed.map(|(at, _)| at).or_else(begin) else {
        return Trouble { body: format!("  {}\n    {}", shown.display(), said(error)), remedy: remedy(error) };
    };
    let (number, column) = sql::place(text, at);
    let line: String = text.lines().nth(number - 1).unwrap_or_default().chars().take(LINE_LIMIT).collect();
    let margin = number.to_string();
    let space = " ".repeat(margin.len());
    let place = format!("  {}:{number}:{column}", shown.display());
    // Wide characters take two columns of a terminal.
    let before = console::measure_text_width(&line.chars().take(column - 1).collect::<String>());
    let mark = match pointed {
        Some(_) => format!("{}^ {}", " ".repeat(before), said(error)),
        None => said(error),
    };
    Trouble { body: format!("{place}\n    {margin} | {line}\n    {space} | {mark}"), remedy: remedy(error) }
}

/// COPY tells the line in its context: `COPY people, line 3, column age: "x"`.
pub fn of_csv(shown: &Path, error: &PgDatabaseError) -> Trouble {
    let context = error.r#where().unwrap_or_default().lines().find(|line| line.starts_with("COPY "));
    let (line, row) = context.map_or((None, None), |context| {
        let number = context.split_once(", line ").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
        let number = number.flatten().and_then(|number| number.parse::<usize>().ok());
        (number, context.split_once(": ").map(|(_, row)| row.to_owned()))
    });
    // An error without a line is about the statement, which was made of the first line.
    let line = line.unwrap_or(1);
    let row = row.map_or_else(String::new, |row| format!("    {}\n", row.chars().take(LINE_LIMIT).collect::<String>()));
    Trouble { body: format!("  {}:{line}\n{row}    {}", shown.display(), said(error)), remedy: remedy(error) }
}

fn said(error: &PgDatabaseError) -> String {
    let mut said = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        said.push_str(&format!("\n    {more}"));
    }
    said
}

fn remedy(error: &PgDatabaseError) -> Option<Remedy> {
    match error.code() {
        UNDEFINED_TABLE => Some(Remedy::Migrate),
        UNIQUE_VIOLATION => Some(Remedy::Again),
        LOCK_NOT_AVAILABLE => Some(Remedy::Unlock),
        _ => None,
    }
}
