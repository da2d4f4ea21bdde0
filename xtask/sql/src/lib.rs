//! Where statements begin and end in a text of SQL, and what in it is none: psql's commands, the rows behind a
//! `COPY … FROM stdin;`, what begins and never ends.
//!
//! No parser: strings, quoted names, dollar quotes and comments are told apart, the server judges the rest. What may be
//! run, and what is said to whoever wrote it, is for those who ask. And how values and names are written in such a text.

mod written;

pub use written::{identifier, literal};

/// A text as its statements.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Script<'t> {
    pub statements: Vec<Statement>,
    pub commands: Vec<Command<'t>>,
    /// What never ends; behind it nothing is known.
    pub open: Option<Open>,
    /// Nothing stands behind the last semicolon.
    is_ended: bool,
}

/// One statement, without its semicolon and the comments before it. Offsets are bytes of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statement {
    pub start: usize,
    pub end: usize,
    /// Its words outside parentheses, in capitals; a quoted name is `"`.
    pub words: Vec<String>,
}

/// A command of psql, to the end of its line: nothing of that is SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'t> {
    pub offset: usize,
    pub line: &'t str,
}

/// Something that begins and never ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub offset: usize,
    pub what: String,
}

/// Something in the text that cannot be run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub offset: usize,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Blank,
    Word,
    Quoted,
    Sign,
}

#[derive(Debug, Clone, Copy)]
pub struct Token<'t> {
    pub kind: Kind,
    pub start: usize,
    pub text: &'t str,
}

/// Words that a statement is told by; none has more.
const WORDS: usize = 48;

/// What a text consists of, comments and white space aside.
pub fn tokens(text: &str) -> impl Iterator<Item = Result<Token<'_>, Open>> {
    let is_blank = |token: &Result<Token<'_>, Open>| token.as_ref().is_ok_and(|token| token.kind == Kind::Blank);
    Tokens { text, at: 0 }.filter(move |token| !is_blank(token))
}

struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Result<Token<'t>, Open>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.text[self.at..];
        let start = self.at;
        let bytes = rest.as_bytes();
        let (kind, length) = match *bytes.first()? {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => (Kind::Blank, Ok(1)),
            b'-' if rest.starts_with("--") => (Kind::Blank, Ok(rest.find('\n').unwrap_or(rest.len()))),
            b'/' if rest.starts_with("/*") => (Kind::Blank, comment(rest).ok_or("comment")),
            b'\'' => (Kind::Quoted, quoted(rest, b'\'', false).ok_or("quote")),
            b'"' => (Kind::Quoted, quoted(rest, b'"', false).ok_or("quoted name")),
            // Only as a word of its own: `E'…'`.
            b'e' | b'E' if bytes.get(1) == Some(&b'\'') => {
                (Kind::Quoted, quoted(&rest[1..], b'\'', true).map(|length| length + 1).ok_or("quote"))
            }
            b'$' => match dollar_tag(rest) {
                Some(tag) => {
                    let body = rest[tag.len()..].find(tag);
                    (Kind::Quoted, body.map(|body| body + 2 * tag.len()).ok_or(tag))
                }
                None => (Kind::Sign, Ok(1)),
            },
            byte if is_word(byte) => (Kind::Word, Ok(bytes.iter().take_while(|byte| is_word(**byte)).count())),
            _ => (Kind::Sign, Ok(1)),
        };
        self.at = length.map_or(self.text.len(), |length| start + length);
        Some(match length {
            Ok(length) => Ok(Token { kind, start, text: &rest[..length] }),
            Err(what) if what.starts_with('$') => Err(Open { offset: start, what: format!("`{what}`") }),
            Err(what) => Err(Open { offset: start, what: what.to_owned() }),
        })
    }
}

