//! Plain SQL as psql would read it, without what is about more than one database, and without the programs that it names.

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use super::PIECE;
use crate::ui::{Exit, Failure};

/// The line behind a COPY's rows.
pub const END_OF_ROWS: &[u8] = b"\\.";
/// Of a line that an error shows.
const SHOWN: usize = 120;

/// What is read of a plain dump, one after the other.
#[derive(Debug)]
pub enum Item {
    /// Statements, and the line that they begin at.
    Statements(String, usize),
    /// One that may fail where this server does not know the setting.
    Setting(String, usize),
    Copy(String, usize),
    Rows(Vec<u8>),
    EndOfRows,
    LeftOut(String),
}

/// Of a statement, for an error.
pub fn first_line(text: &str) -> String {
    text.trim_start_matches('\n').lines().next().unwrap_or_default().chars().take(SHOWN).collect()
}

/// Reads the dump; ends quietly when nobody takes the items any more.
pub fn read(mut input: impl BufRead, shown: &str, sender: &mpsc::Sender<Item>) -> Result<()> {
    let (mut line, mut number) = (Vec::new(), 0);
    let (mut statement, mut begun) = (String::new(), 1);
    let mut batch = (String::new(), 1);
    macro_rules! send {
        ($item:expr) => {
            if sender.blocking_send($item).is_err() {
                return Ok(());
            }
        };
    }
    macro_rules! flush {
        () => {
            if !batch.0.is_empty() {
                send!(Item::Statements(std::mem::take(&mut batch.0), batch.1));
            }
        };
    }
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line).with_context(|| format!("cannot read `{shown}`"))?;
        if read == 0 {
            break;
        }
        number += 1;
        let is_between = statement.trim().is_empty();
        if is_between && line.starts_with(b"\\") {
            let command = String::from_utf8_lossy(&line).trim_end().to_owned();
            match command.split_whitespace().next().unwrap_or_default() {
                // What names the database or guards psql means nothing here.
                "\\connect" | "\\c" | "\\restrict" | "\\unrestrict" => send!(Item::LeftOut(first_words(&command))),
                _ => bail!(refused(shown, number, &command, "a command of psql, which this is not")),
            }
            continue;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            bail!(refused(shown, number, &String::from_utf8_lossy(&line), "not UTF-8; dump with `--encoding=UTF8`"));
        };
        if is_between {
            statement.clear();
            begun = number;
            if text.trim().is_empty() || text.starts_with("--") {
                continue;
            }
        }
        statement.push_str(text);
        if !text.trim_end().ends_with(';') {
            continue;
        }
        let read = match sql::whole(&statement) {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(flaw) => bail!(refused(shown, begun, &first_line(&statement), &flaw.what)),
        };
        let statement = std::mem::take(&mut statement);
        if read.is_fed() {
            flush!();
            send!(Item::Copy(statement.trim().trim_end_matches(';').to_owned(), begun));
            number += pass_rows(&mut input, sender)?;
        } else if is_about_roles(&read.words) {
            send!(Item::LeftOut(first_words(&statement)));
        } else if read.word(0) == "SET" {
            flush!();
            send!(Item::Setting(statement, begun));
        } else {
            if batch.0.is_empty() {
                batch.1 = begun;
            }
            // Lines stay where they were, so that an error names the right one.
            let lines = batch.0.matches('\n').count();
            batch.0.push_str(&"\n".repeat((begun - batch.1).saturating_sub(lines)));
            batch.0.push_str(&statement);
            if batch.0.len() > PIECE {
                flush!();
            }
        }
    }
    if !statement.trim().is_empty() {
        bail!(refused(shown, begun, &first_line(&statement), "a statement without an end: the dump is cut off"));
    }
    flush!();
    Ok(())
}

/// Passes rows on until the line that ends them; gives the number of lines.
fn pass_rows(input: &mut impl BufRead, sender: &mpsc::Sender<Item>) -> Result<usize> {
    let (mut piece, mut lines) = (Vec::with_capacity(2 * PIECE), 0);
    loop {
        let begin = piece.len();
        if input.read_until(b'\n', &mut piece)? == 0 {
            return Ok(lines);
        }
        lines += 1;
        let is_end = piece[begin..].trim_ascii_end() == END_OF_ROWS;
        if is_end {
            piece.truncate(begin);
        }
        if is_end || piece.len() >= PIECE {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(2 * PIECE));
            if sender.blocking_send(Item::Rows(full)).is_err() {
                return Ok(lines);
            }
        }
        if is_end {
            drop(sender.blocking_send(Item::EndOfRows));
            return Ok(lines);
        }
    }
}

