//! The text of a migration: its statements, what of it cannot be run here, and whether two texts say the same.
//!
//! A message of many statements is the server's to parse; this reads only as much of SQL as it takes to find where a
//! statement begins. What psql alone understands is found here, before anything runs.

/// One statement, without its semicolon. Offsets are bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub start: usize,
    pub end: usize,
    /// Its words outside parentheses, in capitals; a quoted name is `"`.
    words: Vec<String>,
}

/// Something in the text that cannot be run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub offset: usize,
    pub what: String,
    /// Something has begun and has no end yet.
    pub is_open: bool,
}

/// As psql asks it: the first bytes of the file.
pub const NO_TRANSACTION: &str = "-- no-transaction";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    Word,
    Quoted,
    Sign,
}

/// Words that a statement is told by; none has more.
const WORDS: usize = 48;

/// The tokens of a text, each with where it ends.
fn tokens(text: &str) -> Result<Vec<(Kind, usize, usize)>, Flaw> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let (kind, length) = match bytes[at] {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => (Kind::Blank, 1),
            b'-' if rest.starts_with("--") => (Kind::Blank, rest.find('\n').unwrap_or(rest.len())),
            b'/' if rest.starts_with("/*") => (Kind::Blank, comment(rest).ok_or_else(|| open(at, "comment"))?),
            b'\'' => (Kind::Quoted, quoted(rest, b'\'', false).ok_or_else(|| open(at, "quote"))?),
            b'"' => (Kind::Quoted, quoted(rest, b'"', false).ok_or_else(|| open(at, "quoted name"))?),
            b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => {
                (Kind::Quoted, 1 + quoted(&rest[1..], b'\'', true).ok_or_else(|| open(at, "quote"))?)
            }
            b'$' => match dollar_tag(rest) {
                Some(tag) => {
                    let body = rest[tag.len()..].find(tag).ok_or_else(|| open(at, &format!("`{tag}`")))?;
                    (Kind::Quoted, body + 2 * tag.len())
                }
                None => (Kind::Sign, 1),
            },
            byte if is_word(byte) => (Kind::Word, rest.bytes().take_while(|byte| is_word(*byte)).count()),
            _ => (Kind::Sign, 1),
        };
        tokens.push((kind, at, at + length));
        at += length;
    }
    Ok(tokens)
}

fn open(offset: usize, what: &str) -> Flaw {
    Flaw { offset, what: format!("a {what} begins here and never ends"), is_open: true }
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
    let end = text[1..].find('$')? + 1;
    let name = &text.as_bytes()[1..end];
    let is_tag = name.iter().all(|byte| is_word(*byte) && *byte != b'$');
    (is_tag && !name.first().is_some_and(u8::is_ascii_digit)).then(|| &text[..=end])
}

/// The statements of a text.
pub fn statements(text: &str) -> Result<Vec<Statement>, Flaw> {
    match scan(text) {
        (statements, None) => Ok(statements),
        (_, Some(flaw)) => Err(flaw),
    }
}

/// The statements up to what is none. The body of a function in standard SQL holds semicolons of its own, as does a rule.
fn scan(text: &str) -> (Vec<Statement>, Option<Flaw>) {
    let tokens = match tokens(text) {
        Ok(tokens) => tokens,
        Err(flaw) => return (Vec::new(), Some(flaw)),
    };
    let mut statements = Vec::new();
    let mut current: Option<Statement> = None;
    let (mut parentheses, mut blocks) = (0_usize, 0_usize);
    for (kind, start, end) in tokens {
        if kind == Kind::Blank {
            continue;
        }
        let token = &text[start..end];
        if token == ";" && parentheses == 0 && blocks == 0 {
            statements.extend(current.take());
            continue;
        }
        if kind == Kind::Sign && token == "\\" {
            let line = text[start..].lines().next().unwrap_or_default();
            let what = format!("`{line}` is a command of psql, which the server does not know");
            return (statements, Some(Flaw { offset: start, what, is_open: false }));
        }
        let statement = current.get_or_insert_with(|| Statement { start, end, words: Vec::new() });
        statement.end = end;
        match (kind, token) {
            (Kind::Sign, "(") => parentheses += 1,
            (Kind::Sign, ")") => parentheses = parentheses.saturating_sub(1),
            (Kind::Word, _) if parentheses == 0 => {
                let word = token.to_uppercase();
                match word.as_str() {
                    "BEGIN" if statement.is_routine() => blocks += 1,
                    "CASE" if blocks > 0 => blocks += 1,
                    "END" if blocks > 0 => blocks -= 1,
                    _ => {}
                }
                if statement.words.len() < WORDS {
                    statement.words.push(word);
                }
            }
            (Kind::Quoted, _) if parentheses == 0 && statement.words.len() < WORDS => {
                statement.words.push("\"".to_owned());
            }
            _ => {}
        }
    }
    statements.extend(current);
    (statements, None)
}