impl Tokens<'_> {
    /// Passes over rows and the line that ends them.
    fn pass_rows(&mut self) {
        for row in self.text[self.at..].split_inclusive('\n') {
            self.at += row.len();
            if row.trim_ascii_end() == "\\." {
                break;
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Comments nest.
fn comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// A doubled quote is one of the text, as is one behind a backslash where that escapes.
fn quoted(text: &str, quote: u8, escapes: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// `$$` or `$body$` at the start of the text.
fn dollar_tag(text: &str) -> Option<&str> {
    let name = text.as_bytes()[1..].iter().take_while(|byte| is_word(**byte) && **byte != b'$').count();
    let is_tag = text.as_bytes().get(name + 1) == Some(&b'$') && !text.as_bytes()[1].is_ascii_digit();
    is_tag.then(|| &text[..name + 2])
}

/// Reads a text to its end, or to what has none. The body of a function in standard SQL holds semicolons of its own, as
/// does a rule.
pub fn script(text: &str) -> Script<'_> {
    let mut script = Script::default();
    let mut tokens = Tokens { text, at: 0 };
    let mut current: Option<Statement> = None;
    let (mut parentheses, mut blocks) = (0_usize, 0_usize);
    let (mut awaits_rows, mut is_behind_begin) = (false, false);
    while let Some(token) = tokens.next() {
        let Token { kind, start, text: token } = match token {
            Ok(token) => token,
            Err(open) => {
                script.open = Some(open);
                break;
            }
        };
        match (kind, token) {
            // As psql has it, rows begin on the next line.
            (Kind::Blank, "\n") if awaits_rows => {
                tokens.pass_rows();
                awaits_rows = false;
                continue;
            }
            (Kind::Blank, _) => continue,
            (Kind::Sign, "\\") => {
                let line = text[start..].lines().next().unwrap_or_default();
                script.commands.push(Command { offset: start, line });
                tokens.at = start + line.len();
                continue;
            }
            (Kind::Sign, ";") if parentheses == 0 && blocks == 0 => {
                awaits_rows |= current.as_ref().is_some_and(Statement::is_fed);
                script.statements.extend(current.take());
                continue;
            }
            _ => {}
        }
        let statement = current.get_or_insert_with(|| Statement { start, ..Statement::default() });
        statement.end = start + token.len();
        let was_begin = std::mem::take(&mut is_behind_begin);
        match (kind, token) {
            (Kind::Sign, "(") => parentheses += 1,
            (Kind::Sign, ")") => parentheses = parentheses.saturating_sub(1),
            (Kind::Word, _) if parentheses == 0 => {
                is_behind_begin = token.eq_ignore_ascii_case("BEGIN");
                let begins = match blocks {
                    0 => was_begin && token.eq_ignore_ascii_case("ATOMIC") && statement.is_routine(),
                    _ => token.eq_ignore_ascii_case("CASE"),
                };
                if begins {
                    blocks += 1;
                } else if token.eq_ignore_ascii_case("END") {
                    blocks = blocks.saturating_sub(1);
                }
                if statement.words.len() < WORDS {
                    statement.words.push(token.to_uppercase());
                }
            }
            (Kind::Quoted, _) if parentheses == 0 && statement.words.len() < WORDS => {
                statement.words.push("\"".to_owned());
            }
            _ => {}
        }
    }
    script.is_ended = current.is_none() && script.open.is_none();
    script.statements.extend(current);
    script
}

/// The statements of a text that has nothing else in it.
pub fn statements(text: &str) -> Result<Vec<Statement>, Flaw> {
    let script = script(text);
    let flaw = script.flaws().next();
    flaw.map_or(Ok(script.statements), Err)
}

/// The one statement that a text is, once it is at its end; `None` while there is more to come.
pub fn whole(text: &str) -> Result<Option<Statement>, Flaw> {
    let mut script = script(text);
    match script.commands.first() {
        Some(command) => Err(command.flaw()),
        None => Ok(script.is_ended.then(|| script.statements.pop().unwrap_or_default())),
    }
}

impl Script<'_> {
    /// What of it no server takes, in its order.
    pub fn flaws(&self) -> impl Iterator<Item = Flaw> {
        self.commands.iter().map(Command::flaw).chain(self.open.as_ref().map(Open::flaw))
    }
}

impl Command<'_> {
    fn flaw(&self) -> Flaw {
        let what = format!("`{}` is a command of psql, which the server does not know", self.line);
        Flaw { offset: self.offset, what }
    }
}

impl Open {
    fn flaw(&self) -> Flaw {
        Flaw { offset: self.offset, what: format!("a {} begins here and never ends", self.what) }
    }
}

impl Statement {
    /// A word by its number; an empty one behind the last.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|present| present == word)
    }

    fn is_routine(&self) -> bool {
        self.word(0) == "CREATE" && (1..4).any(|index| ["FUNCTION", "PROCEDURE"].contains(&self.word(index)))
    }

    fn copies(&self, direction: [&str; 2]) -> bool {
        self.word(0) == "COPY" && self.words.windows(2).any(|pair| pair == direction)
    }

    /// Whether its rows come beside it.
    pub fn is_fed(&self) -> bool {
        self.copies(["FROM", "STDIN"])
    }

    /// Whether its rows go out beside its answer.
    pub fn feeds(&self) -> bool {
        self.copies(["TO", "STDOUT"])
    }

    /// Whether it begins a transaction or ends the one that it runs in.
    pub fn bounds_transaction(&self) -> bool {
        match self.word(0) {
            "BEGIN" | "COMMIT" | "END" | "ABORT" => true,
            "START" | "PREPARE" => self.word(1) == "TRANSACTION",
            "ROLLBACK" => !self.has("TO"),
            _ => false,
        }
    }
}