/// Owners, rights, roles and databases: whatever is about more than this one database's content.
fn is_about_roles(words: &[String]) -> bool {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    match word(0) {
        "GRANT" | "REVOKE" | "REASSIGN" => true,
        "ALTER" if word(1) == "DEFAULT" => true,
        "ALTER" => words.windows(2).any(|pair| pair == ["OWNER", "TO"]) || is_of_the_server(word(1)),
        "CREATE" | "DROP" | "COMMENT" => is_of_the_server(word(1)) || word(0) == "COMMENT" && is_of_the_server(word(2)),
        "SET" => word(1) == "SESSION" && word(2) == "AUTHORIZATION" || word(1) == "ROLE",
        _ => false,
    }
}

fn is_of_the_server(kind: &str) -> bool {
    ["DATABASE", "ROLE", "USER", "TABLESPACE"].contains(&kind)
}

/// What was left out, without names: `ALTER TABLE … OWNER TO`.
fn first_words(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().take(2).collect();
    match statement.contains(" OWNER TO ") {
        true => format!("{} … OWNER TO", words.join(" ")),
        false => format!("{} …", words.first().copied().unwrap_or_default()),
    }
}

fn refused(shown: &str, line: usize, text: &str, why: &str) -> Failure {
    let text: String = text.trim_end().chars().take(SHOWN).collect();
    Failure::new(Exit::Refused, "the dump cannot be restored, and nothing was changed")
        .body(format!("  {shown}:{line}\n    {text}\n  {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Result<Vec<String>> {
        let (sender, mut receiver) = mpsc::channel(100);
        read(text.as_bytes(), "dump.sql", &sender)?;
        drop(sender);
        let mut all = Vec::new();
        while let Some(item) = receiver.blocking_recv() {
            all.push(match item {
                Item::Statements(text, line) => format!("{line}: {}", text.trim_end()),
                Item::Setting(text, line) => format!("{line}? {}", text.trim_end()),
                Item::Copy(text, line) => format!("{line}> {text}"),
                Item::Rows(rows) => String::from_utf8_lossy(&rows).into_owned(),
                Item::EndOfRows => "end".to_owned(),
                Item::LeftOut(what) => format!("- {what}"),
            });
        }
        Ok(all)
    }

    #[test]
    fn a_plain_dump_is_read_as_psql_would_without_what_is_about_roles() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET lock_timeout = 0;\nCREATE TABLE t (\n    a integer\n);\n\n\
            ALTER TABLE public.t OWNER TO neon;\nCREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n  PERFORM 1;\nEND;\n$$;\n\
            COPY public.t (a) FROM stdin;\n1\n\\N\n\\.\n\nGRANT SELECT ON t TO reader;\n";
        let read = items(dump).unwrap();
        assert_eq!(
            read,
            [
                "- \\restrict …",
                "7? SET lock_timeout = 0;",
                "- ALTER TABLE … OWNER TO",
                "8: CREATE TABLE t (\n    a integer\n);\n\n\nCREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n  PERFORM 1;\nEND;\n$$;",
                "18> COPY public.t (a) FROM stdin",
                "1\n\\N\n",
                "end",
                "- GRANT …",
            ]
        );
    }

    #[test]
    fn commands_of_psql_and_cut_off_dumps_are_refused() {
        for (dump, line) in [
            ("SELECT 1;\n\\! rm -rf x\n", 2),
            ("SELECT 1; \\! rm -rf x;\n", 1),
            ("\\copy t FROM '/etc/passwd'\n", 1),
            ("CREATE TABLE t (\n  a int\n", 1),
        ] {
            let error = items(dump).unwrap_err();
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert!(failure.body.contains(&format!("dump.sql:{line}")), "{dump:?}: {}", failure.body);
        }
    }
}
