//! Reads a TOML file into a type and reports every fault of it, not only the first.
//!
//! serde stops at the first key that does not fit. Here that key is noted, another value stands in for it (an unknown key
//! is taken out), and the document is read again, until nothing is left to complain about. The types stay plain, the
//! report is complete, and the checks across keys still run on the rest.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults, is_secret, nearest};
use crate::files;

/// A parsed file that still knows where each key stands.
#[derive(Debug)]
pub struct TomlFile {
    /// Relative to the repository's root.
    pub path: PathBuf,
    text: String,
    /// Keys that were wrong, and whose values only stand in.
    stand_ins: RefCell<HashSet<String>>,
}

/// More than anybody makes in one file; an end to a loop that would find no other.
const MOST_FAULTS: usize = 1000;

impl TomlFile {
    /// Reads `path` below `root`. A missing, unreadable or non-UTF-8 file is a fault.
    pub fn read(root: &Path, path: &Path, faults: &mut Faults) -> Option<TomlFile> {
        match files::read_text(&root.join(path)) {
            Ok(text) => Some(TomlFile { path: path.to_owned(), text, stand_ins: RefCell::default() }),
            Err(problem) => {
                faults.push(Fault {
                    file: path.to_owned(),
                    line: problem.line,
                    key: "(the file)".into(),
                    found: problem.found,
                    expected: "a readable TOML file in UTF-8".into(),
                    fix: None,
                });
                None
            }
        }
    }

