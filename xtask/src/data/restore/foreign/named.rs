//! What a dump names, before anything of it is done: owners, extensions, the server and the locale that it comes from.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};

use anyhow::Result;
use archive::custom::{Head, MAGIC};
use serde::Serialize;

use super::items::END_OF_ROWS;
use crate::data::locale::{self, Origin};
use crate::data::restore::database::Place;
use crate::data::side::{self, Purpose, Side};

/// What a database is made with where the dump does not say, and where the server has not what it says: it has every
/// letter.
const ENCODING: &str = "UTF8";
const CREATE_DATABASE: &str = "CREATE DATABASE ";
/// Of that statement, in bytes.
const STATEMENT_LIMIT: usize = 64 << 10;
/// What pg_dump's own tars begin with, behind the head of this file in them.
const TAR_BEGIN: &[u8] = b"toc.dat\0";
const TAR_BLOCK: usize = 512;

/// UTF-8 in the place of an encoding that the server has not.
#[derive(Debug, Serialize)]
pub struct OtherEncoding {
    wanted: String,
    instead: &'static str,
    /// What the server says.
    why: String,
}

impl OtherEncoding {
    /// As a person is told.
    pub fn told(&self, database: &str) -> String {
        format!("not here: the encoding `{}`, {}; `{database}` has `{}`", self.wanted, self.why, self.instead)
    }
}

/// What a dump names before anything of it is done.
#[derive(Debug, Default)]
pub struct Named {
    pub(super) server_version: String,
    pub(super) owners: BTreeSet<String>,
    pub(super) extensions: BTreeSet<String>,
    origin: Origin,
    pub(super) other_encoding: Option<OtherEncoding>,
}

impl Named {
    /// An empty database for the dump.
    pub async fn side(&mut self, place: &Place) -> Result<Side> {
        let make = async |encoding: &str| {
            Side::make(&place.door, &place.login.user, Purpose::Restore { origin: &self.origin, encoding }).await
        };
        let Some(wanted) = self.origin.encoding.as_deref() else { return make(ENCODING).await };
        let error = match make(wanted).await {
            Ok(side) => return Ok(side),
            Err(error) => error,
        };
        let Some(why) = side::said_to_encoding(&error) else { return Err(error) };
        let side = make(ENCODING).await?;
        self.other_encoding = Some(OtherEncoding { wanted: wanted.to_owned(), instead: ENCODING, why });
        Ok(side)
    }
}

/// Owners, extensions, version and locale, from the table of contents.
pub fn in_archive(mut input: impl Read) -> Result<Named> {
    let mut begin = [0; MAGIC.len()];
    input.read_exact(&mut begin)?;
    if TAR_BEGIN.starts_with(&begin) {
        io::copy(&mut input.by_ref().take((TAR_BLOCK - begin.len()) as u64), &mut io::sink())?;
        input.read_exact(&mut begin)?;
    }
    if begin != MAGIC {
        // A tar that pg_dump has not made: pg_restore says what is wrong with it.
        return Ok(Named::default());
    }
    let head = Head::read(&mut begin.chain(input))?;
    let owners = head.entries.iter().map(|entry| entry.owner.clone()).filter(|owner| !owner.is_empty());
    let extensions = head.entries.iter().filter(|entry| entry.kind == "EXTENSION").map(|entry| entry.tag.clone());
    Ok(Named {
        owners: owners.collect(),
        extensions: extensions.collect(),
        origin: Origin::of(&head),
        server_version: head.server_version,
        other_encoding: None,
    })
}

/// As [`in_archive`], from a first look through the lines.
pub fn in_sql(mut input: impl BufRead) -> Result<Named> {
    let mut named = Named::default();
    let mut line = Vec::new();
    // Before everything else that it makes, a dump makes the database, if it does: further on, such a line may be a
    // row.
    let mut first_made: Option<String> = None;
    let (mut is_open, mut is_row) = (false, false);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            let made = first_made.filter(|made| made.starts_with(CREATE_DATABASE));
            named.origin = Origin::new(&named.server_version, made.as_deref());
            return Ok(named);
        }
        if is_row {
            is_row = line.trim_ascii_end() != END_OF_ROWS;
            continue;
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        if first_made.is_none() && text.starts_with("CREATE ") {
            is_open = text.starts_with(CREATE_DATABASE);
            first_made = Some(String::new());
        }
        if let Some(statement) = first_made.as_mut().filter(|_| is_open) {
            statement.push_str(text);
            is_open = statement.len() < STATEMENT_LIMIT && !locale::is_whole(statement);
            continue;
        }
        let text = text.trim_end();
        is_row = text.starts_with("COPY ") && text.ends_with(" FROM stdin;");
        if let Some(version) = text.strip_prefix("-- Dumped from database version ") {
            version.clone_into(&mut named.server_version);
        } else if let Some((_, owner)) = text.strip_prefix("ALTER ").and_then(|rest| rest.rsplit_once(" OWNER TO ")) {
            named.owners.insert(owner.trim_end_matches(';').trim_matches('"').replace("\"\"", "\""));
        } else if let Some(rest) = text.strip_prefix("CREATE EXTENSION IF NOT EXISTS ") {
            let name = rest.split_whitespace().next().unwrap_or_default();
            named.extensions.insert(name.trim_end_matches(';').trim_matches('"').to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_the_database_is_read_to_its_end_and_nothing_of_it_is_another_statement() {
        let begin = "CREATE DATABASE x WITH ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'und' \
            ICU_RULES = '&a < ''b'';  \r\nALTER x OWNER TO y;\n";
        let end = "';\n\\connect x\nALTER TABLE t OWNER TO z;\nCREATE DATABASE y;\n";
        let named = |middle: &str| in_sql(format!("{begin}{middle}{end}").as_bytes()).unwrap();
        let short = named("");
        let statement = format!("{begin}';");
        assert_eq!(short.origin, Origin::new("", Some(&statement)));
        assert_ne!(short.origin, Origin::new("", Some("CREATE DATABASE")), "it is understood");
        assert_eq!(short.owners.into_iter().collect::<Vec<_>>(), ["z"]);

        let long = named(&"&a < b\n".repeat(STATEMENT_LIMIT / 7));
        assert_eq!(long.origin, Origin::new("", Some("CREATE DATABASE")), "nobody has such rules");
        let rows = "CREATE EXTENSION IF NOT EXISTS hstore;\nCOPY t (a) FROM stdin;\nCREATE EXTENSION IF NOT EXISTS none;\n\\.\n\
            ALTER TABLE t OWNER TO a;\n";
        let named = in_sql(rows.as_bytes()).unwrap();
        assert_eq!((named.extensions.len(), named.owners.len()), (1, 1), "a row is no statement");
        let other = in_sql(&b"CREATE TABLE t (a int\n);\nCREATE DATABASE x;\n"[..]).unwrap();
        assert_eq!(other.origin, Origin::default());
    }
}
