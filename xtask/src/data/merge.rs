//! Two sorted columns of text, from two servers at once, walked side by side: what one has and the other has not. Memory
//! does not grow with them, since the servers sort and both are read as they come.

use std::cmp::Ordering;

use anyhow::Result;
use futures_util::{Stream, TryStreamExt};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

/// How many examples are kept of what is found.
const EXAMPLES: usize = 3;

/// Lines that were counted, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Found {
    fn add(&mut self, line: &[u8]) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// All lines of the left side.
    pub left: u64,
    pub only_left: Found,
    pub only_right: Found,
}

/// Whether the right side may have lines that the left one has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Counts,
    IsNoMatter,
}

/// Compares what two queries give, each one column of text sorted by `COLLATE "C"`.
pub async fn compare(
    left: (&mut PgConnection, &str),
    right: (&mut PgConnection, &str),
    rest: Rest,
) -> Result<Compared> {
    let (copy_left, copy_right) = (copy(left.1), copy(right.1));
    // Both servers sort at the same time.
    let (mut left, mut right) =
        futures_util::future::try_join(left.0.copy_out_raw(&copy_left), right.0.copy_out_raw(&copy_right)).await?;
    let mut compared = Compared::default();
    let (mut here, mut there) = futures_util::future::try_join(left.try_next(), right.try_next()).await?;
    loop {
        let order = match (&here, &there) {
            (None, None) => break,
            (None, Some(_)) if rest == Rest::IsNoMatter => break,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(here), Some(there)) => here.trim_ascii_end().cmp(there.trim_ascii_end()),
        };
        if let Some(line) = here.as_ref().filter(|_| order.is_le()) {
            compared.left += 1;
            if order.is_lt() {
                compared.only_left.add(line);
            }
        }
        if let Some(line) = there.as_ref().filter(|_| order.is_gt() && rest == Rest::Counts) {
            compared.only_right.add(line);
        }
        if order.is_le() {
            here = left.try_next().await?;
        }
        if order.is_ge() {
            there = right.try_next().await?;
        }
    }
    Ok(compared)
}

/// All that a query gives, one column of text.
pub async fn count(connection: &mut PgConnection, query: &str) -> Result<Found> {
    let statement = copy(query);
    let mut found = Found::default();
    drain(connection.copy_out_raw(&statement).await?, &mut found).await?;
    Ok(found)
}

async fn drain<B: AsRef<[u8]>>(
    mut lines: impl Stream<Item = Result<B, sqlx::Error>> + Unpin,
    found: &mut Found,
) -> Result<()> {
    while let Some(line) = lines.try_next().await? {
        found.add(line.as_ref());
    }
    Ok(())
}

fn copy(query: &str) -> String {
    format!("COPY (\n{query}\n) TO STDOUT")
}

/// Values read the same on every connection after this, and nothing can be changed. Queries are not compiled: for a check,
/// that takes a server that can do it longer than the check does.
pub async fn prepare(connection: &mut PgConnection) -> Result<()> {
    let settings = "SET default_transaction_read_only = on; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; \
        SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1; SET jit = off";
    sqlx::raw_sql(AssertSqlSafe(settings.to_owned())).execute(connection).await?;
    Ok(())
}
