//! Where statements begin in a file of SQL, and what in it only psql understands. No parser: strings, quoted names,
//! dollar quotes and comments are told apart, the server judges the rest.

/// A file as its statements.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The byte where each statement begins, comments before it aside.
    pub statements: Vec<usize>,
    pub refused: Vec<Refused>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// 1-based.
    pub line: usize,
    pub found: String,
    pub expected: &'static str,
}

/// The statement that is being read.
#[derive(Debug, Default)]
struct Statement {
    begin: Option<usize>,
    first: String,
    second: String,
    last: String,
    has_to: bool,
    copies_from_stdin: bool,
    /// Open brackets.
    brackets: usize,
    /// Inside of `BEGIN ATOMIC … END`, where a semicolon ends nothing.
    blocks: usize,
}

pub fn script(text: &str) -> Script {
    let bytes = text.as_bytes();
    let mut script = Script::default();
    let mut statement = Statement::default();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let begin = at;
        match rest[0] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                at += find(rest, b"\n").unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                at += comment(rest);
                continue;
            }
            b'\'' => {
                // Only a word of its own makes it an escape string: `E'…'`.
                let is_escape = at > 0 && bytes[at - 1].eq_ignore_ascii_case(&b'e') && statement.last == "E";
                at += quote(rest, b'\'', is_escape);
            }
            b'"' => at += quote(rest, b'"', false),
            b'$' => at += dollar_quote(rest),
            b'\\' => {
                let line = line_of(text, at);
                let command = rest.split(u8::is_ascii_whitespace).next().unwrap_or_default();
                let command = String::from_utf8_lossy(command);
                if script.refused.last().is_none_or(|refused| refused.line != line) {
                    script.refused.push(Refused {
                        line,
                        found: format!("`{command}`, a command of psql"),
                        expected: "SQL only: seeds are sent to the server, not to psql",
                    });
                }
                // Nothing of the line is SQL.
                at += find(rest, b"\n").unwrap_or(rest.len());
                continue;
            }
            b';' if statement.brackets == 0 && statement.blocks == 0 => {
                at += 1;
                let copies = statement.copies_from_stdin;
                finish(text, &mut script, std::mem::take(&mut statement));
                if copies {
                    // Its rows are not SQL.
                    let end = find(&bytes[at..], b"\n\\.");
                    at = end.map_or(bytes.len(), |end| at + end + b"\n\\.".len());
                }
                continue;
            }
            b'(' => {
                statement.brackets += 1;
                at += 1;
            }
            b')' => {
                statement.brackets = statement.brackets.saturating_sub(1);
                at += 1;
            }
            byte if is_word(byte) => {
                let length = rest.iter().position(|byte| !is_word(*byte) && *byte != b'$').unwrap_or(rest.len());
                statement.word(text[at..at + length].to_ascii_uppercase());
                at += length;
            }
            _ => at += 1,
        }
        statement.begin.get_or_insert(begin);
    }
    finish(text, &mut script, statement);
    script
}

impl Statement {
    fn word(&mut self, word: String) {
        if self.first.is_empty() {
            self.first.clone_from(&word);
        } else if self.second.is_empty() {
            self.second.clone_from(&word);
        }
        self.has_to |= word == "TO";
        self.copies_from_stdin |= self.first == "COPY" && self.last == "FROM" && word == "STDIN";
        match word.as_str() {
            "ATOMIC" if self.last == "BEGIN" => self.blocks = 1,
            "CASE" if self.blocks > 0 => self.blocks += 1,
            "END" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
        self.last = word;
    }

    /// Why it cannot run as a part of the one transaction.
    fn refusal(&self) -> Option<(String, &'static str)> {
        if self.copies_from_stdin {
            let expected = "the rows in an `NNNN_<table>.csv` of their own, which is streamed to the table";
            return Some(("`COPY … FROM stdin`, whose rows only psql would read".to_owned(), expected));
        }
        let is_control = match self.first.as_str() {
            "BEGIN" | "COMMIT" | "END" | "ABORT" => true,
            "START" | "PREPARE" => self.second == "TRANSACTION",
            "ROLLBACK" => !self.has_to,
            _ => false,
        };
        is_control.then(|| {
            let expected = "no transaction of its own: all seeds of a database are one";
            (format!("`{}`", self.first), expected)
        })
    }
}

fn finish(text: &str, script: &mut Script, statement: Statement) {
    let Some(begin) = statement.begin else { return };
    script.statements.push(begin);
    if let Some((found, expected)) = statement.refusal() {
        script.refused.push(Refused { line: line_of(text, begin), found, expected });
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The length of a comment, others in it included.
fn comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a string or a quoted name. A doubled quote reads as two strings side by side, which is as good.
fn quote(rest: &[u8], mark: u8, is_escape: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' if is_escape => at += 2,
            // Doubled inside of an escape string, it must not become a plain one.
            byte if byte == mark && is_escape && rest.get(at + 1) == Some(&mark) => at += 2,
            byte if byte == mark => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `$tag$…$tag$`, or 1 where the dollar opens nothing.
fn dollar_quote(rest: &[u8]) -> usize {
    let tag = rest[1..].iter().position(|byte| !is_word(*byte)).map_or(rest.len(), |length| length + 1);
    if rest.get(tag) != Some(&b'$') || rest[1].is_ascii_digit() {
        return 1;
    }
    let mark = &rest[..=tag];
    find(&rest[mark.len()..], mark).map_or(rest.len(), |inside| inside + 2 * mark.len())
}

/// The 1-based line of a byte.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        script(text).refused.iter().map(|refused| refused.line).collect()
    }

    #[test]
    fn statements_are_told_apart() {
        let text =
            "-- a; b\nSELECT ';', $$;$$, $x$ ; $$ $x$, \"a;b\", E'\\';' /* ; /* ; */ ; */;\n\nSELECT 2;\n-- end\n";
        let begins: Vec<&str> = script(text).statements.iter().map(|begin| &text[*begin..*begin + 8]).collect();
        assert_eq!(begins, ["SELECT '", "SELECT 2"]);
        let atomic =
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3";
        assert_eq!(script(atomic), Script { statements: vec![0, atomic.len() - 8], refused: vec![] });
        assert_eq!(script("SELECT 'it''s'; SELECT E'\\\\'; SELECT $1").statements.len(), 3);
    }

    #[test]
    fn what_only_psql_understands_is_refused() {
        assert_eq!(lines("SELECT 1;\n\\copy t FROM 'x'\nSELECT 2 \\gset\n"), [2, 3]);
        assert_eq!(
            lines("COPY t (a) FROM stdin;\n1\t\\N\n\\.\nSELECT 1;\nCOPY u FROM STDIN WITH (FORMAT csv);\n1\n\\.\n"),
            [1, 5]
        );
        assert_eq!(lines("SELECT '\n\\copy', $$\n\\d\n$$; -- \\d\n/*\n\\d */ COPY t TO STDOUT;"), [0usize; 0]);
    }

    #[test]
    fn a_transaction_of_its_own_is_refused() {
        assert_eq!(
            lines("BEGIN;\nSELECT 1;\nCOMMIT;\nROLLBACK TO here; SAVEPOINT here; PREPARE x AS SELECT 1;"),
            [1, 3]
        );
        assert_eq!(lines("start transaction;\nDO $$ BEGIN PERFORM 1; END $$;\nend"), [1, 3]);
    }
}
