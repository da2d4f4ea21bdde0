//! pg_dump's custom format (`--format=custom`), which also begins every `toc.dat` of the directory format: a header, a
//! table of contents, and one block of data for each entry that has some.
//!
//! From PostgreSQL's `src/bin/pg_dump/pg_backup_archiver.c` (`WriteHead`, `WriteToc`) and `pg_backup_custom.c`; the
//! versions of the format that servers 14 to 18 write, 1.14 to 1.16. Numbers are a sign byte and little-endian bytes;
//! texts are a length and bytes, and a length of -1 is no text.

use std::io::{self, Read, Write};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

pub const MAGIC: &[u8] = b"PGDMP";
/// Of an entry with rows.
const TABLE_DATA: &str = "TABLE DATA";
/// The archive's own terminator of rows, which is no row.
pub const END_OF_ROWS: &[u8] = b"\\.\n\n\n";

const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;
const FORMAT_CUSTOM: u8 = 1;
/// Of tar, which the directory format writes as well.
const FORMAT_DIRECTORY: u8 = 3;
const NO_COMPRESSION: u8 = 0;
/// The minor version from which on an entry says what kind of relation it is.
const RELATION_KIND: u8 = 16;
/// Definitions, rows, and what comes behind the rows: `SECTION_DATA` and its neighbours.
const SECTION_DATA: i64 = 3;
/// `K_OFFSET_POS_NOT_SET`: an archive that was written into a pipe does not say where its blocks are.
const OFFSET_NOT_SET: u8 = 1;
/// Larger texts, counts and pieces than any dump has: a broken length must not ask for memory.
const LIMIT: usize = 1 << 30;
/// What is read at once of a piece, which is a whole row: one may have a gigabyte.
const READ_AT_ONCE: usize = 256 << 10;

/// One line of the table of contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub dump_id: i64,
    /// `TABLE`, `TABLE DATA`, `SEQUENCE SET`, …
    pub kind: String,
    /// The object's name, sometimes with more around it.
    pub tag: String,
    /// Empty where there is none.
    pub schema: String,
    pub owner: String,
    /// The statement that makes it; empty where data are all it is.
    pub definition: String,
    /// `COPY schema.table (columns) FROM stdin;` of an entry with rows.
    pub copy: String,
    pub has_data: bool,
    section: i64,
    /// Its bytes in the archive.
    raw: Range<usize>,
}

impl Entry {
    pub fn is_rows(&self) -> bool {
        self.kind == TABLE_DATA
    }

    /// The table that a partition's rows are copied into, as SQL names it, where they may come to lie in another partition: hashes
    /// of some types are other ones in every database.
    pub fn partition_root(&self) -> Option<&str> {
        self.definition.trim().strip_prefix("-- load via partition root ")
    }

    pub fn is_large_objects(&self) -> bool {
        self.has_data && !self.is_rows()
    }
}

/// Header and table of contents, with the bytes they were read from.
#[derive(Debug, Clone, Default)]
pub struct Head {
    bytes: Vec<u8>,
    /// Where the number of entries stands, and the first entry.
    count_at: Range<usize>,
    int_size: usize,
    offset_size: usize,
    /// Of the archive's format, 1.`minor`.
    pub minor: u8,
    pub is_directory: bool,
    /// Whether data blocks are plain.
    pub is_compressed: bool,
    pub database: String,
    pub server_version: String,
    pub dump_version: String,
    pub entries: Vec<Entry>,
}

impl Head {
    pub fn parse(bytes: &[u8]) -> Result<Head> {
        Head::read(&mut &bytes[..])
    }

    /// Reads just the head, byte for byte, and leaves `input` at the first block.
    pub fn read(input: &mut impl Read) -> Result<Head> {
        let mut reader = Recorder { input, bytes: Vec::with_capacity(64 << 10), int_size: 4 };
        let magic = reader.take(MAGIC.len())?;
        ensure!(magic == MAGIC, "it does not begin as a dump of pg_dump's custom format does");
        let [major, minor, _revision] = reader.array()?;
        ensure!(
            major == 1 && (14..=16).contains(&minor),
            "it is of version {major}.{minor} of the archive format; 1.14 to 1.16 are known (PostgreSQL 14 to 18)"
        );
        let [int_size, offset_size, format] = reader.array()?;
        ensure!(int_size == 4 && (1..=8).contains(&offset_size), "its numbers have {int_size} bytes");
        ensure!(
            [FORMAT_CUSTOM, FORMAT_DIRECTORY].contains(&format),
            "it is of another format than custom and directory: {format}"
        );
        let is_compressed = match minor {
            15.. => reader.byte()? != NO_COMPRESSION,
            _ => reader.number()? != 0,
        };
        for _part_of_the_time in 0..7 {
            reader.number()?;
        }
        let mut head = Head {
            int_size: int_size.into(),
            offset_size: offset_size.into(),
            minor,
            is_directory: format == FORMAT_DIRECTORY,
            is_compressed,
            database: reader.text()?,
            server_version: reader.text()?,
            dump_version: reader.text()?,
            ..Head::default()
        };
        let count_at = reader.bytes.len();
        let count = reader.number()?;
        head.count_at = count_at..reader.bytes.len();
        ensure!((0..LIMIT as i64).contains(&count), "it has {count} entries");
        for _ in 0..count {
            let entry = reader.entry(minor, head.offset_size, head.is_directory);
            head.entries.push(entry.context("its table of contents is broken")?);
        }
        head.bytes = reader.bytes;
        Ok(head)
    }