/// The words of the one statement that a text is, once it is at its end; `None` while there is more to come.
pub fn whole(text: &str) -> Result<Option<Vec<String>>, Flaw> {
    const MORE: &str = " more";
    match scan(&format!("{text}{MORE}")) {
        // Only behind a statement's end, a word begins the next one.
        (mut statements, None) if statements.last().is_some_and(|last| last.start > text.len()) => {
            statements.pop();
            Ok(Some(statements.pop().map_or_else(Vec::new, |statement| statement.words)))
        }
        (_, Some(flaw)) if !flaw.is_open => Err(flaw),
        _ => Ok(None),
    }
}

impl Statement {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|present| present == word)
    }

    fn begins(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(word, wanted)| word == wanted)
    }

    fn is_routine(&self) -> bool {
        self.begins(&["CREATE"])
            && self.words.iter().skip(1).take(3).any(|word| ["FUNCTION", "PROCEDURE"].contains(&word.as_str()))
    }

    /// Whether its rows come beside it.
    fn is_fed(&self) -> bool {
        self.begins(&["COPY"]) && self.has("STDIN")
    }

    /// Whether it only makes, changes or drops objects. What a table or a view that is stored is made of is run.
    fn defines(&self) -> bool {
        let first = self.words.first().map(String::as_str).unwrap_or_default();
        let is_run = first == "CREATE" && self.has("AS") && (self.has("TABLE") || self.has("MATERIALIZED"));
        ["CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE"].contains(&first) && !is_run
    }

    /// Why it cannot be run from here, if it cannot.
    fn flaw(&self, no_transaction: bool) -> Option<String> {
        if self.begins(&["COPY"]) && (self.has("STDIN") || self.has("STDOUT")) {
            let direction = if self.has("STDIN") { "FROM stdin` takes its rows" } else { "TO stdout` gives its rows" };
            return Some(format!(
                "`COPY … {direction} beside the SQL, which a migration has no place for: write an INSERT, or a seed \
                 `0010_<table>.csv`"
            ));
        }
        if no_transaction {
            return None;
        }
        let first = self.words.first().map(String::as_str).unwrap_or_default();
        let ends = match first {
            "BEGIN" | "COMMIT" | "END" | "ABORT" => true,
            "ROLLBACK" => !self.has("TO"),
            "START" | "PREPARE" => self.begins(&[first, "TRANSACTION"]),
            _ => false,
        };
        if ends {
            return Some(format!(
                "`{first}` would end the transaction that all pending migrations are applied in; leave it out, or make \
                 `{NO_TRANSACTION}` the first line of the file"
            ));
        }
        let second = self.words.get(1).map(String::as_str).unwrap_or_default();
        let outside = match first {
            "VACUUM" => true,
            "CREATE" | "DROP" | "REINDEX" | "ALTER" if self.has("CONCURRENTLY") => true,
            "CREATE" | "DROP" => ["DATABASE", "TABLESPACE", "SUBSCRIPTION"].contains(&second),
            "REINDEX" => ["DATABASE", "SYSTEM", "SCHEMA"].contains(&second),
            "ALTER" => second == "SYSTEM",
            _ => false,
        };
        let shown = if self.has("CONCURRENTLY") { "CONCURRENTLY".to_owned() } else { format!("{first} {second}") };
        outside.then(|| {
            format!(
                "`{}` cannot run in a transaction; make `{NO_TRANSACTION}` the first line of the file",
                shown.trim()
            )
        })
    }
}

/// What is to be known of a text before it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Everything in it that cannot be run.
    pub flaws: Vec<Flaw>,
    /// It makes, changes and drops objects: no setting is another after it, and no row waits for a check at the commit. (A
    /// function in a default could do either; whoever runs it checks once at the end.)
    pub only_defines: bool,
}

