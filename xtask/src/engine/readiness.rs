//! Waiting until a server answers: asked often, with a far cap, and the last answer in the error.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// What a server's answer means.
#[derive(Debug)]
pub enum Probe<T> {
    Ready(T),
    /// Not yet, with its status in words.
    NotYet(String),
}

const FIRST_INTERVAL: Duration = Duration::from_millis(4);
const LONGEST_INTERVAL: Duration = Duration::from_millis(60);

/// Asks until the answer is ready, an error, or `cap` has passed.
pub async fn poll<T>(cap: Duration, mut probe: impl AsyncFnMut() -> Result<Probe<T>>) -> Result<T> {
    let deadline = Instant::now() + cap;
    let mut interval = FIRST_INTERVAL;
    let mut last = "it was not asked yet".to_owned();
    loop {
        // A server that hangs must not hang the one who asks.
        let status = match tokio::time::timeout_at(deadline, probe()).await {
            Ok(answer) => match answer? {
                Probe::Ready(value) => return Ok(value),
                Probe::NotYet(status) => status,
            },
            Err(_) => format!("{last}; then it took the connection and said nothing"),
        };
        if Instant::now() + interval >= deadline {
            bail!("no answer within {} s; last: {status}", cap.as_secs());
        }
        last = status;
        tokio::time::sleep(interval).await;
        interval = (interval * 5 / 4).min(LONGEST_INTERVAL);
    }
}
