//! Dumps that were made elsewhere: plain SQL, pg_dump's custom, tar and directory formats, each of them compressed or
//! not.
//!
//! The first error ends a restore. Owners and rights are those of roles that this server need not have, so everything
//! becomes the stack's user's, and what that leaves out is told. Plain SQL is read here and not by psql: a dump is
//! somebody else's file, and psql would run the programs that it names.

mod items;
mod named;
mod plain;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use archive::custom::MAGIC;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::database::Place;
use super::load;
use crate::data::locale::OtherLocale;
use crate::data::side::Side;
use crate::tools;
use crate::ui::{Exit, Failure};
pub use named::{Named, OtherEncoding};

/// What is sent to the server at once, in bytes.
const PIECE: usize = 256 << 10;
/// Where tar says what it is.
const TAR_MARK: (usize, &[u8]) = (257, b"ustar");

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

    /// Its own size in bytes: a database of it is larger, for most dumps are compressed.
    pub fn bytes(&self) -> Result<u64> {
        let files = match self.form {
            Form::Directory => std::fs::read_dir(&self.path)?.map(|file| Ok(file?.metadata()?.len())).sum(),
            Form::Sql | Form::Archive => std::fs::metadata(&self.path).map(|file| file.len()),
        };
        files.with_context(|| format!("cannot read `{}`", self.path.display()))
    }

    /// What it names that this server may not have.
    pub async fn look(&self) -> Result<Named> {
        let (path, form) = (self.path.clone(), self.form);
        let input = self.read_head()?;
        tokio::task::spawn_blocking(move || match form {
            Form::Sql => named::in_sql(BufReader::with_capacity(PIECE, input)),
            Form::Archive | Form::Directory => {
                named::in_archive(input).with_context(|| format!("`{}` is broken", path.display()))
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
            Form::Sql => plain::send(&mut connection, self, &mut wanting, written).await?,
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
        let length = input.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        output.write_all(&piece[..length])?;
        written.fetch_add(length as u64, Ordering::Relaxed);
    }
}

async fn texts(connection: &mut PgConnection, sql: &str) -> Result<BTreeSet<String>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Rows that a dump counts nowhere, counted by a look at the restored database.
pub fn summary(split: &archive::split::Split) -> (usize, u64) {
    let rows = split.data.iter().filter(|data| split.head.entry(data.dump_id).is_some_and(|entry| entry.is_rows()));
    rows.fold((0, 0), |(tables, rows), data| (tables + 1, rows + data.content.rows))
}
