//! Reads a TOML file into a type and reports every fault of it, not only the first.
//!
//! serde stops at the first key that does not fit. Here that key is noted, taken out of the parsed document, and the
//! document is read again, until nothing is left to complain about: the types stay plain and the report is complete.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults, nearest};
use crate::files;

/// A parsed file that still knows where each key stands.
#[derive(Debug)]
pub struct TomlFile {
    /// Relative to the repository's root.
    pub path: PathBuf,
    text: String,
}

impl TomlFile {
    /// Reads `path` below `root`. A missing, unreadable or non-UTF-8 file is a fault.
    pub fn read(root: &Path, path: &Path, faults: &mut Faults) -> Option<TomlFile> {
        match files::read_text(&root.join(path)) {
            Ok(text) => Some(TomlFile { path: path.to_owned(), text }),
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
                found: format!("`{}`", self.text_of_line_at(span.start)),
                expected: one_line(error.message()),
                fix: None,
            });
        }
        if !syntax_errors.is_empty() {
            return None;
        }
        let mut document = document;
        let mut pruned: Vec<String> = Vec::new();
        loop {
            let error = match T::deserialize(toml::de::Deserializer::from(document.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..self.text.len());
            let message = one_line(error.message());
            let path = innermost_at(document.get_ref(), &span);
            let missing = quoted_after(&message, "missing field ");
            let blamed_already = missing.as_ref().is_some_and(|field| pruned.contains(&join(&path, field)));
            if !blamed_already {
                faults.push(self.fault(&message, &path, missing.as_deref(), &span, document.get_ref()));
            }
            if path.is_empty() || !remove(document.get_mut(), &path) {
                return None;
            }
            pruned.push(path.join("."));
        }
    }

    fn fault(
        &self,
        message: &str,
        path: &[String],
        missing: Option<&str>,
        span: &Range<usize>,
        document: &DeTable<'_>,
    ) -> Fault {
        let mut fault = Fault {
            file: self.path.clone(),
            line: Some(self.line_at(span.start)),
            key: if path.is_empty() { "(top level)".into() } else { path.join(".") },
            found: String::new(),
            expected: message.to_owned(),
            fix: None,
        };
        if let Some(field) = missing {
            fault.key = join(path, field);
            fault.found = "nothing".into();
            fault.expected = format!("`{field}`, which every such table needs");
        } else if let Some(unknown) = quoted_after(message, "unknown field ") {
            let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            fault.found = format!("the unknown key `{unknown}`");
            fault.expected = format!("one of: {}", known.join(", "));
            fault.fix = nearest(&unknown, known).map(str::to_owned);
        } else if let Some(unknown) = quoted_after(message, "unknown variant ") {
            let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            fault.found = format!("`{unknown}`");
            fault.expected = format!("one of: {}", known.join(", "));
            fault.fix = nearest(&unknown, known).map(|name| format!("\"{name}\""));
        } else {
            fault.found = lookup(document, path)
                .map(|value| format!("`{}`", self.text[value.span()].trim()))
                .unwrap_or_else(|| format!("`{}`", self.text_of_line_at(span.start)));
            if let Some((_, expected)) = message.split_once(", expected ") {
                fault.expected = expected.to_owned();
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

fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => table.remove(last.as_str()).is_some(),
        [first, rest @ ..] => match table.get_mut(first.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
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
