//! Asking a tool with a user interface whether it is there.

use std::time::Duration;

use anyhow::Result;

use super::readiness::Probe;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A client for servers on loopback: no proxy, and every status is an answer, also one that leads elsewhere: a user
/// interface sends to the page of its login, or to the address that it has in production.
pub fn agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).proxy(None);
    config.max_redirects(0).max_redirects_will_error(false).build().into()
}

/// Any answer of HTTP but a server's own fault (500 and above) is a server that is ready.
pub async fn probe(port: u16) -> Result<Probe<()>> {
    tokio::task::spawn_blocking(move || {
        Ok(match agent(TIMEOUT).get(format!("http://127.0.0.1:{port}/")).call() {
            Ok(answer) if answer.status().as_u16() < 500 => Probe::Ready(()),
            Ok(answer) => Probe::NotYet(format!("`GET /` was answered {}", answer.status())),
            Err(error) => Probe::NotYet(error.to_string()),
        })
    })
    .await?
}
