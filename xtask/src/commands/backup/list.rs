//! `cargo xtask backup list` and `show`: what is kept, and what one of them holds.

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{described, opened_by, sources, store};
use crate::cli::{BackupListArgs, BackupShowArgs};
use crate::context::Context;
use crate::data::backup::manifest::{Manifest, Origin, Subject};
use crate::data::backup::store::{Kept, Store};
use crate::data::backup::{export, verify};
use crate::ui::{self, Exit, Failure, failure, paint, table, units};

pub fn list(cx: &Context, args: &BackupListArgs) -> Result<Exit> {
    let store = store(cx, args.at.as_deref())?;
    let names = names(cx, &store, &args.names)?;
    let mut all: Vec<(Kept, Result<Manifest>)> = Vec::new();
    for name in &names {
        all.extend(store.list(name)?.into_iter().map(|kept| (kept.clone(), kept.manifest())));
    }
    if args.json {
        let backups: Vec<Value> = all.iter().map(|(kept, manifest)| as_json(kept, manifest)).collect();
        ui::json(&json!({ "stack": cx.stack.name, "backups": backups }))?;
        return Ok(Exit::Done);
    }
    if all.is_empty() {
        ui::tell(format!(
            "no backups yet in {}. `cargo xtask backup{}` takes one",
            store.place.shown(&cx.folder),
            cx.stack_option()
        ));
        return Ok(Exit::Done);
    }
    let rows = all.iter().map(|(kept, manifest)| {
        let mut row = vec![kept.name.clone(), kept.backup.clone()];
        row.push(kept.time().map_or_else(String::new, |time| format!("{} ago", units::span(units::since(time)))));
        match manifest {
            Ok(manifest) => {
                let described = described(manifest);
                row.extend([described[2].clone(), described[4].clone(), state(kept)]);
            }
            Err(_) => row.extend([
                String::new(),
                String::new(),
                paint(ui::BAD, "broken: `cargo xtask backup verify` says how"),
            ]),
        }
        row
    });
    ui::data(&table::columns(rows.collect(), &[3, 4]))?;
    let bytes = all.iter().filter_map(|(_, manifest)| manifest.as_ref().ok()).map(Manifest::bytes).sum();
    ui::tell(format!(
        "\n{}, {} in {}",
        units::plural(all.len(), "backup"),
        units::megabytes(bytes),
        store.place.shown(&cx.folder)
    ));
    Ok(Exit::Done)
}

/// `verified 2 h ago, by a restore`.
fn state(kept: &Kept) -> String {
    match kept.verified() {
        Some(verified) => {
            let how = if verified.was_restored { ", by a restore" } else { "" };
            paint(ui::GOOD, format!("verified {} ago{how}", units::span(units::since(verified.at))))
        }
        None => paint(ui::FAINT, "not verified"),
    }
}

/// `laptop:/home/ada/src/effect`.
pub fn origin(origin: Option<&Origin>) -> String {
    origin.map_or_else(|| "an earlier version of this helper".to_owned(), ToString::to_string)
}

fn as_json(kept: &Kept, manifest: &Result<Manifest>) -> Value {
    let mut value = json!({
        "name": kept.name,
        "backup": kept.backup,
        "folder": kept.place.to_string(),
        "verified": kept.verified(),
    });
    match manifest {
        Ok(manifest) => {
            value["taken"] = json!(manifest.taken);
            value["origin"] = json!(manifest.origin);
            value["bytes"] = json!(manifest.bytes());
            value["rows"] = json!(manifest.rows());
            value["label"] = json!(manifest.label);
        }
        Err(error) => value["error"] = json!(failure::in_a_line(error)),
    }
    value
}

/// What is asked for, or all that has backups.
pub fn names(cx: &Context, store: &Store, asked: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() {
        return store.names();
    }
    // A database that the manifest no longer has may still have backups.
    let kept = store.names()?;
    let known = |name: &String| cx.stack.service(name).map(|service| service.short_name.clone());
    let mut names = Vec::new();
    for name in asked {
        match known(name).or_else(|| kept.contains(name).then(|| name.clone())) {
            Some(name) => names.push(name),
            None => {
                cx.services(std::slice::from_ref(name))?;
            }
        }
    }
    Ok(names)
}

pub fn show(cx: &Context, args: &BackupShowArgs) -> Result<Exit> {
    let (store, seal) = sources(cx, &args.place)?;
    let names = names(cx, &store, std::slice::from_ref(&args.name))?;
    let Some(name) = names.first() else { return Ok(Exit::Usage) };
    let kept = store.find(name, &args.backup)?;
    if args.export {
        let manifest = verify::bytes(&kept)?;
        let seal = opened_by(&manifest, seal.as_ref())?;
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            bail!(
                Failure::new(Exit::Usage, "a dump on a terminal helps nobody")
                    .hint(format!("`cargo xtask backup show {name} --export > {name}.dump`"))
            );
        }
        let mut out = std::io::stdout().lock();
        export::write(&kept, &manifest, seal, &mut out)?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    let manifest = kept.manifest()?;
    if args.json {
        ui::json(&manifest)?;
        return Ok(Exit::Done);
    }
    ui::data(&text(&kept, &manifest))?;
    Ok(Exit::Done)
}

fn text(kept: &Kept, manifest: &Manifest) -> String {
    let mut facts = vec![
        vec!["backup".to_owned(), kept.shown()],
        vec!["taken".to_owned(), format!("{} ({} ago)", manifest.taken, units::span(units::since(manifest.taken)))],
        vec!["from".to_owned(), origin(manifest.origin.as_ref())],
        vec!["state".to_owned(), state(kept)],
        vec![
            "in one cut with".to_owned(),
            format!("{} ({} ms apart)", manifest.set.members.join(", "), manifest.set.skew_micros.div_ceil(1000)),
        ],
        vec![
            "size".to_owned(),
            format!("{}{}", units::megabytes(manifest.bytes()), if manifest.is_encrypted { ", encrypted" } else { "" }),
        ],
    ];
    let mut rows = Vec::new();
    match &manifest.subject {
        Subject::Database(database) => {
            let server = format!("PostgreSQL {}, database {}", manifest.server_version, database.database);
            facts.push(vec!["server".to_owned(), server]);
            for history in &database.migrations {
                let latest =
                    history.versions.last().map_or_else(String::new, |version| format!(", the latest {version}"));
                facts.push(vec!["migrations".to_owned(), format!("{}{latest}", history.versions.len())]);
            }
            let extensions: Vec<String> =
                database.extensions.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
            if !extensions.is_empty() {
                facts.push(vec!["extensions".to_owned(), extensions.join(", ")]);
            }
            for table in &database.tables {
                let bytes = manifest.part(&table.part).map_or(0, |part| part.bytes);
                rows.push(vec![
                    format!("{}.{}", table.schema, table.name),
                    units::plural(table.evidence.rows, "row"),
                    units::megabytes(bytes),
                ]);
            }
        }
        Subject::Redis(redis) => {
            facts.push(vec!["server".to_owned(), format!("Redis {}", manifest.server_version)]);
            facts.push(vec!["keys".to_owned(), units::count(redis.keys)]);
        }
        Subject::PubSub(pubsub) => {
            for topic in &pubsub.topics {
                let subscribers = pubsub.subscriptions.iter().filter(|one| one.topic == *topic);
                rows.push(vec![topic.clone(), subscribers.map(|one| one.id.as_str()).collect::<Vec<_>>().join(", ")]);
            }
        }
    }
    let mut text = table::columns(facts, &[]);
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table::columns(rows, &[1, 2]));
    }
    text
}
