//! Dumps that were made elsewhere: plain SQL, pg_dump's custom, tar and directory formats, each of them compressed or
//! not.
//!
//! The first error ends a restore. Owners and rights are those of roles that this server need not have, so everything
//! becomes the stack's user's, and what that leaves out is told. Plain SQL is read here and not by psql: a dump is
//! somebody else's file, and psql would run the programs that it names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use archive::custom::{Head, MAGIC};
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::sync::mpsc;

use super::database::Place;
use super::load;
use crate::data::locale::{self, Origin, OtherLocale};
use crate::data::side::{self, Purpose, Side};
use crate::tools;
use crate::ui::{Exit, Failure};

/// What a database is made with where the dump does not say, and where the server has not what it says: it has every
/// letter.
const ENCODING: &str = "UTF8";
const CREATE_DATABASE: &str = "CREATE DATABASE ";
/// Of that statement, in bytes.
const STATEMENT_LIMIT: usize = 64 << 10;
/// What is sent to the server at once, in bytes.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;
/// Of a line that an error shows.
const SHOWN: usize = 120;
/// Where tar says what it is.
const TAR_MARK: (usize, &[u8]) = (257, b"ustar");
/// What pg_dump's own tars begin with, behind the head of this file in them.
const TAR_BEGIN: &[u8] = b"toc.dat\0";
const TAR_BLOCK: usize = 512;

/// A dump as it lies there.
#[derive(Debug)]
pub struct Dump {
    path: PathBuf,
    form: Form,
    packing: Packing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sql,
    /// Custom or tar: one file for pg_restore.
    Archive,
    Directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// What the dump wanted and did not get.
#[derive(Debug, Default)]
pub struct Wanting {
    /// Of the server that it was made on.
    pub server_version: String,
    /// Owners that became the stack's user.
    pub roles: BTreeSet<String>,
    /// Extensions that this server cannot have.
    pub extensions: BTreeSet<String>,
    /// Statements that were left out, by their first words.
    pub left_out: BTreeSet<String>,
    /// Settings that this server does not know.
    pub settings: BTreeSet<String>,
    pub other_encoding: Option<OtherEncoding>,
    pub other_locale: Option<OtherLocale>,
}

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
    server_version: String,
    owners: BTreeSet<String>,
    extensions: BTreeSet<String>,
    origin: Origin,
    other_encoding: Option<OtherEncoding>,
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

impl Dump {
    /// Looks at what the file is. Nothing is trusted to its name.
    pub fn open(path: &Path) -> Result<Dump> {
        let unreadable = || format!("cannot read `{}`", path.display());
        if path.is_dir() {
            if !path.join("toc.dat").is_file() {
                let title = format!("`{}` is a folder without `toc.dat`", path.display());
                bail!(Failure::new(Exit::Usage, title).hint("name a dump of `pg_dump --format=directory`, or a file"));
            }
            return Ok(Dump { path: path.to_owned(), form: Form::Directory, packing: Packing::Plain });
        }
        let begin = begin_of(File::open(path).with_context(unreadable)?).with_context(unreadable)?;
        let packing = match &begin[..] {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Plain,
        };
        let mut dump = Dump { path: path.to_owned(), form: Form::Sql, packing };
        let begin = begin_of(dump.read()?).with_context(unreadable)?;
        let is_tar = begin.get(TAR_MARK.0..).is_some_and(|rest| rest.starts_with(TAR_MARK.1));
        if begin.starts_with(MAGIC) || is_tar {
            dump.form = Form::Archive;
        } else if begin.is_empty() {
            bail!(Failure::new(Exit::Usage, format!("`{}` is empty", path.display())));
        } else if begin.contains(&0) {
            let title = format!("`{}` is no dump that this helper knows", path.display());
            bail!(Failure::new(Exit::Usage, title).hint(
                "plain SQL, or the custom, tar or directory format of pg_dump; compressed with gzip or zstd or not"
            ));
        }
        Ok(dump)
    }

