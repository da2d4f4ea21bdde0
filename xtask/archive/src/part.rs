//! One file of a backup: compressed, hashed and, if asked for, encrypted while it is written; proven while it is read.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Of zstd: what a helper that runs beside the servers can afford. Level 3 saves a twentieth of the size for half as much
/// time again (measured on text, JSONB and numbers: `cargo bench --bench backup`).
const LEVEL: i32 = 1;
const READ_AT_ONCE: usize = 256 << 10;

/// What was written, as the backup's manifest keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Of the file.
    pub bytes: u64,
    /// Before it was compressed.
    pub raw_bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
}

/// Encryption by somebody else: a program with a pipe in front of it.
pub trait Seal: fmt::Debug + Sync {
    /// What is written to the pipe goes sealed into the file.
    fn seal(&self, file: File) -> Result<Box<dyn Pipe>>;
    /// The file's content, unsealed.
    fn open(&self, file: File) -> Result<Box<dyn Read>>;
}

pub trait Pipe: Write {
    /// Waits until all is in the file.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Hashes and counts what passes.
struct Hashing<T> {
    inner: T,
    hash: blake3::Hasher,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hash: blake3::Hasher::new(), bytes: 0 }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn hex(&self) -> String {
        self.hash.finalize().to_hex().to_string()
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.note(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.note(&buffer[..read]);
        Ok(read)
    }
}

enum Output {
    Plain(Box<Hashing<File>>),
    Sealed(Box<dyn Pipe>, File),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Plain(file) => file.write(bytes),
            Output::Sealed(pipe, _) => pipe.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Plain(file) => file.flush(),
            Output::Sealed(pipe, _) => pipe.flush(),
        }
    }
}

/// A part that is being written. Nobody but its owner may read the file.
pub struct Writer {
    encoder: zstd::Encoder<'static, Output>,
    raw_bytes: u64,
}

impl Writer {
    pub fn create(path: &Path, seal: Option<&dyn Seal>) -> Result<Writer> {
        let made = || -> Result<Writer> {
            let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            let output = match seal {
                Some(seal) => Output::Sealed(seal.seal(file.try_clone()?)?, file),
                None => Output::Plain(Box::new(Hashing::new(file))),
            };
            let mut encoder = zstd::Encoder::new(output, LEVEL)?;
            encoder.include_checksum(true)?;
            Ok(Writer { encoder, raw_bytes: 0 })
        };
        made().with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// The file with all of the bytes. Making it last is left to who makes the folder last.
    pub fn finish(self) -> Result<Written> {
        let raw_bytes = self.raw_bytes;
        Ok(match self.encoder.finish()? {
            Output::Plain(file) => Written { bytes: file.bytes, raw_bytes, blake3: file.hex() },
            Output::Sealed(pipe, mut file) => {
                pipe.finish()?;
                file.rewind()?;
                let (blake3, bytes) = digest(file)?;
                Written { bytes, raw_bytes, blake3 }
            }
        })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.raw_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// BLAKE3 in hexadecimal, and the number of bytes.
pub fn digest(input: impl Read) -> io::Result<(String, u64)> {
    let mut hashing = Hashing::new(input);
    let mut buffer = vec![0; READ_AT_ONCE];
    while hashing.read(&mut buffer)? > 0 {}
    Ok((hashing.hex(), hashing.bytes))
}

/// Says what a file is instead of what was written.
pub fn prove(path: &Path, written: &Written) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let length = file.metadata()?.len();
    ensure!(length == written.bytes, "`{}` has {length} bytes, and {} were written", path.display(), written.bytes);
    let (blake3, _) = digest(file).with_context(|| format!("cannot read `{}`", path.display()))?;
    ensure!(blake3 == written.blake3, "`{}` is not what was written: its BLAKE3 differs", path.display());
    Ok(())
}

/// The content of a part. That it is the one that was written is for [`prove`] to say, before.
pub fn read(path: &Path, seal: Option<&dyn Seal>) -> Result<Box<dyn Read>> {
    let opened = || -> Result<Box<dyn Read>> {
        let file = File::open(path)?;
        let inner: Box<dyn Read> = match seal {
            Some(seal) => seal.open(file)?,
            None => Box::new(file),
        };
        Ok(Box::new(zstd::Decoder::with_buffer(BufReader::with_capacity(READ_AT_ONCE, inner))?))
    };
    opened().with_context(|| format!("cannot read `{}`", path.display()))
}

/// Of a file that somebody else compressed.
pub fn decoder(file: File) -> Result<Box<dyn Read + Send>> {
    Ok(Box::new(zstd::Decoder::with_buffer(BufReader::with_capacity(READ_AT_ONCE, file))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, content: &[u8]) -> (std::path::PathBuf, Written) {
        let path = folder.join("part");
        let mut writer = Writer::create(&path, None).unwrap();
        writer.write_all(content).unwrap();
        (path.clone(), writer.finish().unwrap())
    }

    fn put(path: &Path, content: &[u8]) {
        File::create(path).unwrap().write_all(content).unwrap();
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..1_000_000u32).flat_map(|number| (number % 977).to_le_bytes()).collect();
        let (path, written) = written(folder.path(), &content);
        assert_eq!(written.raw_bytes, content.len() as u64);
        prove(&path, &written).unwrap();
        let mut back = Vec::new();
        read(&path, None).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == content);
        assert!(Writer::create(&path, None).is_err(), "a part is never written over");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (path, written) = written(folder.path(), b"1\tAnna\n2\tBen\n".repeat(50).as_slice());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            put(&path, &broken);
            assert!(prove(&path, &written).is_err(), "byte {at}");
            put(&path, &whole[..at]);
            assert!(prove(&path, &written).is_err(), "cut at {at}");
        }
    }
}
