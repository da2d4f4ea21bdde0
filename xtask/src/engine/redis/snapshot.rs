//! Redis' data at this very moment, by the way a replica gets them: `SYNC` forks the server, and the child's RDB file comes
//! over the connection. It needs no look into the server's folder, so it is the same on both engines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a fork and an RDB's first byte may take.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(50);
const INFO: &[u8] = b"*1\r\n$4\r\nINFO\r\n";
const SYNC: &[u8] = b"*1\r\n$4\r\nSYNC\r\n";

/// An RDB file that is about to be read.
#[derive(Debug)]
pub struct Snapshot {
    pub version: String,
    pub keys: u64,
    /// Those of the keys that end by themselves.
    pub expiring: u64,
    pub bytes: u64,
    rdb: std::io::Take<BufReader<TcpStream>>,
}

impl Snapshot {
    /// The whole file; a server that goes away in the middle is an error.
    pub fn copy(mut self, to: &mut impl Write) -> Result<()> {
        let copied = std::io::copy(&mut self.rdb, to).context("cannot copy Redis' data")?;
        ensure!(copied == self.bytes, "redis sent {copied} of {} bytes of its data", self.bytes);
        Ok(())
    }
}

/// Asks for it. It blocks, as long as the server forks.
pub fn take(port: u16) -> Result<Snapshot> {
    let begun = Instant::now();
    loop {
        let mut stream = BufReader::new(connect(port)?);
        // A child that saves already would be waited for, and the numbers would be of another moment than the data.
        stream.get_mut().write_all(INFO)?;
        let info = bulk(&mut stream)?;
        if field(&info, "rdb_bgsave_in_progress") == Some("1") {
            ensure!(begun.elapsed() < PATIENCE, "redis has been saving for {} s", PATIENCE.as_secs());
            std::thread::sleep(INTERVAL);
            continue;
        }
        stream.get_mut().write_all(SYNC)?;
        let bytes = length(&mut stream)?.context("redis sent no data")?;
        // Between the question and the fork somebody may have written; the file itself says it of its first database.
        let begin = stream.fill_buf()?;
        let (keys, expiring) = match (databases(&info), first_database(begin)) {
            (0 | 1, Some(of_the_file)) => of_the_file,
            _ => keyspace(&info),
        };
        let version = field(&info, "redis_version").unwrap_or_default().to_owned();
        return Ok(Snapshot { version, keys, expiring, bytes, rdb: stream.take(bytes) });
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).context("cannot connect to redis")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The number in `$N`; empty lines before it say that the server is still there.
fn length(stream: &mut impl BufRead) -> Result<Option<u64>> {
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).context("redis says nothing")? > 0, "redis closed the connection");
        match line.trim_end() {
            "" => {}
            line => match line.strip_prefix('$') {
                Some(number) => return Ok(number.parse().ok()),
                None => bail!("redis refused: {}", line.trim_start_matches('-')),
            },
        }
    }
}

fn bulk(stream: &mut impl BufRead) -> Result<String> {
    let bytes = length(stream)?.context("redis answered in another way than it should")?;
    let mut text = vec![0; usize::try_from(bytes)? + 2];
    stream.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn databases(info: &str) -> usize {
    database_lines(info).count()
}

fn database_lines(info: &str) -> impl Iterator<Item = &str> {
    info.lines().filter(|line| line.starts_with("db") && line.contains(":keys="))
}

/// Keys and expiring keys of the first database in an RDB file; `None` where its begin does not tell.
///
/// Behind `REDIS` and a version there are pairs of texts about the file (0xFA), then the number of the database (0xFE) and
/// its sizes (0xFB); 0xFF ends an empty file. From Redis' `src/rdb.h`.
fn first_database(file: &[u8]) -> Option<(u64, u64)> {
    let mut rest = file.strip_prefix(b"REDIS")?.get(4..)?;
    loop {
        let (kind, behind) = rest.split_first()?;
        rest = behind;
        match kind {
            0xfa => rest = skip_text(skip_text(rest)?)?,
            0xfe => rest = number(rest)?.1,
            0xfb => {
                let (keys, behind) = number(rest)?;
                return Some((keys, number(behind)?.0));
            }
            0xff => return Some((0, 0)),
            _ => return None,
        }
    }
}

/// A length as RDB writes it; those that mean something else are no number.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let be = |count: usize| {
        let (digits, behind) = rest.split_at_checked(count)?;
        Some((digits.iter().fold(0, |number, digit| (number << 8) | u64::from(*digit)), behind))
    };
    match first {
        0..0x40 => Some((u64::from(*first), rest)),
        0x40..0x80 => be(1).map(|(low, behind)| (u64::from(first & 0x3f) << 8 | low, behind)),
        0x80 => be(4),
        0x81 => be(8),
        _ => None,
    }
}

fn skip_text(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.first()? {
        // Numbers of one, two and four bytes that stand for texts.
        0xc0 => bytes.get(2..),
        0xc1 => bytes.get(3..),
        0xc2 => bytes.get(5..),
        _ => number(bytes).and_then(|(length, behind)| behind.get(usize::try_from(length).ok()?..)),
    }
}

/// `db0:keys=3201,expires=12,avg_ttl=…`, of all databases.
pub fn keyspace(info: &str) -> (u64, u64) {
    let number = |line: &str, name: &str| {
        let fields = line.split_once(':').map_or("", |(_, fields)| fields);
        let found = fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    database_lines(info)
        .fold((0, 0), |(keys, expiring), line| (keys + number(line, "keys"), expiring + number(line, "expires")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_databases_count() {
        let info = "# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb5:keys=10,expires=0,avg_ttl=0\r\n";
        assert_eq!(keyspace(info), (13, 1));
        assert_eq!(keyspace("# Keyspace\r\n"), (0, 0));
    }

    #[test]
    fn the_file_says_what_its_first_database_has() {
        let begin = b"REDIS0012\xfa\x09redis-ver\x058.2.3\xfa\x0aredis-bits\xc0\x40\xfe\x00\xfb\x43\xe8\x02rest";
        assert_eq!(first_database(begin), Some((1000, 2)));
        assert_eq!(first_database(b"REDIS0012\xff"), Some((0, 0)));
        for cut in 0..begin.len() - 4 {
            assert_eq!(first_database(&begin[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_length_comes_behind_signs_of_life_and_a_refusal_is_an_error() {
        assert_eq!(length(&mut &b"\n\n$176\r\n"[..]).unwrap(), Some(176));
        assert!(length(&mut &b"-LOADING Redis is loading\r\n"[..]).is_err());
        assert!(length(&mut &b""[..]).is_err());
    }
}