    fn read(&self) -> Result<Box<dyn Read + Send>> {
        let file = File::open(&self.path).with_context(|| format!("cannot read `{}`", self.path.display()))?;
        Ok(match self.packing {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(PIECE, file))),
            Packing::Zstd => archive::part::decoder(file)?,
        })
    }

    /// What it names that this server may not have.
    pub async fn look(&self) -> Result<Named> {
        let (path, form) = (self.path.clone(), self.form);
        let input = self.read_head()?;
        tokio::task::spawn_blocking(move || match form {
            Form::Sql => named_in_sql(BufReader::with_capacity(PIECE, input)),
            Form::Archive | Form::Directory => {
                named_in_archive(input).with_context(|| format!("`{}` is broken", path.display()))
            }
        })
        .await?
    }

    /// Fills an empty database.
    pub async fn fill(self, named: Named, place: &Place, side: &Side, written: &Arc<AtomicU64>) -> Result<Wanting> {
        let mut connection = side.connect().await?;
        let present = texts(&mut connection, "SELECT rolname::text FROM pg_roles").await?;
        let available = texts(&mut connection, "SELECT name::text FROM pg_available_extensions").await?;
        let mut wanting = Wanting {
            server_version: named.server_version,
            roles: named.owners.into_iter().filter(|owner| !present.contains(owner)).collect(),
            extensions: named.extensions.into_iter().filter(|extension| !available.contains(extension)).collect(),
            other_encoding: named.other_encoding,
            other_locale: side.other_locale.clone(),
            ..Wanting::default()
        };
        if !wanting.extensions.is_empty() {
            let names: Vec<&str> = wanting.extensions.iter().map(String::as_str).collect();
            bail!(
                Failure::new(
                    Exit::Failed,
                    format!("the dump wants extensions that this server has not: {}", names.join(", "))
                )
                .hint("install them for this server, or leave them out of the dump")
            );
        }
        match self.form {
            Form::Sql => sql(&mut connection, self, &mut wanting, written).await?,
            Form::Archive | Form::Directory => self.restore(place, side, written).await?,
        }
        connection.close().await?;
        Ok(wanting)
    }

    fn read_head(&self) -> Result<Box<dyn Read + Send>> {
        match self.form {
            Form::Directory => Ok(Box::new(File::open(self.path.join("toc.dat"))?)),
            _ => self.read(),
        }
    }

    async fn restore(self, place: &Place, side: &Side, written: &Arc<AtomicU64>) -> Result<()> {
        let options = ["--exit-on-error", "--no-owner", "--no-privileges", "--no-password"].map(str::to_owned);
        let mut options = Vec::from(options);
        options.push(format!("--dbname={}", side.name));
        if self.form == Form::Directory {
            let Some(mut command) = place.clients.with_file("pg_restore", &side.name, &[load::OPTIONS]) else {
                bail!(
                    Failure::new(Exit::Usage, "a folder cannot be handed into a container")
                        .hint("dump in the custom format: `pg_dump --format=custom`")
                );
            };
            command.args(options).arg(&self.path);
            return tokio::task::spawn_blocking(move || {
                tools::run(command, tools::Input::Text(String::new()))?.ok().map(drop)
            })
            .await?;
        }
        let mut command = place.clients.command("pg_restore", &side.name, &[load::OPTIONS]);
        command.args(options);
        let written = Arc::clone(written);
        tokio::task::spawn_blocking(move || {
            let (mut process, output) = tools::pipe(command, Stdio::piped())?;
            drop(output);
            let Some(mut stdin) = process.stdin() else { bail!("pg_restore takes no input") };
            let copied = copy(self.read()?, &mut stdin, &written);
            drop(stdin);
            process.finish()?;
            Ok(copied?)
        })
        .await?
    }
}

fn begin_of(input: impl Read) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    input.take(512).read_to_end(&mut begin)?;
    Ok(begin)
}

fn copy(mut input: impl Read, output: &mut impl Write, written: &AtomicU64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match input.read(&mut piece)? {
            0 => return Ok(()),
            length => output.write_all(&piece[..length])?,
        }
        written.fetch_add(PIECE as u64, Ordering::Relaxed);
    }
}

