//! Talking to the Pub/Sub emulator: is it ready, and the topics and subscriptions that it forgets with every stop.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

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

/// What the emulator has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Present {
    pub topics: Vec<String>,
    /// Id, topic, and whether messages keep their order.
    pub subscriptions: Vec<(String, String, bool)>,
}

/// Asks for all topics and subscriptions of a project, sorted.
pub async fn list(port: u16, project: String) -> Result<Present> {
    tokio::task::spawn_blocking(move || {
        let mut present = Present::default();
        for topic in all(port, &project, "topics")? {
            present.topics.push(last_part(&topic["name"]));
        }
        for subscription in all(port, &project, "subscriptions")? {
            let ordering = subscription["enableMessageOrdering"].as_bool().unwrap_or(false);
            present.subscriptions.push((last_part(&subscription["name"]), last_part(&subscription["topic"]), ordering));
        }
        present.topics.sort();
        present.subscriptions.sort();
        Ok(present)
    })
    .await?
}

/// Every page of a list.
fn all(port: u16, project: &str, what: &str) -> Result<Vec<Value>> {
    let agent = http::agent(TIMEOUT);
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let address = format!("http://127.0.0.1:{port}/v1/projects/{project}/{what}?pageSize=1000&pageToken={token}");
        let mut answer = agent.get(address).call()?;
        if !answer.status().is_success() {
            bail!("the emulator refused to list {what}: {}", answer.status());
        }
        let page: Value = answer.body_mut().read_json()?;
        items.extend(page[what].as_array().cloned().unwrap_or_default());
        match page["nextPageToken"].as_str() {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(items),
        }
    }
}

/// `learning-events` of `projects/effect-local/topics/learning-events`.
fn last_part(name: &Value) -> String {
    name.as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
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
