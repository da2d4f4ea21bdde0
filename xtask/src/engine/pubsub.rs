//! Talking to the Pub/Sub emulator: is it ready, and the topics and subscriptions that it forgets with every stop.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::http;
use super::readiness::Probe;
use crate::stack::model::PubSub;

const TIMEOUT: Duration = Duration::from_secs(10);
/// The topic or subscription is there already.
const CONFLICT: u16 = 409;

/// The emulator answers `Ok` at its root.
pub async fn probe(port: u16) -> Result<Probe<()>> {
    tokio::task::spawn_blocking(move || {
        let answer = http::agent(TIMEOUT).get(format!("http://127.0.0.1:{port}/")).call();
        match answer.and_then(|mut answer| answer.body_mut().read_to_string()) {
            Ok(text) if text.trim() == "Ok" => Ok(Probe::Ready(())),
            Ok(text) => {
                Ok(Probe::NotYet(format!("`GET /` was answered {:?}", text.chars().take(60).collect::<String>())))
            }
            Err(error) => Ok(Probe::NotYet(error.to_string())),
        }
    })
    .await?
}

/// Makes what is missing of topics and subscriptions.
pub async fn create_topics(port: u16, wanted: PubSub) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        let agent = http::agent(TIMEOUT);
        let project = &wanted.project;
        let put = |path: String, body: serde_json::Value| -> Result<()> {
            let mut answer = agent.put(format!("http://127.0.0.1:{port}/v1/{path}")).send_json(body)?;
            match answer.status() {
                status if status.is_success() || status.as_u16() == CONFLICT => Ok(()),
                status => bail!("the emulator refused `{path}`: {status} {}", answer.body_mut().read_to_string()?),
            }
        };
        for topic in &wanted.topics {
            put(format!("projects/{project}/topics/{}", topic.id), json!({}))?;
        }
        for subscription in &wanted.subscriptions {
            let body = json!({
                "topic": format!("projects/{project}/topics/{}", subscription.topic),
                "enableMessageOrdering": subscription.ordering,
            });
            put(format!("projects/{project}/subscriptions/{}", subscription.id), body)?;
        }
        Ok(())
    })
    .await?
}
