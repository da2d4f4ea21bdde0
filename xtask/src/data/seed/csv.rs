//! One CSV file into its table: COPY, in pieces, so that memory does not grow with the file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use sql::identifier;
use sqlx::postgres::{PgConnection, PgCopyIn};

use super::files::SeedFile;

/// What is sent at once. Larger pieces are slower: they leave the cache between this and the server.
const PIECE: usize = 64 * 1024;
/// After how many bytes it is told how far it is.
const TOLD: u64 = 2_000_000;
const HEADER_LIMIT: u64 = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The names of the columns in the first line, or what is there instead.
pub fn header(path: &Path) -> Result<Result<Vec<String>, String>> {
    let mut line = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    BufReader::new(file.take(HEADER_LIMIT)).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line)).into_owned();
    Ok(columns(line.trim_end_matches(['\n', '\r'])))
}

fn columns(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("an empty line".to_owned());
    }
    let mut names = vec![String::new()];
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => names.push(String::new()),
            _ => names.last_mut().into_iter().for_each(|name| name.push(character)),
        }
    }
    if is_quoted {
        return Err("a quote that does not end".to_owned());
    }
    match names.iter().position(String::is_empty) {
        Some(empty) => Err(format!("no name for column {}", empty + 1)),
        None => Ok(names),
    }
}

/// What the file is sent with.
pub fn statement(table: &str, columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|name| identifier(name)).collect();
    let columns = columns.join(", ");
    format!("COPY {table} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER true, NULL '\\N', ENCODING 'UTF8')")
}

/// Sends the file; tells after each step of some pieces how many bytes went. Gives the checksum of what it has read.
pub async fn copy(
    connection: &mut PgConnection,
    file: &SeedFile,
    statement: &str,
    sent: impl FnMut(u64),
) -> Result<String> {
    let mut copy = connection.copy_in_raw(statement).await?;
    match send(&mut copy, file, sent).await {
        Ok(checksum) => {
            copy.finish().await?;
            Ok(checksum)
        }
        Err(Unsent::Server(error)) => Err(error.into()),
        Err(Unsent::File(error)) => {
            copy.abort("the file could not be read").await?;
            Err(error).with_context(|| format!("cannot read `{}`", file.shown.display()))
        }
    }
}

enum Unsent {
    Server(sqlx::Error),
    File(std::io::Error),
}

async fn send(
    copy: &mut PgCopyIn<&mut PgConnection>,
    file: &SeedFile,
    mut sent: impl FnMut(u64),
) -> Result<String, Unsent> {
    let mut from = File::open(&file.path).map_err(Unsent::File)?;
    let mut piece = vec![0; PIECE];
    let mut hash = blake3::Hasher::new();
    let mut total = 0_u64;
    loop {
        // Read where it is sent: what another thread would read ahead, the system does.
        let read = from.read(&mut piece).map_err(Unsent::File)?;
        if read == 0 {
            return Ok(hash.finalize().to_hex().to_string());
        }
        let bytes = &piece[..read];
        hash.update(bytes);
        let begin = if total == 0 { bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes) } else { bytes };
        copy.send(begin).await.map_err(Unsent::Server)?;
        let before = total;
        total += read as u64;
        if total / TOLD > before / TOLD {
            sent(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_the_columns() {
        assert_eq!(columns("id,\"a,b\",c"), Ok(vec!["id".into(), "a,b".into(), "c".into()]));
        assert_eq!(columns("id,,c"), Err("no name for column 2".into()));
        assert!(columns("").is_err() && columns("\"id").is_err());
    }
}
