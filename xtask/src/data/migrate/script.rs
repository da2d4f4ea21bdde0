//! What is to be known of the text of a migration before it is run: what of it cannot be run here, whether it only defines
//! objects, and whether two texts say the same. What psql alone understands is found here, before anything runs.

use sql::{Flaw, Kind, Statement, Token};

/// As psql asks it: the first bytes of the file.
pub const NO_TRANSACTION: &str = "-- no-transaction";

/// Whether a statement only makes, changes or drops objects. What a table or a view that is stored is made of is run.
fn defines(statement: &Statement) -> bool {
    let first = statement.word(0);
    let is_stored = statement.has("TABLE") || statement.has("MATERIALIZED");
    let is_run = first == "CREATE" && statement.has("AS") && is_stored;
    ["CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE"].contains(&first) && !is_run
}

/// Why a statement cannot be run from here, if it cannot.
fn flaw(statement: &Statement, no_transaction: bool) -> Option<String> {
    if statement.is_fed() || statement.feeds() {
        let direction = if statement.is_fed() { "FROM stdin` takes its rows" } else { "TO stdout` gives its rows" };
        return Some(format!(
            "`COPY … {direction} beside the SQL, which a migration has no place for: write an INSERT, or a seed \
             `0010_<table>.csv`"
        ));
    }
    if no_transaction {
        return None;
    }
    let (first, second) = (statement.word(0), statement.word(1));
    if statement.bounds_transaction() {
        return Some(format!(
            "`{first}` would end the transaction that all pending migrations are applied in; leave it out, or make \
             `{NO_TRANSACTION}` the first line of the file"
        ));
    }
    let is_concurrent = statement.has("CONCURRENTLY");
    let is_outside = match first {
        "VACUUM" => true,
        "CREATE" | "DROP" | "REINDEX" | "ALTER" if is_concurrent => true,
        "CREATE" | "DROP" => ["DATABASE", "TABLESPACE", "SUBSCRIPTION"].contains(&second),
        "REINDEX" => ["DATABASE", "SYSTEM", "SCHEMA"].contains(&second),
        "ALTER" => second == "SYSTEM",
        _ => false,
    };
    let shown = if is_concurrent { "CONCURRENTLY".to_owned() } else { format!("{first} {second}") };
    is_outside.then(|| {
        format!("`{}` cannot run in a transaction; make `{NO_TRANSACTION}` the first line of the file", shown.trim())
    })
}

/// A text, read.
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
    let script = sql::script(text);
    let found = script.statements.iter();
    let found = found.filter_map(|one| Some(Flaw { offset: one.start, what: flaw(one, no_transaction)? }));
    let mut flaws: Vec<Flaw> = found.chain(script.flaws()).collect();
    flaws.sort_by_key(|flaw| flaw.offset);
    let only_defines = script.flaws().next().is_none() && script.statements.iter().all(defines);
    Reading { flaws, only_defines }
}

/// What of a text counts: without comments and white space. Two texts of one essence do the same.
pub fn essence(text: &str) -> Option<String> {
    let tokens = sql::tokens(text).map(|token| Some(token.ok()?.text));
    Some(tokens.collect::<Option<Vec<_>>>()?.join(" "))
}

/// What stands in the parentheses behind the first such word.
pub fn parenthesised<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let tokens = sql::tokens(text).map_while(Result::ok);
    let mut behind = tokens.skip_while(|token| !token.text.eq_ignore_ascii_case(word)).skip(1);
    let start = behind.next().filter(|token| token.text == "(")?.start + 1;
    let mut depth = 1;
    for Token { kind, start: at, text: token } in behind {
        match (kind, token) {
            (Kind::Sign, "(") => depth += 1,
            (Kind::Sign, ")") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[start..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn all_of_a_text_is_told_at_once() {
        let text = "COMMIT;\nCOPY t FROM stdin;\nit's\n\\.\n\\set x 1\nVACUUM t;\nSELECT 'a";
        let lines: Vec<usize> = read(text).flaws.iter().map(|flaw| sql::place(text, flaw.offset).0).collect();
        assert_eq!(lines, [1, 2, 5, 6, 7]);
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
    }
}