pub fn read(text: &str) -> Reading {
    let no_transaction = text.starts_with(NO_TRANSACTION);
    let (statements, end) = scan(text);
    let only_defines = end.is_none() && statements.iter().all(Statement::defines);
    let found = statements.iter().filter_map(|statement| {
        Some(Flaw { offset: statement.start, what: statement.flaw(no_transaction)?, is_open: false })
    });
    let mut flaws: Vec<Flaw> = found.collect();
    // What follows a COPY is rows, not SQL.
    if !statements.last().is_some_and(Statement::is_fed) {
        flaws.extend(end);
    }
    Reading { flaws, only_defines }
}

/// What of a text counts: without comments and white space. Two texts of one essence do the same.
pub fn essence(text: &str) -> Option<String> {
    let tokens = tokens(text).ok()?;
    let tokens = tokens.iter().filter(|(kind, ..)| *kind != Kind::Blank);
    Some(tokens.map(|(_, start, end)| &text[*start..*end]).collect::<Vec<_>>().join(" "))
}

/// What stands in the parentheses behind the first such word.
pub fn parenthesised<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let tokens = tokens(text).ok()?;
    let tokens = tokens.iter().filter(|(kind, ..)| *kind != Kind::Blank);
    let mut behind = tokens.skip_while(|(_, start, end)| !text[*start..*end].eq_ignore_ascii_case(word)).skip(1);
    let (_, _, start) = behind.next().filter(|(_, start, end)| &text[*start..*end] == "(")?;
    let mut depth = 1;
    for (kind, at, end) in behind {
        match (kind, &text[*at..*end]) {
            (Kind::Sign, "(") => depth += 1,
            (Kind::Sign, ")") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[*start..*at]);
        }
    }
    None
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
        let routine = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; \
                       SELECT 2; END";
        assert_eq!(split(&format!("{routine}; SELECT 3")), [routine, "SELECT 3"]);
        assert_eq!(statements("SELECT 'a").unwrap_err().offset, 7);
        assert_eq!(split("SELECT 'ä' AS größe"), ["SELECT 'ä' AS größe"]);
    }

    #[test]
    fn what_only_psql_can_do_is_refused_in_a_sentence() {
        let says = |text: &str| read(text).flaws.into_iter().map(|flaw| flaw.what).collect::<Vec<_>>().join("\n");
        assert!(says("\\set x 1\nSELECT 1").contains("command of psql"));
        assert!(says("COPY t (a, b) FROM stdin;\n").contains("COPY"));
        assert!(says("COMMIT").contains("would end the transaction"));
        assert!(says("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)").contains("cannot run in a transaction"));
        assert!(says("VACUUM t").contains("`VACUUM T`"));
        assert_eq!(says("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a); VACUUM t"), "");
        assert_eq!(says("SAVEPOINT a; ROLLBACK TO a; COPY t FROM '/tmp/x'; SELECT '\\n'"), "");
        assert_eq!(says("DO $$ BEGIN PERFORM 1; END $$; REFRESH MATERIALIZED VIEW CONCURRENTLY v"), "");
    }

    #[test]
    fn what_only_defines_leaves_nothing_behind_for_the_next() {
        for text in ["CREATE TABLE t (a int); -- x\nCOMMENT ON TABLE t IS 'set'", "ALTER TABLE t ADD b int", ""] {
            assert!(read(text).only_defines, "{text}");
        }
        for text in
            ["SET search_path = x", "CREATE TABLE t AS SELECT 1", "INSERT INTO t VALUES (1)", "DO $$ $$", "DROP 'x"]
        {
            assert!(!read(text).only_defines, "{text}");
        }
    }

    #[test]
    fn a_check_is_read_to_its_end() {
        let text = "ADD CONSTRAINT c check (a IN (1, 2) AND b <> ')') NOT VALID";
        assert_eq!(parenthesised(text, "CHECK"), Some("a IN (1, 2) AND b <> ')'"));
    }

    #[test]
    fn comments_and_white_space_do_not_count() {
        assert_eq!(essence("SELECT  1 -- x\n;"), essence("/* y */SELECT 1;"));
        assert_ne!(essence("SELECT 'a  b'"), essence("SELECT 'a b'"));
        assert_eq!(place("a\nbä c", 5), (2, 3));
    }
}
