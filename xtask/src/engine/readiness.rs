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
    loop {
        let status = match probe().await? {
            Probe::Ready(value) => return Ok(value),
            Probe::NotYet(status) => status,
        };
        if Instant::now() >= deadline {
            bail!("no answer within {} s; last: {status}", cap.as_secs());
        }
        tokio::time::sleep(interval).await;
        interval = (interval * 5 / 4).min(LONGEST_INTERVAL);
    }
}