    /// The head as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An archive with some of the entries only.
    pub fn with(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<u8> {
        let wanted: Vec<&Entry> = self.entries.iter().filter(|entry| wanted(entry)).collect();
        let mut bytes = self.bytes[..self.count_at.start].to_vec();
        put_number(&mut bytes, wanted.len() as i64, self.int_size);
        for entry in wanted {
            bytes.extend_from_slice(&self.bytes[entry.raw.clone()]);
        }
        bytes
    }

    /// The same with entries for the rows of tables that it has, but was made without the rows of. Each comes with the
    /// statement that its rows are for.
    pub fn with_rows(&self, tables: &[(&Entry, &str)]) -> Result<Head> {
        ensure!(!self.is_directory, "rows are added to an archive of the custom format only");
        let highest = self.entries.iter().map(|entry| entry.dump_id).max().unwrap_or_default();
        let behind = self.entries.iter().find(|entry| entry.section >= SECTION_DATA);
        let at = behind.map_or(self.bytes.len(), |entry| entry.raw.start);
        let mut bytes = self.bytes[..self.count_at.start].to_vec();
        put_number(&mut bytes, (self.entries.len() + tables.len()) as i64, self.int_size);
        bytes.extend_from_slice(&self.bytes[self.count_at.end..at]);
        for (dump_id, (table, copy)) in (highest + 1..).zip(tables) {
            self.put_rows(&mut bytes, dump_id, table, copy);
        }
        bytes.extend_from_slice(&self.bytes[at..]);
        Head::parse(&bytes)
    }

    /// Puts what pg_dump writes for the rows of a table.
    fn put_rows(&self, bytes: &mut Vec<u8>, dump_id: i64, table: &Entry, copy: &str) {
        let number = |bytes: &mut Vec<u8>, number| put_number(bytes, number, self.int_size);
        let text = |bytes: &mut Vec<u8>, text: &str| {
            number(bytes, text.len() as i64);
            bytes.extend_from_slice(text.as_bytes());
        };
        let none = |bytes: &mut Vec<u8>| number(bytes, -1);
        number(bytes, dump_id);
        number(bytes, 1);
        // Of the catalog and of the object in it: no restore asks.
        text(bytes, "0");
        text(bytes, "0");
        text(bytes, &table.tag);
        text(bytes, TABLE_DATA);
        number(bytes, SECTION_DATA);
        // How it is made and dropped.
        text(bytes, "");
        text(bytes, "");
        text(bytes, copy);
        text(bytes, &table.schema);
        // The tablespace and the access method.
        none(bytes);
        none(bytes);
        if self.minor >= RELATION_KIND {
            number(bytes, 0);
        }
        text(bytes, &table.owner);
        text(bytes, "false");
        text(bytes, &table.dump_id.to_string());
        none(bytes);
        bytes.push(OFFSET_NOT_SET);
        bytes.resize(bytes.len() + self.offset_size, 0);
    }

    pub fn entry(&self, dump_id: i64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.dump_id == dump_id)
    }

    /// Writes the head of a block for an archive made of this head.
    pub fn begin_block(&self, output: &mut impl Write, entry: &Entry) -> io::Result<()> {
        let mut bytes = vec![if entry.is_rows() { BLOCK_DATA } else { BLOCK_LARGE_OBJECTS }];
        put_number(&mut bytes, entry.dump_id, self.int_size);
        output.write_all(&bytes)
    }

    /// Writes a number as the archive has it: that of a large object, and 0 behind the last one.
    pub fn put_number(&self, output: &mut impl Write, number: i64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(5);
        put_number(&mut bytes, number, self.int_size);
        output.write_all(&bytes)
    }

    /// Writes rows as one piece of a block; an empty one ends the block.
    pub fn put_piece(&self, output: &mut impl Write, piece: &[u8]) -> io::Result<()> {
        self.put_number(output, piece.len() as i64)?;
        output.write_all(piece)
    }
}

fn put_number(bytes: &mut Vec<u8>, number: i64, size: usize) {
    bytes.push(u8::from(number < 0));
    bytes.extend_from_slice(&number.unsigned_abs().to_le_bytes()[..size]);
}

fn number_of(bytes: &[u8]) -> i64 {
    let magnitude = bytes[1..].iter().rev().fold(0, |number, byte| (number << 8) | i64::from(*byte));
    if bytes[0] == 0 { magnitude } else { -magnitude }
}

/// Reads what a head is made of and keeps the bytes.
struct Recorder<'a, R> {
    input: &'a mut R,
    bytes: Vec<u8>,
    int_size: usize,
}

