//! A dump taken apart while it runs: a part for every table, and what the table holds.
//!
//! One thread reads the pipe, another one hashes, compresses and writes; what is between them is bounded, so memory does
//! not grow with the database.

use std::io::{BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow, ensure};

use crate::content::{Content, Hasher};
use crate::custom::{Blocks, END_OF_ROWS, Entry, Head, Next};
use crate::part::{Seal, Shelf, Writer, Written};

/// What passes from the reading to the writing thread at once, in bytes.
const PIECE: usize = 512 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 4;
const PIPE: usize = 256 << 10;
const LONGEST_NAME: usize = 60;

/// What is done with an entry's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    Store,
    /// Counted and hashed only.
    Digest,
}

/// Where parts go.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub shelf: &'a dyn Shelf,
    /// What the names of parts begin with.
    pub prefix: &'a str,
    pub seal: Option<&'a dyn Seal>,
}

/// The data of one entry.
#[derive(Debug, Clone)]
pub struct Data {
    pub dump_id: i64,
    pub content: Content,
    /// The part's name, and what was written into it.
    pub stored: Option<(String, Written)>,
}

/// A dump that was read to its end.
#[derive(Debug)]
pub struct Split {
    pub head: Head,
    pub data: Vec<Data>,
}

impl Split {
    pub fn data_of(&self, dump_id: i64) -> Option<&Data> {
        self.data.iter().find(|data| data.dump_id == dump_id)
    }
}

/// The name of an entry's part: its number makes it unique, its tag says to people what it is.
pub fn part_name(entry: &Entry) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let tag: String = entry.tag.chars().take(LONGEST_NAME).map(plain).collect();
    format!("{}-{tag}.zst", entry.dump_id)
}

/// Reads the output of `pg_dump --format=custom --compress=none` to its end. Parts go to `place`; without one everything is
/// only counted and hashed. `read` is raised by every byte of data. The input has no type of its own, so that all of this is
/// compiled here, where it is optimised.
pub fn split(
    input: &mut dyn Read,
    place: Option<Place<'_>>,
    treat: &(dyn Fn(&Entry) -> Treatment + Sync),
    read: &AtomicU64,
) -> Result<Split> {
    let mut input = BufReader::with_capacity(PIPE, input);
    let head = Head::read(&mut input)?;
    ensure!(!head.is_compressed, "the dump is compressed");
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(&head, receiver, place, treat));
        let reading = pass_on(&mut input, &head, sender, read);
        let written = writing.join().map_err(|_| anyhow!("the writing thread ended in a panic"))?;
        // Where writing failed, reading did too, for nobody took what it read.
        let data = written?;
        reading?;
        Ok(data)
    })
    .map(|data| Split { head, data })
}

enum Message {
    Begin(i64),
    LargeObject(i64),
    Piece(Vec<u8>),
    End,
}

fn pass_on(input: &mut impl Read, head: &Head, sender: SyncSender<Message>, read: &AtomicU64) -> Result<()> {
    let send = |message| sender.send(message).context("what was read could not be written");
    let mut blocks = Blocks::new(input, head);
    while let Some(dump_id) = blocks.next_block()? {
        let entry = head.entry(dump_id).with_context(|| format!("data of an entry that is not listed: {dump_id}"))?;
        send(Message::Begin(dump_id))?;
        let mut piece = Vec::with_capacity(PIECE + PIPE);
        // The end of the rows is held back, for the last bytes of a table are the archive's and no row.
        let kept = if entry.is_rows() { END_OF_ROWS.len() } else { 0 };
        loop {
            match blocks.next(&mut piece)? {
                Next::Piece(length) => {
                    read.fetch_add(length as u64, Ordering::Relaxed);
                    if piece.len() >= PIECE {
                        let mut next = Vec::with_capacity(PIECE + PIPE);
                        next.extend_from_slice(&piece[piece.len() - kept..]);
                        piece.truncate(piece.len() - kept);
                        send(Message::Piece(std::mem::replace(&mut piece, next)))?;
                    }
                }
                Next::LargeObject(object) => {
                    send(Message::Piece(std::mem::take(&mut piece)))?;
                    send(Message::LargeObject(object))?;
                }
                Next::End => break,
            }
        }
        if entry.is_rows() {
            ensure!(piece.ends_with(END_OF_ROWS), "the rows of `{}` end without an end", entry.tag);
            piece.truncate(piece.len() - END_OF_ROWS.len());
        }
        send(Message::Piece(piece))?;
        send(Message::End)?;
    }
    Ok(())
}

