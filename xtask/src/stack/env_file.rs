//! `.env` files: read with every fault and its line, and changed without touching any other line.
//!
//! The syntax is that of Compose as people use it: `NAME=value`, an optional `export`, single or double quotes, and a
//! comment after white space. Values that refer to others (`${OTHER}`) are kept as text: no variable of ours needs one.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::fault::{Fault, Faults};
use crate::files;

#[derive(Debug, Clone, Default)]
pub struct EnvFile {
    /// Relative to the repository's root.
    pub path: PathBuf,
    text: String,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub name: String,
    pub value: String,
    /// 1-based.
    pub line: usize,
}

impl EnvFile {
    /// Reads `path` below `root`; a file that is not there is an empty one.
    pub fn read(root: &Path, path: &Path, faults: &mut Faults) -> EnvFile {
        let full = root.join(path);
        let text = match full.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            _ => files::read_text(&full).unwrap_or_else(|problem| {
                faults.push(Fault {
                    file: path.to_owned(),
                    line: problem.line,
                    key: "(the file)".into(),
                    found: problem.found,
                    expected: "a readable file of `NAME=value` lines in UTF-8".into(),
                    fix: None,
                });
                String::new()
            }),
        };
        EnvFile { path: path.to_owned(), text }
    }

    /// All assignments; a later one of the same name counts. Lines that are none are faults.
    pub fn assignments(&self, faults: &mut Faults) -> Vec<Assignment> {
        let mut found: Vec<Assignment> = Vec::new();
        for (index, raw) in self.text.lines().enumerate() {
            let (line, content) = (index + 1, raw.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            match parse_line(content) {
                Ok((name, value)) => {
                    found.retain(|earlier| earlier.name != name);
                    found.push(Assignment { name: name.to_owned(), value, line });
                }
                Err(expected) => faults.push(Fault {
                    file: self.path.clone(),
                    line: Some(line),
                    // What is no assignment may be the rest of somebody's secret.
                    key: content.split_once('=').map_or("(a line)", |(name, _)| name.trim()).to_owned(),
                    found: "a line that is not an assignment".into(),
                    expected: expected.into(),
                    fix: None,
                }),
            }
        }
        found
    }

    /// The text with `name` set to `value`: its last assignment is changed in place, a comment behind it stays, every
    /// other line stays as it is; a name that is not there is added at the end.
    pub fn with(&self, name: &str, value: &str) -> EnvFile {
        let assigns = |line: &str| parse_line(line.trim()).is_ok_and(|(found, _)| found == name);
        let last = self.text.lines().enumerate().filter(|(_, line)| assigns(line)).map(|(index, _)| index).last();
        let mut text = String::with_capacity(self.text.len() + name.len() + value.len() + 2);
        for (index, line) in self.text.split_inclusive('\n').enumerate() {
            if Some(index) == last {
                let before = &line[..line.find('=').map_or(line.len(), |at| at + 1)];
                let after = comment_of(&line[before.len()..]);
                let end = &line[line.trim_end_matches(['\r', '\n']).len()..];
                text.push_str(before);
                text.push_str(value);
                text.push_str(after.trim_end());
                text.push_str(end);
            } else {
                text.push_str(line);
            }
        }
        if last.is_none() {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("{name}={value}\n"));
        }
        EnvFile { path: self.path.clone(), text }
    }

    /// Writes the file below `root`, keeping the permissions of the one that is there (0600 for a new one). A symbolic
    /// link stays one: what it points to is replaced.
    pub fn write(&self, root: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = root.join(&self.path);
        let target = std::fs::canonicalize(&path).unwrap_or(path);
        let mode = match std::fs::metadata(&target) {
            Ok(metadata) if metadata.permissions().readonly() => {
                return Err(anyhow!("`{}` is write-protected", self.path.display()));
            }
            Ok(metadata) => metadata.permissions().mode() & 0o777,
            Err(_) => 0o600,
        };
        files::write_atomically(&target, self.text.as_bytes(), mode)
    }
}

fn parse_line(line: &str) -> Result<(&str, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, rest) = line.split_once('=').ok_or("`NAME=value`, or a comment that begins with `#`")?;
    let name = name.trim_end();
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !name.chars().all(|part| part.is_ascii_alphanumeric() || part == '_') {
        return Err("a name of letters, digits and `_` before the `=`");
    }
    let rest = rest.trim_start();
    let value = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let (value, behind) = quoted(rest, quote).ok_or("a closing quote on the same line")?;
            let behind = behind.trim_start();
            if !behind.is_empty() && !behind.starts_with('#') {
                return Err("nothing but a comment behind the closing quote");
            }
            value
        }
        _ => rest[..rest.len() - comment_of(rest).len()].trim_end().to_owned(),
    };
    Ok((name, value))
}

/// The text in quotes and what follows it. Double quotes know `\"`, `\\`, `\$` and `\n`.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ => value.push(character),
        }
    }
    None
}

/// The comment behind a value, with the white space before it.
fn comment_of(rest: &str) -> &str {
    let value_ends = match rest.trim_start().chars().next() {
        Some(quote @ ('"' | '\'')) => {
            quoted(rest.trim_start(), quote).map_or(0, |(_, behind)| rest.len() - behind.len())
        }
        Some('#') => return rest,
        _ => 0,
    };
    let behind = &rest[value_ends..];
    let comment = behind
        .char_indices()
        .find(|(at, character)| *character == '#' && behind[..*at].chars().next_back().is_none_or(char::is_whitespace));
    match comment {
        Some((at, _)) => {
            let space = behind[..at].trim_end().len();
            &behind[space..]
        }
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> EnvFile {
        EnvFile { path: ".env".into(), text: text.into() }
    }

    fn values(text: &str) -> Vec<(String, String)> {
        let mut faults = Faults::default();
        let found = file(text).assignments(&mut faults).into_iter().map(|one| (one.name, one.value)).collect();
        assert!(faults.0.is_empty(), "{faults}");
        found
    }

    #[test]
    fn values_are_read_as_compose_reads_them() {
        let text =
            "A=1\nexport B = two words  # デフォルト\nC=\"q # \\\" \\$x\" # c\nD='#\\n'\nE=\nF=#none\nG=a#b\r\nA=2\n";
        let expected =
            [("B", "two words"), ("C", "q # \" $x"), ("D", "#\\n"), ("E", ""), ("F", ""), ("G", "a#b"), ("A", "2")];
        assert_eq!(values(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn every_bad_line_is_a_fault_with_its_number() {
        let mut faults = Faults::default();
        file("A=1\nnonsense\n9X=1\nB=\"open\nC=\"x\" y\n").assignments(&mut faults);
        assert_eq!(faults.0.iter().map(|fault| fault.line.unwrap()).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn a_change_keeps_every_other_byte() {
        let before = "# ports\r\nREDIS_PORT=6379   # 変更\r\n\nOTHER=\"x\" # y\nlast=1";
        let after = file(before).with("REDIS_PORT", "16379").with("NEW", "1");
        assert_eq!(after.text, "# ports\r\nREDIS_PORT=16379   # 変更\r\n\nOTHER=\"x\" # y\nlast=1\nNEW=1\n");
        assert_eq!(file("X=\"a # b\" # c\n").with("X", "2").text, "X=2 # c\n");
        assert_eq!(file("X=1\nX=2\n").with("X", "3").text, "X=1\nX=3\n");
    }
}
