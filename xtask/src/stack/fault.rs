//! What is wrong with the configuration: collected, never thrown one by one.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, said so that a person can mend it without looking anything up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, relative to the repository's root; empty for the process environment.
    pub file: PathBuf,
    /// 1-based, where it is known.
    pub line: Option<usize>,
    /// The key or variable, dotted: `databases.learning.port`.
    pub key: String,
    pub found: String,
    pub expected: String,
    /// What to write instead.
    pub fix: Option<String>,
}

impl Fault {
    pub fn place(&self) -> String {
        match (self.file.as_os_str().is_empty(), self.line) {
            (true, _) => "environment".to_owned(),
            (false, Some(line)) => format!("{}:{line}", self.file.display()),
            (false, None) => self.file.display().to_string(),
        }
    }
}

/// Everything that is wrong, in the order of the files.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub fn push(&mut self, fault: Fault) {
        if !self.0.contains(&fault) {
            self.0.push(fault);
        }
    }
}

impl Extend<Fault> for Faults {
    fn extend<T: IntoIterator<Item = Fault>>(&mut self, faults: T) {
        faults.into_iter().for_each(|fault| self.push(fault));
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            writeln!(formatter, "  {}  {}", fault.place(), fault.key)?;
            writeln!(formatter, "    found     {}", fault.found)?;
            writeln!(formatter, "    expected  {}", fault.expected)?;
            if let Some(fix) = &fault.fix {
                writeln!(formatter, "    write     {fix}")?;
            }
        }
        Ok(())
    }
}

/// Whether a variable or key of that name holds something that must not be shown.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["PASSWORD", "PASWORD", "PASSWD", "SECRET", "TOKEN"].iter().any(|word| name.contains(word))
}

/// The known name that a person most likely meant, if one is near enough.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&folded, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(written.len()) / 4).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_slip_and_refuses_a_stranger() {
        let known = ["learning", "event-store", "ai", "user"];
        assert_eq!(nearest("lerning", known), Some("learning"));
        assert_eq!(nearest("event_store", known), Some("event-store"));
        assert_eq!(nearest("usre", known), Some("user"));
        assert_eq!(nearest("kafka", known), None);
    }
}