async fn texts(connection: &mut PgConnection, sql: &str) -> Result<BTreeSet<String>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Owners, extensions, version and locale, from the table of contents.
fn named_in_archive(mut input: impl Read) -> Result<Named> {
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

/// As [`named_in_archive`], from a first look through the lines.
fn named_in_sql(mut input: impl BufRead) -> Result<Named> {
    let mut named = Named::default();
    let mut line = Vec::new();
    // Before everything else that it makes, a dump makes the database, if it does: further on, such a line may be a
    // row.
    let mut first_made: Option<String> = None;
    let mut is_open = false;
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            let made = first_made.filter(|made| made.starts_with(CREATE_DATABASE));
            named.origin = Origin::new(&named.server_version, made.as_deref());
            return Ok(named);
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

/// What is read of a plain dump, one after the other.
enum Item {
    /// Statements, and the line that they begin at.
    Statements(String, usize),
    /// One that may fail where this server does not know the setting.
    Setting(String, usize),
    Copy(String, usize),
    Rows(Vec<u8>),
    EndOfRows,
    LeftOut(String),
}

async fn sql(connection: &mut PgConnection, dump: Dump, wanting: &mut Wanting, written: &AtomicU64) -> Result<()> {
    let shown = dump.path.display().to_string();
    let input = dump.read()?;
    let (sender, mut items) = mpsc::channel(AHEAD);
    let name = shown.clone();
    let reading = tokio::task::spawn_blocking(move || items_of(BufReader::with_capacity(PIECE, input), &name, &sender));
    let mut failed = None;
    while let Some(item) = items.recv().await {
        let done = match item {
            Item::Statements(text, line) => {
                run(connection, &text, line, &shown, written).await.map_err(|refusal| refusal.failure)
            }
            Item::Setting(text, line) => match run(connection, &text, line, &shown, written).await {
                Err(refusal) if refusal.code.as_deref() == Some(UNKNOWN_SETTING) => {
                    wanting.settings.insert(text.trim().to_owned());
                    Ok(())
                }
                done => done.map_err(|refusal| refusal.failure),
            },
            Item::Copy(statement, line) => rows(connection, &statement, &mut items, written)
                .await
                .with_context(|| format!("`{shown}`:{line}: {}", first_line(&statement))),
            Item::LeftOut(what) => {
                wanting.left_out.insert(what);
                Ok(())
            }
            Item::Rows(_) | Item::EndOfRows => Ok(()),
        };
        if let Err(error) = done {
            failed = Some(error);
            break;
        }
    }
    drop(items);
    match (failed, reading.await?) {
        (Some(error), _) => Err(error),
        (None, read) => read,
    }
}

/// `undefined_object`: what a server says to a parameter that it does not know.
const UNKNOWN_SETTING: &str = "42704";

/// A statement that the server refused, with its code where it says one.
struct Refusal {
    code: Option<String>,
    failure: anyhow::Error,
}

async fn run(
    connection: &mut PgConnection,
    text: &str,
    line: usize,
    shown: &str,
    written: &AtomicU64,
) -> Result<(), Refusal> {
    let ran = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(connection).await;
    written.fetch_add(text.len() as u64, Ordering::Relaxed);
    let Err(error) = ran else { return Ok(()) };
    let Some(database) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) else {
        return Err(Refusal { code: None, failure: error.into() });
    };
    let offset = match database.position() {
        Some(PgErrorPosition::Original(position)) => {
            text.char_indices().nth(position.saturating_sub(1)).map_or(0, |(at, _)| at)
        }
        _ => text.len() - text.trim_start().len(),
    };
    let at = line + text[..offset].matches('\n').count();
    let begin = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    let body = format!("  {shown}:{at}\n    {}\n  {}", first_line(&text[begin..]), database.message());
    let failure = Failure::new(Exit::Failed, "the server refused a statement of the dump").body(body);
    Err(Refusal { code: Some(database.code().to_owned()), failure: failure.into() })
}

/// The rows behind a COPY, up to their end.
async fn rows(
    connection: &mut PgConnection,
    statement: &str,
    items: &mut mpsc::Receiver<Item>,
    written: &AtomicU64,
) -> Result<()> {
    let mut copy = connection.copy_in_raw(statement).await?;
    loop {
        match items.recv().await {
            Some(Item::Rows(piece)) => {
                written.fetch_add(piece.len() as u64, Ordering::Relaxed);
                copy.send(piece).await?;
            }
            Some(Item::EndOfRows) => break,
            _ => {
                copy.abort("the rows have no end").await?;
                bail!("the dump ends within the rows: it is cut off");
            }
        }
    }
    copy.finish().await?;
    Ok(())
}

fn first_line(text: &str) -> String {
    text.trim_start_matches('\n').lines().next().unwrap_or_default().chars().take(SHOWN).collect()
}

/// Reads the dump; ends quietly when nobody takes the items any more.
fn items_of(mut input: impl BufRead, shown: &str, sender: &mpsc::Sender<Item>) -> Result<()> {
    let (mut line, mut number) = (Vec::new(), 0);
    let (mut statement, mut begun) = (String::new(), 1);
    let mut batch = (String::new(), 1);
    macro_rules! send {
        ($item:expr) => {
            if sender.blocking_send($item).is_err() {
                return Ok(());
            }
        };
    }
    macro_rules! flush {
        () => {
            if !batch.0.is_empty() {
                send!(Item::Statements(std::mem::take(&mut batch.0), batch.1));
            }
        };
    }
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line).with_context(|| format!("cannot read `{shown}`"))?;
        if read == 0 {
            break;
        }
        number += 1;
        let is_between = statement.trim().is_empty();
        if is_between && line.starts_with(b"\\") {
            let command = String::from_utf8_lossy(&line).trim_end().to_owned();
            match command.split_whitespace().next().unwrap_or_default() {
                // What names the database or guards psql means nothing here.
                "\\connect" | "\\c" | "\\restrict" | "\\unrestrict" => send!(Item::LeftOut(first_words(&command))),
                _ => bail!(refused(shown, number, &command, "a command of psql, which this is not")),
            }
            continue;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            bail!(refused(shown, number, &String::from_utf8_lossy(&line), "not UTF-8; dump with `--encoding=UTF8`"));
        };
        if is_between {
            statement.clear();
            begun = number;
            if text.trim().is_empty() || text.starts_with("--") {
                continue;
            }
        }
        statement.push_str(text);
        if !text.trim_end().ends_with(';') {
            continue;
        }
        let read = match sql::whole(&statement) {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(flaw) => bail!(refused(shown, begun, &first_line(&statement), &flaw.what)),
        };
        let statement = std::mem::take(&mut statement);
        if read.is_fed() {
            flush!();
            send!(Item::Copy(statement.trim().trim_end_matches(';').to_owned(), begun));
            number += pass_rows(&mut input, sender)?;
        } else if is_about_roles(&read.words) {
            send!(Item::LeftOut(first_words(&statement)));
        } else if read.word(0) == "SET" {
            flush!();
            send!(Item::Setting(statement, begun));
        } else {
            if batch.0.is_empty() {
                batch.1 = begun;
            }
            // Lines stay where they were, so that an error names the right one.
            let lines = batch.0.matches('\n').count();
            batch.0.push_str(&"\n".repeat((begun - batch.1).saturating_sub(lines)));
            batch.0.push_str(&statement);
            if batch.0.len() > PIECE {
                flush!();
            }
        }
    }
    if !statement.trim().is_empty() {
        bail!(refused(shown, begun, &first_line(&statement), "a statement without an end: the dump is cut off"));
    }
    flush!();
    Ok(())
}