impl<R: Read> Recorder<'_, R> {
    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let begin = self.bytes.len();
        // A broken length must meet the end of the input before it has all the memory.
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut self.bytes)?;
        ensure!(read == length, "it ends within its table of contents");
        Ok(&self.bytes[begin..])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn number(&mut self) -> Result<i64> {
        let size = self.int_size + 1;
        Ok(number_of(self.take(size)?))
    }

    /// No text and an empty one are the same to everybody here.
    fn text(&mut self) -> Result<String> {
        Ok(self.optional_text()?.unwrap_or_default())
    }

    fn optional_text(&mut self) -> Result<Option<String>> {
        let length = self.number()?;
        if length < 0 {
            return Ok(None);
        }
        ensure!(length < LIMIT as i64, "a text of {length} bytes");
        let bytes = self.take(usize::try_from(length)?)?;
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn entry(&mut self, minor: u8, offset_size: usize, is_directory: bool) -> Result<Entry> {
        let begin = self.bytes.len();
        let dump_id = self.number()?;
        let has_data = self.number()? != 0;
        let (_catalog, _object) = (self.text()?, self.text()?);
        let (tag, kind) = (self.text()?, self.text()?);
        let section = self.number()?;
        let definition = self.text()?;
        let _drop = self.text()?;
        let (copy, schema) = (self.text()?, self.text()?);
        let (_tablespace, _access_method) = (self.text()?, self.text()?);
        if minor >= RELATION_KIND {
            let _relation_kind = self.number()?;
        }
        let owner = self.text()?;
        let _with_oids = self.text()?;
        while self.optional_text()?.is_some() {}
        match is_directory {
            true => drop(self.text()?),
            false => drop(self.take(1 + offset_size)?),
        }
        let raw = begin..self.bytes.len();
        Ok(Entry { dump_id, kind, tag, schema, owner, definition, copy, has_data, section, raw })
    }
}

/// The blocks of an archive, behind its head.
#[derive(Debug)]
pub struct Blocks<R> {
    input: R,
    int_size: usize,
    within: Within,
    /// Bytes of the begun piece that are not read yet.
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Rows,
    LargeObjects,
    LargeObject,
}

/// What comes next in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// So many bytes were put at the end of the buffer.
    Piece(usize),
    /// Large objects only: this one's content follows.
    LargeObject(i64),
    End,
}

impl<R: Read> Blocks<R> {
    pub fn new(input: R, head: &Head) -> Blocks<R> {
        Blocks { input, int_size: head.int_size, within: Within::Nothing, left: 0 }
    }

    /// The number of the entry that the next block belongs to; `None` at the archive's end.
    pub fn next_block(&mut self) -> Result<Option<i64>> {
        ensure!(self.within == Within::Nothing, "the block before was not read to its end");
        let mut kind = [0];
        if self.input.read(&mut kind)? == 0 {
            return Ok(None);
        }
        self.within = match kind[0] {
            BLOCK_DATA => Within::Rows,
            BLOCK_LARGE_OBJECTS => Within::LargeObjects,
            other => bail!("a block of kind {other}"),
        };
        self.number().map(Some)
    }

    /// Reads the next piece of the block to the end of the buffer.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Next> {
        if self.within == Within::LargeObjects {
            let object = self.number()?;
            self.within = if object == 0 { Within::Nothing } else { Within::LargeObject };
            return Ok(if object == 0 { Next::End } else { Next::LargeObject(object) });
        }
        if self.left == 0 {
            let length = self.number()?;
            self.left = usize::try_from(length).with_context(|| format!("a piece of {length} bytes"))?;
        }
        if self.left == 0 {
            match self.within {
                Within::LargeObject => {
                    self.within = Within::LargeObjects;
                    return self.next(buffer);
                }
                _ => self.within = Within::Nothing,
            }
            return Ok(Next::End);
        }
        let (begin, length) = (buffer.len(), self.left.min(READ_AT_ONCE));
        buffer.resize(begin + length, 0);
        self.input.read_exact(&mut buffer[begin..]).context("it ends within its data")?;
        self.left -= length;
        Ok(Next::Piece(length))
    }

    fn number(&mut self) -> Result<i64> {
        let mut bytes = [0; 9];
        let bytes = &mut bytes[..=self.int_size];
        self.input.read_exact(bytes).context("it ends within its data")?;
        Ok(number_of(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for number in [0, 1, 255, 256, 70_000, -1, i64::from(i32::MAX)] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number, 4);
            assert_eq!(number_of(&bytes), number);
        }
    }

    #[test]
    fn what_is_no_archive_is_an_error_and_never_a_panic() {
        for bytes in [&b""[..], b"PG", b"PGDMP", b"PGDMP\x01\x20\x00", b"-- PostgreSQL database dump", &[0xff; 64]] {
            assert!(Head::parse(bytes).is_err());
        }
        // A length of 1 GB, and no byte behind it.
        let huge = b"PGDMP\x01\x10\x00\x04\x08\x01\x00".iter().chain(&[0; 35]).chain(b"\x00\xff\xff\xff\x3f");
        let huge: Vec<u8> = huge.copied().collect();
        assert!(Head::parse(&huge).is_err());
    }
}