    /// The file as `T`, or nothing if the faults found leave no `T` to build.
    pub fn parse<T: DeserializeOwned>(&self, faults: &mut Faults) -> Option<T> {
        let (document, syntax_errors) = DeTable::parse_recoverable(&self.text);
        for error in &syntax_errors {
            let span = error.span().unwrap_or_default();
            faults.push(Fault {
                file: self.path.clone(),
                line: Some(self.line_at(span.start)),
                key: "(syntax)".into(),
                found: match self.text_of_line_at(span.start) {
                    line if is_secret(line) => "a line with a secret in it".into(),
                    line => format!("`{line}`"),
                },
                expected: one_line(error.message()),
                fix: None,
            });
        }
        if !syntax_errors.is_empty() {
            return None;
        }
        let mut document = document;
        for attempt in 0..MOST_FAULTS {
            let error = match T::deserialize(toml::de::Deserializer::from(document.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..self.text.len());
            let message = one_line(error.message());
            let path = innermost_at(document.get_ref(), &span);
            let problem = Problem::of(&message);
            let key = match &problem {
                Problem::MissingField(field) => join(&path, field),
                _ => path.join("."),
            };
            if !self.stands_in(&key) {
                faults.push(self.fault(&message, &key, &problem, &span, lookup(document.get_ref(), &path)));
                self.stand_ins.borrow_mut().insert(key.clone());
            }
            // No other value has this span, so the next error about the stand-in is found again.
            let span = self.text.len() + attempt..self.text.len() + attempt + 1;
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            let stand_in = match &problem {
                Problem::UnknownField { .. } => None,
                Problem::MissingField(_) => Some(DeValue::String("".into())),
                Problem::UnknownVariant { known, .. } => {
                    known.first().map(|first| DeValue::String(first.clone().into()))
                }
                Problem::Value { expected } => Some(kind_of(expected)?.2()),
            };
            if !put(document.get_mut(), &path, stand_in.map(|value| Spanned::new(span, value))) {
                return None;
            }
        }
        None
    }

    /// Whether the key, or the table that it is in, was wrong and has a stand-in: nothing more is to be said of it.
    pub fn stands_in(&self, key: &str) -> bool {
        let stand_ins = self.stand_ins.borrow();
        key.match_indices('.').map(|(at, _)| &key[..at]).chain([key]).any(|part| stand_ins.contains(part))
    }

    fn fault(
        &self,
        message: &str,
        key: &str,
        problem: &Problem,
        span: &Range<usize>,
        value: Option<&Spanned<DeValue<'_>>>,
    ) -> Fault {
        let mut fault = Fault {
            file: self.path.clone(),
            line: Some(self.line_at(span.start)),
            key: if key.is_empty() { "(top level)".into() } else { key.to_owned() },
            found: String::new(),
            expected: message.to_owned(),
            fix: None,
        };
        match problem {
            Problem::MissingField(field) => {
                fault.found = "nothing".into();
                fault.expected = format!("`{field}`, which every such table needs");
            }
            Problem::UnknownField { unknown, known } => {
                fault.found = format!("the unknown key `{unknown}`");
                fault.expected = format!("one of: {}", known.join(", "));
                fault.fix = nearest(unknown, known.iter().map(String::as_str)).map(str::to_owned);
            }
            Problem::UnknownVariant { unknown, known } => {
                fault.found = format!("`{unknown}`");
                fault.expected = format!("one of: {}", known.join(", "));
                fault.fix = nearest(unknown, known.iter().map(String::as_str)).map(|name| format!("\"{name}\""));
            }
            Problem::Value { expected } => {
                fault.found = match value.filter(|_| !is_secret(key)).and_then(|value| self.text.get(value.span())) {
                    Some(text) => format!("`{}`", text.trim()),
                    None if is_secret(key) => "another kind of value".into(),
                    None => format!("`{}`", self.text_of_line_at(span.start)),
                };
                fault.expected =
                    kind_of(expected).map_or_else(|| message.to_owned(), |(_, words, _)| (*words).to_owned());
            }
        }
        fault
    }

    /// The line where the dotted key stands, for checks that look at several keys; the nearest parent's where the key
    /// itself is not written.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let (document, _) = DeTable::parse_recoverable(&self.text);
        let mut line = None;
        let mut table = document.get_ref();
        for part in key.split('.') {
            let Some((name, value)) = table.get_key_value(part) else { break };
            line = Some(self.line_at(name.span().start));
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        line
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn text_of_line_at(&self, offset: usize) -> &str {
        self.text.lines().nth(self.line_at(offset) - 1).unwrap_or_default().trim()
    }
}

/// The path of the innermost entry whose key or value covers the span.
fn innermost_at(table: &DeTable<'_>, span: &Range<usize>) -> Vec<String> {
    for (key, value) in table {
        if key.span() == *span {
            return vec![key.get_ref().to_string()];
        }
        if let DeValue::Table(inner) = value.get_ref() {
            if value.span() == *span {
                return vec![key.get_ref().to_string()];
            }
            let below = innermost_at(inner, span);
            if !below.is_empty() {
                return std::iter::once(key.get_ref().to_string()).chain(below).collect();
            }
        }
        if value.span().start <= span.start && span.end <= value.span().end {
            return vec![key.get_ref().to_string()];
        }
    }
    Vec::new()
}

fn lookup<'a, 'i>(table: &'a DeTable<'i>, path: &[String]) -> Option<&'a Spanned<DeValue<'i>>> {
    let (last, parents) = path.split_last()?;
    let mut table = table;
    for part in parents {
        table = table.get(part.as_str())?.get_ref().as_table()?;
    }
    table.get(last.as_str())
}

/// Sets or removes an entry; `false` if its table is not there.
fn put<'i>(table: &mut DeTable<'i>, path: &[String], value: Option<Spanned<DeValue<'i>>>) -> bool {
    match (path, value) {
        ([], _) => false,
        ([last], None) => table.remove(last.as_str()).is_some(),
        ([last], Some(value)) => {
            let name: std::borrow::Cow<'_, str> = last.clone().into();
            table.insert(Spanned::new(value.span(), name), value);
            true
        }
        ([first, rest @ ..], value) => match table.get_mut(first.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => put(inner, rest, value),
            _ => false,
        },
    }
}

/// What serde complains about, read off its message: it has no other form.
enum Problem {
    MissingField(String),
    UnknownField { unknown: String, known: Vec<String> },
    UnknownVariant { unknown: String, known: Vec<String> },
    Value { expected: String },
}

impl Problem {
    fn of(message: &str) -> Problem {
        let known = || message.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        if let Some(field) = quoted_after(message, "missing field ") {
            return Problem::MissingField(field);
        }
        if let Some(unknown) = quoted_after(message, "unknown field ") {
            return Problem::UnknownField { unknown, known: known() };
        }
        if let Some(unknown) = quoted_after(message, "unknown variant ") {
            return Problem::UnknownVariant { unknown, known: known() };
        }
        let expected = message.rsplit_once(", expected ").map_or(message, |(_, expected)| expected);
        Problem::Value { expected: expected.to_owned() }
    }
}

/// A kind of value: the words of serde's message that tell it, ours, and a value that stands in.
type Kind = (&'static [&'static str], &'static str, fn() -> DeValue<'static>);

const KINDS: [Kind; 6] = [
    (&["string"], "a text in quotes", || DeValue::String("".into())),
    (&["f64", "float"], "a number", || DeValue::Float(toml::de::DeFloat::default())),
    (&["u8", "u16", "u32", "u64", "i64", "integer"], "a whole number, not negative", || {
        DeValue::Integer(toml::de::DeInteger::default())
    }),
    (&["bool"], "true or false", || DeValue::Boolean(false)),
    (&["sequence", "array"], "a list in brackets", || DeValue::Array(toml::de::DeArray::new())),
    (&["struct", "map", "table"], "a table", || DeValue::Table(DeTable::new())),
];

fn kind_of(expected: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|(signs, ..)| signs.iter().any(|sign| expected.contains(sign)))
}

fn join(path: &[String], field: &str) -> String {
    path.iter().map(String::as_str).chain([field]).collect::<Vec<_>>().join(".")
}

fn quoted_after(message: &str, prefix: &str) -> Option<String> {
    let rest = message.split_once(prefix)?.1.strip_prefix('`')?;
    Some(rest.split_once('`')?.0.to_owned())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
