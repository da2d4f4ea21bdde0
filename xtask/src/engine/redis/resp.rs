//! Redis' protocol, version 2: a request is a list of words, an answer one of five kinds. All that is asked of Redis here
//! are single commands, for which the usual crate would be a ninth of the helper's first build.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Lists in lists that a server may answer with; none of Redis' own commands comes near.
const DEEPEST: u32 = 32;
/// What the first line of an answer may take, in bytes: it is a length, a number or a sentence.
const LONGEST_LINE: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Nil,
    Integer(i64),
    /// `OK`, `PONG`.
    Status(String),
    /// A refusal: `ERR unknown command`.
    Error(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
}

#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn open(port: u16) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// One command, and its answer.
    pub async fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Value> {
        self.stream.get_mut().write_all(&request(words)).await?;
        self.answer(DEEPEST).await
    }

    async fn answer(&mut self, depth: u32) -> Result<Value> {
        let mut line = Vec::new();
        (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(match line.len() {
                0 => ErrorKind::UnexpectedEof.into(),
                _ => foreign(&line),
            });
        };
        let text = || String::from_utf8_lossy(&line[1..]).into_owned();
        let number = || text().parse::<i64>().map_err(|_| foreign(line));
        Ok(match line.first() {
            Some(b'+') => Value::Status(text()),
            Some(b'-') => Value::Error(text()),
            Some(b':') => Value::Integer(number()?),
            Some(b'$' | b'*') if number()? < 0 => Value::Nil,
            Some(b'$') => Value::Bytes(self.bytes(number()?).await?),
            Some(b'*') if depth > 0 => {
                let mut values = Vec::new();
                for _ in 0..number()? {
                    values.push(Box::pin(self.answer(depth - 1)).await?);
                }
                Value::List(values)
            }
            _ => return Err(foreign(line)),
        })
    }

    /// That many bytes, and the end of the line after them.
    async fn bytes(&mut self, length: i64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| ErrorKind::InvalidData)?;
        let mut bytes = Vec::new();
        // Read as it comes: a length is no reason to take the memory for it.
        (&mut self.stream).take(length as u64 + 2).read_to_end(&mut bytes).await?;
        match bytes.len() == length + 2 && bytes.ends_with(b"\r\n") {
            true => bytes.truncate(length),
            false => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(bytes)
    }
}

fn request<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend(format!("${}\r\n", word.as_ref().len()).into_bytes());
        request.extend(word.as_ref());
        request.extend(b"\r\n");
    }
    request
}

/// What listens there is no Redis.
fn foreign(line: &[u8]) -> Error {
    let start: String = String::from_utf8_lossy(line).chars().take(60).collect();
    Error::new(ErrorKind::InvalidData, format!("it was answered {start:?}, which is not Redis' protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value that a client reads from these bytes.
    fn answer(bytes: &'static [u8]) -> Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let mut client = Client::open(listener.local_addr()?.port()).await?;
            let (mut server, _) = listener.accept().await?;
            server.write_all(bytes).await?;
            drop(server);
            client.answer(DEEPEST).await
        })
    }

    #[test]
    fn a_request_is_a_list_of_words_with_their_lengths() {
        assert_eq!(request(&["GET", "naïve\r\n"]), "*2\r\n$3\r\nGET\r\n$8\r\nnaïve\r\n\r\n".as_bytes());
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        assert_eq!(answer(b"+PONG\r\n").unwrap(), Value::Status("PONG".into()));
        assert_eq!(answer(b":-7\r\n").unwrap(), Value::Integer(-7));
        assert_eq!(answer(b"-LOADING data\r\n").unwrap(), Value::Error("LOADING data".into()));
        assert_eq!(answer(b"$-1\r\n").unwrap(), Value::Nil);
        assert_eq!(answer(b"$0\r\n\r\n").unwrap(), Value::Bytes(Vec::new()));
        assert_eq!(answer(b"$4\r\na\r\nb\r\n").unwrap(), Value::Bytes(b"a\r\nb".to_vec()));
        let list = Value::List(vec![Value::Integer(1), Value::List(vec![]), Value::Nil]);
        assert_eq!(answer(b"*3\r\n:1\r\n*0\r\n*-1\r\n").unwrap(), list);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let pieces: [&[u8]; 7] =
            [b"", b"HTTP/1.1 400\r\n", b"+PON", b"$9999999999999\r\nshort\r\n", b":x\r\n", b"*2\r\n:1\r\n", b"\r\n"];
        for bytes in pieces {
            assert!(answer(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let deep: &'static [u8] = b"*1\r\n".repeat(100).leak();
        assert!(answer(deep).is_err());
    }
}
