//! Plain SQL, sent to the server as it is read.

use std::io::BufReader;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgErrorPosition};
use tokio::sync::mpsc;

use super::items::{self, Item, first_line};
use super::{Dump, PIECE, Wanting};
use crate::ui::{Exit, Failure};

/// Items that are read before they are sent.
const AHEAD: usize = 4;

/// Runs a dump up to its end or to the first error.
pub async fn send(connection: &mut PgConnection, dump: Dump, wanting: &mut Wanting, written: &AtomicU64) -> Result<()> {
    let shown = dump.path.display().to_string();
    let input = dump.read()?;
    let (sender, mut items) = mpsc::channel(AHEAD);
    let name = shown.clone();
    let reading =
        tokio::task::spawn_blocking(move || items::read(BufReader::with_capacity(PIECE, input), &name, &sender));
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
