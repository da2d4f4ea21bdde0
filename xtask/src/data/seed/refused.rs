//! What a seed may not hold: all seeds of a database are one transaction, and it is the server that reads them.

use sql::Statement;

#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// 1-based.
    pub line: usize,
    pub found: String,
    pub expected: &'static str,
}

/// Everything in a file that is refused, in its order.
pub fn refused(text: &str) -> Vec<Refused> {
    let script = sql::script(text);
    let statements = script.statements.iter().filter_map(|statement| Some((statement.start, refusal(statement)?)));
    let commands = script.commands.iter().map(|command| {
        let name = command.line.split_ascii_whitespace().next().unwrap_or_default();
        let expected = "SQL only: seeds are sent to the server, not to psql";
        (command.offset, (format!("`{name}`, a command of psql"), expected))
    });
    let open = script.open.iter().map(|open| (open.offset, (format!("a {} that never ends", open.what), "its end")));
    let mut found: Vec<_> = statements.chain(commands).chain(open).collect();
    found.sort_by_key(|(offset, _)| *offset);
    let refused = found.into_iter();
    refused.map(|(at, (found, expected))| Refused { line: sql::place(text, at).0, found, expected }).collect()
}

/// Why it cannot run as a part of the one transaction.
fn refusal(statement: &Statement) -> Option<(String, &'static str)> {
    if statement.is_fed() {
        let expected = "the rows in an `NNNN_<table>.csv` of their own, which is streamed to the table";
        return Some(("`COPY … FROM stdin`, whose rows only psql would read".to_owned(), expected));
    }
    statement.bounds_transaction().then(|| {
        let expected = "no transaction of its own: all seeds of a database are one";
        (format!("`{}`", statement.word(0)), expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        refused(text).iter().map(|refused| refused.line).collect()
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

    #[test]
    fn all_of_a_file_is_refused_at_once() {
        let found: Vec<String> =
            refused("COMMIT;\n\\d t\nEND;\nSELECT 'a;\n").into_iter().map(|refused| refused.found).collect();
        assert_eq!(found, ["`COMMIT`", "`\\d`, a command of psql", "`END`", "a quote that never ends"]);
    }
}
