//! Generated files. Pure: manifests and types in, text out.

pub mod compose;
pub mod env_example;
pub mod schema;

use std::path::PathBuf;

#[derive(Debug)]
pub struct GeneratedFile {
    /// Relative to the repository's root.
    pub path: PathBuf,
    pub text: String,
}

/// What differs, a line each: `-` is there, `+` should be.
pub fn difference(name: &str, present: &str, wanted: &str) -> String {
    let (present, wanted): (Vec<&str>, Vec<&str>) = (present.lines().collect(), wanted.lines().collect());
    let same_start = present.iter().zip(&wanted).take_while(|(left, right)| left == right).count();
    let (left, right) = (&present[same_start..], &wanted[same_start..]);
    let same_end = left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count();
    let mut text = format!("  {name}, from line {}\n", same_start + 1);
    for line in &left[..left.len() - same_end] {
        text.push_str(&format!("  - {line}\n"));
    }
    for line in &right[..right.len() - same_end] {
        text.push_str(&format!("  + {line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_difference_shows_only_what_differs() {
        assert_eq!(super::difference("x", "a\nb\nc\n", "a\nB\nc\n"), "  x, from line 2\n  - b\n  + B\n");
    }
}
