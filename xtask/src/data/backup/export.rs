//! A backup as other tools know it: pg_dump's custom format, put together again from the parts.

use std::io::{Read, Write};

use anyhow::{Result, bail};
use archive::custom::{END_OF_ROWS, Entry, Head};
use archive::part::Seal;

use super::manifest::{Database, Manifest, Subject};
use super::store::Kept;
use super::verify;
use crate::ui::{Exit, Failure};

const PIECE: usize = 256 << 10;

/// Writes the whole backup.
pub fn write(kept: &Kept, manifest: &Manifest, seal: Option<&dyn Seal>, out: &mut impl Write) -> Result<()> {
    match &manifest.subject {
        Subject::Database(database) => {
            let head = verify::head(kept, database, seal)?;
            out.write_all(head.bytes())?;
            blocks(kept, database, &head, seal, &|_| true, out)
        }
        Subject::Redis(redis) => verify::decode_to(kept, &redis.part, seal, out),
        Subject::PubSub(_) => {
            bail!(Failure::new(Exit::Usage, "topics have no file that other tools know").hint("`--json` shows them"))
        }
    }
}

/// Writes the data of those entries, as they stand behind an archive's head.
pub fn blocks(
    kept: &Kept,
    database: &Database,
    head: &Head,
    seal: Option<&dyn Seal>,
    wanted: &dyn Fn(&Entry) -> bool,
    out: &mut impl Write,
) -> Result<()> {
    let parts = database.tables.iter().map(|table| (table.dump_id, &table.part));
    let parts = parts.chain(database.large_objects.iter().map(|objects| (objects.dump_id, &objects.part)));
    for (dump_id, file) in parts {
        let Some(entry) = head.entry(dump_id).filter(|entry| wanted(entry)) else { continue };
        head.begin_block(out, entry)?;
        let mut reader = kept.read(file, seal)?;
        if !entry.is_rows() {
            // They are kept in the archive's own form.
            std::io::copy(&mut reader, out)?;
            continue;
        }
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece)? {
                0 => break,
                length => head.put_piece(out, &piece[..length])?,
            }
        }
        head.put_piece(out, END_OF_ROWS)?;
        head.put_piece(out, b"")?;
    }
    Ok(())
}