/// Passes rows on until the line that ends them; gives the number of lines.
fn pass_rows(input: &mut impl BufRead, sender: &mpsc::Sender<Item>) -> Result<usize> {
    let (mut piece, mut lines) = (Vec::with_capacity(2 * PIECE), 0);
    loop {
        let begin = piece.len();
        if input.read_until(b'\n', &mut piece)? == 0 {
            return Ok(lines);
        }
        lines += 1;
        let is_end = piece[begin..].trim_ascii_end() == b"\\.";
        if is_end {
            piece.truncate(begin);
        }
        if is_end || piece.len() >= PIECE {
            let full = std::mem::replace(&mut piece, Vec::with_capacity(2 * PIECE));
            if sender.blocking_send(Item::Rows(full)).is_err() {
                return Ok(lines);
            }
        }
        if is_end {
            drop(sender.blocking_send(Item::EndOfRows));
            return Ok(lines);
        }
    }
}

/// Owners, rights, roles and databases: whatever is about more than this one database's content.
fn is_about_roles(words: &[String]) -> bool {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    match word(0) {
        "GRANT" | "REVOKE" | "REASSIGN" => true,
        "ALTER" if word(1) == "DEFAULT" => true,
        "ALTER" => words.windows(2).any(|pair| pair == ["OWNER", "TO"]) || is_of_the_server(word(1)),
        "CREATE" | "DROP" | "COMMENT" => is_of_the_server(word(1)) || word(0) == "COMMENT" && is_of_the_server(word(2)),
        "SET" => word(1) == "SESSION" && word(2) == "AUTHORIZATION" || word(1) == "ROLE",
        _ => false,
    }
}

fn is_of_the_server(kind: &str) -> bool {
    ["DATABASE", "ROLE", "USER", "TABLESPACE"].contains(&kind)
}

