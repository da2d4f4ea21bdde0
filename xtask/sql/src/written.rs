//! Values and names as SQL writes them.

/// A text. A backslash makes it an escape string, whatever `standard_conforming_strings` says, as libpq's `PQescapeLiteral`
/// does it.
pub fn literal(text: &str) -> String {
    let is_escape = text.contains('\\');
    let mut written = String::with_capacity(text.len() + 8);
    written.push_str(if is_escape { " E'" } else { "'" });
    push_doubled(&mut written, text, if is_escape { &['\'', '\\'] } else { &['\''] });
    written.push('\'');
    written
}

/// A name.
pub fn identifier(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push('"');
    push_doubled(&mut written, text, &['"']);
    written.push('"');
    written
}

/// A text in which some characters stand twice.
fn push_doubled(written: &mut String, text: &str, doubled: &[char]) {
    let mut begin = 0;
    for (at, found) in text.match_indices(doubled) {
        written.push_str(&text[begin..at]);
        written.push_str(found);
        begin = at;
    }
    written.push_str(&text[begin..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_text_or_a_name_stands_twice() {
        assert_eq!(literal("it's ''"), "'it''s '''''");
        assert_eq!(literal(r"\a'\"), r" E'\\a''\\'");
        assert_eq!(literal("ä"), "'ä'");
        assert_eq!(identifier("a\"b'\\"), "\"a\"\"b'\\\"");
        assert_eq!((literal("").as_str(), identifier("").as_str()), ("''", "\"\""));
    }
}
