//! Seeds: all databases or none, once, and again only when asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Checkout;

const ALL: [&str; 8] = ["event-store", "learning", "vocabulary", "user", "progress", "algorithm", "ai", "saga"];

/// Databases that run, with the tables of their migrations.
fn running(databases: &[&str]) -> Checkout {
    let checkout = Checkout::new();
    checkout.run(&[&["up"], databases].concat()).ok();
    migrate(&checkout, databases);
    checkout
}

/// All migrations of databases: the one place that knows how they are run.
fn migrate(checkout: &Checkout, databases: &[&str]) {
    for database in databases {
        let folder = checkout.root.join(format!("config/effect/{database}/migrations"));
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.to_string_lossy().ends_with(".up.sql"));
        files.sort();
        let files = files.iter().flat_map(|file| ["-f", file.to_str().unwrap()]);
        let arguments: Vec<&str> = ["psql", database, "-Xqv", "ON_ERROR_STOP=1"].into_iter().chain(files).collect();
        checkout.run(&arguments).ok();
    }
}

/// The rows of each file, by `database/file`.
fn rows(json: &Value) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
    for database in json["databases"].as_array().unwrap() {
        for file in database["files"].as_array().unwrap() {
            let name = format!("{}/{}", database["name"].as_str().unwrap(), file["file"].as_str().unwrap());
            rows.insert(name, file["rows"].as_u64().unwrap());
        }
    }
    rows
}

#[test]
fn all_databases_are_seeded_once_and_fit_each_other() {
    let checkout = running(&ALL);
    let seeded = checkout.run(&["seed", "--json"]).ok().says("8 databases seeded: 18,665 rows");
    let rows = rows(&seeded.json());
    for (file, expected) in [
        ("event-store/0010_events.sql", 1_871 + 6_797),
        ("event-store/0020_snapshots.sql", 350),
        ("learning/0010_learning_sessions.sql", 578),
        ("learning/0020_session_answers.sql", 2_096),
        ("vocabulary/0010_vocabulary_entries.csv", 464),
        ("vocabulary/0020_vocabulary_items.csv", 500),
        ("user/0001_people.sql", 0),
        ("user/0010_users.sql", 100),
        ("user/0020_credentials.sql", 120),
        ("progress/0020_daily_progress.sql", 578),
        ("algorithm/0020_review_histories.sql", 2_096),
        ("saga/0030_compensations.sql", 12),
    ] {
        assert_eq!(rows.get(file), Some(&expected), "{file} of {rows:?}");
    }
    assert_eq!(checkout.sql("user", "SELECT count(*) FROM users"), "100");
    assert_eq!(checkout.sql("vocabulary", "SELECT count(*) FROM vocabulary_items WHERE gloss_ja = 'りんご'"), "1");

    let begun = Instant::now();
    checkout.run(&["seed"]).ok().says("effect is seeded at scale 1: 8 databases, unchanged");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?} for nothing", begun.elapsed());
}