/// Large objects keep the archive's own form in their part, so that a restore can put the bytes back as they are.
fn write(
    head: &Head,
    receiver: Receiver<Message>,
    place: Option<Place<'_>>,
    treat: &(dyn Fn(&Entry) -> Treatment + Sync),
) -> Result<Vec<Data>> {
    let mut data = Vec::new();
    let mut current: Option<Begun<'_>> = None;
    for message in receiver {
        match (message, &mut current) {
            (Message::Begin(dump_id), _) => {
                let entry = head.entry(dump_id).context("an entry that is not listed")?;
                let place = place.filter(|_| treat(entry) == Treatment::Store);
                current = Some(Begun::new(head, entry, place)?);
            }
            (Message::LargeObject(object), Some(begun)) => begun.next_object(object)?,
            (Message::Piece(piece), Some(begun)) => begun.take(&piece)?,
            (Message::End, _) => {
                if let Some(begun) = current.take() {
                    data.push(begun.finish()?);
                }
            }
            (_, None) => {}
        }
    }
    ensure!(current.is_none(), "the dump ended within a table");
    Ok(data)
}

struct Begun<'a> {
    head: &'a Head,
    entry: &'a Entry,
    hasher: Hasher,
    object: Option<blake3::Hasher>,
    part: Option<(String, Writer)>,
}

impl<'a> Begun<'a> {
    fn new(head: &'a Head, entry: &'a Entry, place: Option<Place<'_>>) -> Result<Begun<'a>> {
        let part = place.map(|place| -> Result<_> {
            let name = format!("{}{}", place.prefix, part_name(entry));
            Ok((name.clone(), Writer::new(place.shelf.create(&name)?, place.seal)?))
        });
        Ok(Begun { head, entry, hasher: Hasher::default(), object: None, part: part.transpose()? })
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        match &mut self.object {
            Some(object) => drop(object.update(piece)),
            None => self.hasher.update(piece),
        }
        if let (Some((_, part)), false) = (&mut self.part, piece.is_empty()) {
            match self.entry.is_rows() {
                true => part.write_all(piece),
                false => self.head.put_piece(part, piece),
            }
            .with_context(|| format!("cannot write the data of `{}`", self.entry.tag))?;
        }
        Ok(())
    }

    fn next_object(&mut self, object: i64) -> Result<()> {
        self.end_object()?;
        self.object = Some(blake3::Hasher::new());
        if let Some(hasher) = &mut self.object {
            hasher.update(&object.to_le_bytes());
        }
        if let Some((_, part)) = &mut self.part {
            self.head.put_number(part, object)?;
        }
        Ok(())
    }

    fn end_object(&mut self) -> Result<()> {
        let Some(object) = self.object.take() else { return Ok(()) };
        self.hasher.add(&object.finalize());
        if let Some((_, part)) = &mut self.part {
            self.head.put_piece(part, b"")?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Data> {
        self.end_object()?;
        if let (Some((_, part)), false) = (&mut self.part, self.entry.is_rows()) {
            self.head.put_number(part, 0)?;
        }
        let stored = match self.part {
            Some((name, part)) => {
                let written =
                    part.finish().with_context(|| format!("cannot write the data of `{}`", self.entry.tag))?;
                Some((name, written))
            }
            None => None,
        };
        Ok(Data { dump_id: self.entry.dump_id, content: self.hasher.finish(), stored })
    }
}