/// 1-based line and column of a byte, as editors count them.
pub fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        statements(text).unwrap().iter().map(|statement| &text[statement.start..statement.end]).collect()
    }

    #[test]
    fn statements_end_where_the_server_ends_them() {
        assert_eq!(
            split("SELECT 1;; -- a;b\n/* ; /* ; */ */ SELECT ';', \"a;b\", E'\\';' ; "),
            ["SELECT 1", "SELECT ';', \"a;b\", E'\\';'"]
        );
        assert_eq!(split("DO $x$ a; $$ ; $$ $x$; SELECT $1"), ["DO $x$ a; $$ ; $$ $x$", "SELECT $1"]);
        assert_eq!(
            split("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); x"),
            ["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "x"]
        );
        assert_eq!(split("SELECT 'it''s'; SELECT E'\\\\'; SELECT E'''\\';'").len(), 3);
        assert_eq!(split("SELECT 'ä' AS größe"), ["SELECT 'ä' AS größe"]);
    }

    #[test]
    fn a_body_in_standard_sql_is_a_part_of_its_function() {
        let routine = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; \
                       SELECT 2; END";
        assert_eq!(split(&format!("{routine}; SELECT 3")), [routine, "SELECT 3"]);
        assert_eq!(split("CREATE FUNCTION begin() RETURNS int RETURN 1; SELECT 2").len(), 2);
        assert_eq!(split("SELECT begin atomic; SELECT 2").len(), 2);
    }

    #[test]
    fn backslashes_escape_in_escape_strings_alone() {
        assert_eq!(split("SELECT '\\'; SELECT name'\\'; SELECT 2").len(), 3);
    }

    #[test]
    fn commands_of_psql_reach_to_the_end_of_their_line() {
        let text = "SELECT 1;\n\\copy t FROM 'x;'\r\nSELECT 2 \\gset ;\n;SELECT 3";
        let script = script(text);
        let lines: Vec<(usize, &str)> =
            script.commands.iter().map(|command| (place(text, command.offset).0, command.line)).collect();
        assert_eq!(lines, [(2, "\\copy t FROM 'x;'"), (3, "\\gset ;")]);
        assert_eq!(script.statements.len(), 3);
    }

    #[test]
    fn rows_are_no_sql() {
        let text = "COPY t (a) FROM stdin; -- it's\n1\tit's\t\\N\n\\.;\n\\.\nSELECT 1;\nCOPY u FROM STDIN;\nx';";
        let script = script(text);
        let begins: Vec<usize> = script.statements.iter().map(|statement| place(text, statement.start).0).collect();
        assert_eq!((begins.as_slice(), script.flaws().count()), ([1, 5, 6].as_slice(), 0));
        assert_eq!(split("COPY t FROM '/stdin'; COPY stdin TO stdout;\nSELECT 1").len(), 3);
    }

    #[test]
    fn what_never_ends_is_told_with_its_place() {
        for (text, offset, what) in [
            ("SELECT 'a", 7, "quote"),
            ("SELECT E'a\\'", 7, "quote"),
            ("a; \"b", 3, "quoted name"),
            ("/* /* */", 0, "comment"),
            ("DO $x$ $y$", 3, "`$x$`"),
        ] {
            assert_eq!(script(text).open, Some(Open { offset, what: what.to_owned() }), "{text}");
        }
        assert_eq!(script("COMMIT; SELECT 'a").statements.len(), 2);
    }

    #[test]
    fn a_statement_is_whole_at_its_semicolon() {
        let words = |text: &str| whole(text).unwrap().map(|statement| statement.words.join(" "));
        assert_eq!(words("SELECT 1 AS a;\n").as_deref(), Some("SELECT 1 AS A"));
        assert_eq!(words("COPY t FROM stdin;\n").as_deref(), Some("COPY T FROM STDIN"));
        assert_eq!(words("; -- x").as_deref(), Some(""));
        for text in ["SELECT 1 -- ;\n", "SELECT ';\n", "SELECT (1;\n", "DO $$ a;\n"] {
            assert_eq!(words(text), None, "{text}");
        }
        assert!(whole("SELECT 1 \\! x\n;").is_err());
    }

    #[test]
    fn places_are_those_of_an_editor() {
        assert_eq!(place("a\nbä c", 5), (2, 3));
    }
}