/// What was left out, without names: `ALTER TABLE … OWNER TO`.
fn first_words(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().take(2).collect();
    match statement.contains(" OWNER TO ") {
        true => format!("{} … OWNER TO", words.join(" ")),
        false => format!("{} …", words.first().copied().unwrap_or_default()),
    }
}

fn refused(shown: &str, line: usize, text: &str, why: &str) -> Failure {
    let text: String = text.trim_end().chars().take(SHOWN).collect();
    Failure::new(Exit::Refused, "the dump cannot be restored, and nothing was changed")
        .body(format!("  {shown}:{line}\n    {text}\n  {why}"))
}

/// Rows that a dump counts nowhere, counted by a look at the restored database.
pub fn summary(split: &archive::split::Split) -> (usize, u64) {
    let rows = split.data.iter().filter(|data| split.head.entry(data.dump_id).is_some_and(|entry| entry.is_rows()));
    rows.fold((0, 0), |(tables, rows), data| (tables + 1, rows + data.content.rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Result<Vec<String>> {
        let (sender, mut receiver) = mpsc::channel(100);
        items_of(text.as_bytes(), "dump.sql", &sender)?;
        drop(sender);
        let mut all = Vec::new();
        while let Some(item) = receiver.blocking_recv() {
            all.push(match item {
                Item::Statements(text, line) => format!("{line}: {}", text.trim_end()),
                Item::Setting(text, line) => format!("{line}? {}", text.trim_end()),
                Item::Copy(text, line) => format!("{line}> {text}"),
                Item::Rows(rows) => String::from_utf8_lossy(&rows).into_owned(),
                Item::EndOfRows => "end".to_owned(),
                Item::LeftOut(what) => format!("- {what}"),
            });
        }
        Ok(all)
    }

    #[test]
    fn a_plain_dump_is_read_as_psql_would_without_what_is_about_roles() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET lock_timeout = 0;\nCREATE TABLE t (\n    a integer\n);\n\n\
            ALTER TABLE public.t OWNER TO neon;\nCREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n  PERFORM 1;\nEND;\n$$;\n\
            COPY public.t (a) FROM stdin;\n1\n\\N\n\\.\n\nGRANT SELECT ON t TO reader;\n";
        let read = items(dump).unwrap();
        assert_eq!(
            read,
            [
                "- \\restrict …",
                "7? SET lock_timeout = 0;",
                "- ALTER TABLE … OWNER TO",
                "8: CREATE TABLE t (\n    a integer\n);\n\n\nCREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n  PERFORM 1;\nEND;\n$$;",
                "18> COPY public.t (a) FROM stdin",
                "1\n\\N\n",
                "end",
                "- GRANT …",
            ]
        );
    }

    #[test]
    fn commands_of_psql_and_cut_off_dumps_are_refused() {
        for (dump, line) in [
            ("SELECT 1;\n\\! rm -rf x\n", 2),
            ("SELECT 1; \\! rm -rf x;\n", 1),
            ("\\copy t FROM '/etc/passwd'\n", 1),
            ("CREATE TABLE t (\n  a int\n", 1),
        ] {
            let error = items(dump).unwrap_err();
            let failure = error.downcast_ref::<Failure>().unwrap();
            assert!(failure.body.contains(&format!("dump.sql:{line}")), "{dump:?}: {}", failure.body);
        }
    }

    #[test]
    fn what_makes_the_database_is_read_to_its_end_and_nothing_of_it_is_another_statement() {
        let begin = "CREATE DATABASE x WITH ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'und' \
            ICU_RULES = '&a < ''b'';  \r\nALTER x OWNER TO y;\n";
        let end = "';\n\\connect x\nALTER TABLE t OWNER TO z;\nCREATE DATABASE y;\n";
        let named = |middle: &str| named_in_sql(format!("{begin}{middle}{end}").as_bytes()).unwrap();
        let short = named("");
        let statement = format!("{begin}';");
        assert_eq!(short.origin, Origin::new("", Some(&statement)));
        assert_ne!(short.origin, Origin::new("", Some("CREATE DATABASE")), "it is understood");
        assert_eq!(short.owners.into_iter().collect::<Vec<_>>(), ["z"]);

        let long = named(&"&a < b\n".repeat(STATEMENT_LIMIT / 7));
        assert_eq!(long.origin, Origin::new("", Some("CREATE DATABASE")), "nobody has such rules");
        let other = named_in_sql(&b"CREATE TABLE t (a int\n);\nCREATE DATABASE x;\n"[..]).unwrap();
        assert_eq!(other.origin, Origin::default());
    }
}
