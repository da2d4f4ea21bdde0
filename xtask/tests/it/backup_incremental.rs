//! Incremental backups: what is taken over, what is not, and that a set stays whole whatever happens to the one before.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Checkout, ENGINES, skip};

/// Names that a shell, a pattern or a careless quote would read otherwise.
const ODD: &str = r#""Odd ""name"".*$x|""#;

fn tables(checkout: &Checkout) {
    checkout.sql(
        "learning",
        &format!(
            "CREATE TABLE one AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 5000) g; \
             CREATE TABLE {ODD} AS SELECT g AS id, '日本' || g AS name FROM generate_series(1, 1000) g; \
             CREATE SEQUENCE numbers"
        ),
    );
}

/// Takes a backup; its manifest and its folder.
fn taken(checkout: &Checkout, options: &[&str]) -> (Value, PathBuf) {
    let ran = checkout.run(&[&["backup", "learning", "--json"], options].concat()).ok().json();
    let one = &ran["backups"][0];
    (one["manifest"].clone(), one["folder"].as_str().unwrap().into())
}

fn incremental(checkout: &Checkout) -> (Value, PathBuf) {
    taken(checkout, &["--incremental"])
}

/// The tables whose part came from an earlier backup.
fn taken_over(manifest: &Value) -> Vec<String> {
    let parts = manifest["parts"].as_array().unwrap();
    let is_old = |part: &Value| parts.iter().any(|one| one["file"] == *part && one["from"].is_string());
    let tables = manifest["subject"]["database"]["tables"].as_array().unwrap().iter();
    let mut names: Vec<String> =
        tables.filter(|table| is_old(&table["part"])).map(|table| table["name"].as_str().unwrap().into()).collect();
    names.sort();
    names
}

fn part_of(manifest: &Value, table: &str, folder: &Path) -> PathBuf {
    let tables = manifest["subject"]["database"]["tables"].as_array().unwrap();
    let found = tables.iter().find(|one| one["name"] == table).unwrap();
    folder.join(found["part"].as_str().unwrap())
}

fn odd() -> String {
    ODD.trim_matches('"').replace("\"\"", "\"")
}

#[test]
fn what_did_not_change_is_not_written_again() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning"]).ok();
        tables(&checkout);
        let (first, first_folder) = incremental(&checkout);
        assert!(taken_over(&first).is_empty(), "there was nothing to take over");
        // Nothing at all has changed: not even the head is written.
        let (second, second_folder) = incremental(&checkout);
        let old = second["parts"].as_array().unwrap().iter().filter(|part| part["from"].is_string()).count();
        assert_eq!(old, second["parts"].as_array().unwrap().len());
        let (one, two) = (part_of(&first, "one", &first_folder), part_of(&second, "one", &second_folder));
        assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&two).unwrap().ino(), "{engine:?}: a link");
        // One table has changed, and a sequence.
        checkout.sql("learning", "INSERT INTO one VALUES (0, 'new')");
        checkout.sql("learning", "SELECT nextval('numbers')");
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let (third, _) = incremental(&checkout);
        assert!(!taken_over(&third).contains(&"one".to_owned()));
        assert!(taken_over(&third).contains(&odd()), "{:?}", taken_over(&third));
        let said = checkout.run(&["backup", "learning", "--incremental"]).ok();
        assert!(said.err.contains(" tables unchanged") && said.err.contains("0.0 MB new of"), "{}", said.err);
        // The earlier ones may go: the links keep the bytes.
        checkout
            .run(&[
                "backup",
                "prune",
                "--yes",
                "--keep-last=1",
                "--keep-daily=0",
                "--keep-weekly=0",
                "--keep-monthly=0",
            ])
            .ok();
        assert!(!first_folder.exists());
        checkout.run(&["backup", "verify", "learning", "--restore"]).ok().says("restored, and the same");
    }
}

/// Another database than the one that was backed up, of which the server has nothing to say; its rows are the same.
#[test]
fn a_restored_database_needs_no_room_for_what_it_was_restored_from() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    let (first, first_folder) = taken(&checkout, &[]);
    checkout.run(&["restore", "learning", "--yes", "--force"]).ok();
    checkout.sql("learning", "UPDATE one SET name = 'x' WHERE id = 7");
    let (second, second_folder) = incremental(&checkout);
    let old = taken_over(&second);
    let all = second["subject"]["database"]["tables"].as_array().unwrap().len();
    assert!(old.contains(&odd()) && !old.contains(&"one".to_owned()) && old.len() == all - 1, "{old:?}");
    let (one, two) = (part_of(&first, &odd(), &first_folder), part_of(&second, &odd(), &second_folder));
    assert_eq!(fs::metadata(&one).unwrap().ino(), fs::metadata(&two).unwrap().ino(), "a link");
    checkout.run(&["backup", "verify", "learning", "--restore"]).ok().says("restored, and the same");
}

#[test]
fn a_sequence_that_moved_alone_is_seen() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    // The server logs 32 numbers ahead: the second is drawn without any transaction that others could see.
    checkout.sql("learning", "SELECT nextval('numbers')");
    incremental(&checkout);
    checkout.sql("learning", "SELECT nextval('numbers')");
    let (manifest, _) = incremental(&checkout);
    let sequences = manifest["subject"]["database"]["sequences"].as_array().unwrap();
    let numbers = sequences.iter().find(|one| one["name"] == "numbers").unwrap();
    assert_eq!(numbers["value"], "2, true");
}

/// The server's counters lie here; the hash does not.
#[test]
fn a_table_that_only_seems_unchanged_is_dumped_after_all() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    checkout.sql("learning", "SELECT pg_stat_reset()");
    taken(&checkout, &[]);
    checkout.sql("learning", &format!("UPDATE {ODD} SET name = '日本0' WHERE id = 7"));
    checkout.sql("learning", "UPDATE one SET name = 'x' WHERE id = 7");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    checkout.sql("learning", "SELECT pg_stat_reset()");
    let (manifest, folder) = incremental(&checkout);
    let old = taken_over(&manifest);
    assert!(!old.contains(&"one".to_owned()) && !old.contains(&odd()) && !old.is_empty(), "{old:?}");
    assert!(!folder.join("again").exists());
    checkout.run(&["backup", "verify", "learning", "--restore"]).ok();
    checkout.run(&["restore", "learning", "--yes", "--force"]).ok();
    assert_eq!(checkout.sql("learning", &format!("SELECT name FROM {ODD} WHERE id = 7")), "日本0");
}

/// Large enough for the server to be asked, each with a column that is there to be altered.
const LARGE: [(&str, &str); 6] = [
    ("plain", "'日本' || g"),
    ("with_enum", "'good'::mood"),
    ("with_name", "'numbers'::regclass"),
    ("with_array", "ARRAY['good'::mood]"),
    ("emptied", "g"),
    ("altered", "g"),
];

#[test]
fn what_the_server_proves_to_be_unchanged_is_not_even_read() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning"]).ok();
        tables(&checkout);
        checkout.sql("learning", "CREATE TYPE mood AS ENUM ('good', 'bad')");
        for (name, column) in LARGE {
            let rows = "repeat(md5(g::text), 2) AS text FROM generate_series(1, 5000) g";
            checkout.sql("learning", &format!("CREATE TABLE {name} AS SELECT g AS id, {column} AS own, {rows}"));
        }
        checkout.sql("learning", "CREATE TABLE parted (id int, text text) PARTITION BY HASH (id)");
        checkout.sql("learning", "CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0)");
        checkout.sql("learning", "INSERT INTO parted SELECT id, text FROM plain");
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let (first, _) = taken(&checkout, &[]);
        // Not one of these changes a row, and all but the last change what a row reads like.
        checkout.sql("learning", "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'");
        checkout.sql("learning", "ALTER SEQUENCE numbers RENAME TO counted");
        checkout.sql("learning", "ALTER TABLE altered ADD COLUMN more int DEFAULT 7");
        checkout.sql("learning", "TRUNCATE emptied");
        checkout.sql("learning", "ALTER TABLE part SET (fillfactor = 90)");
        checkout.sql("learning", "ALTER DATABASE learning_db SET log_statement = 'all'");
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let (second, folder) = incremental(&checkout);
        let log = checkout.run(&["logs", "learning", "--tail", "9999"]).ok();
        let is_read = |table: &str| (log.out.clone() + &log.err).contains(&format!("COPY public.{table} "));
        let read: Vec<&str> =
            LARGE.iter().map(|(name, _)| *name).chain(["part"]).filter(|name| is_read(name)).collect();
        assert_eq!(read, ["with_enum", "with_name", "with_array", "emptied", "altered", "part"], "{engine:?}");
        let old = taken_over(&second);
        let is_old = |name: &str| old.contains(&name.to_owned());
        assert!(is_old("plain") && is_old("part"), "{old:?}");
        assert!(!["with_enum", "with_name", "with_array", "emptied", "altered"].into_iter().any(is_old), "{old:?}");
        assert_ne!(part_of(&second, "plain", &folder), part_of(&first, "plain", &folder), "another dump numbers anew");
        // It is a backup as any other: compared, restored, exported, and the next one's earlier one.
        checkout.run(&["backup", "verify", "learning", "--restore"]).ok().says("restored, and the same");
        checkout.run(&["restore", "learning", "--force"]).ok();
        assert_eq!(checkout.sql("learning", "SELECT own FROM with_enum WHERE id = 7"), "fine");
        assert_eq!(checkout.sql("learning", "SELECT own FROM plain WHERE id = 4711"), "日本4711");
        let file = checkout.beside("exported.dump").display().to_string();
        let exported = checkout.command(&["backup", "show", "learning", "--export"]).output().unwrap();
        fs::write(&file, exported.stdout).unwrap();
        checkout.run(&["restore", "learning", "--from", &file, "--into", "copy"]).ok();
    }
}

/// The numbers of transactions do not say in which order they end, and the counters lie here.
#[test]
fn what_was_written_across_the_earlier_cut_is_read() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    checkout.sql("learning", "CREATE TABLE two AS TABLE one");
    let mut writer = checkout.session("learning");
    writer.say("BEGIN; DELETE FROM one WHERE id = 1; INSERT INTO one VALUES (0, 'late');");
    checkout.sql("learning", "DELETE FROM two WHERE id = 1; INSERT INTO two VALUES (0, 'in time')");
    checkout.sql("learning", "SELECT pg_stat_reset()");
    let (first, _) = taken(&checkout, &[]);
    writer.say("COMMIT;");
    writer.end();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    checkout.sql("learning", "SELECT pg_stat_reset()");
    let (second, folder) = incremental(&checkout);
    let counters = |manifest: &Value, name: &str| {
        let tables = manifest["subject"]["database"]["tables"].as_array().unwrap();
        tables.iter().find(|table| table["name"] == name).unwrap()["counters"].clone()
    };
    assert_eq!(counters(&first, "one"), counters(&second, "one"), "or nothing was there to be seen through");
    let old = taken_over(&second);
    assert!(!old.contains(&"one".to_owned()) && old.contains(&"two".to_owned()), "{old:?}");
    checkout.run(&["backup", "verify", "learning", "--restore"]).ok();
    assert!(part_of(&second, "one", &folder).is_file());
}

/// A copy has everything of its original but rows that came later: numbers of tables, sizes, the transactions that wrote them.
#[test]
fn another_database_of_the_same_name_is_another_one() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    let aside = |statements: &str| {
        checkout.run(&["psql", "learning", "--", "-q", "-d", "postgres", "-c", statements]).ok();
    };
    aside("CREATE DATABASE copy TEMPLATE learning_db");
    checkout.sql("learning", "UPDATE one SET name = md5('other') WHERE id = 7");
    checkout.sql("learning", "SELECT pg_stat_reset()");
    taken(&checkout, &[]);
    aside("ALTER DATABASE learning_db RENAME TO original");
    aside("ALTER DATABASE copy RENAME TO learning_db");
    checkout.sql("learning", "SELECT pg_stat_reset()");
    let (manifest, _) = incremental(&checkout);
    assert!(!taken_over(&manifest).contains(&"one".to_owned()), "{:?}", taken_over(&manifest));
    checkout.run(&["restore", "learning"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT name = md5('7') FROM one WHERE id = 7"), "t");
}

#[test]
fn what_is_broken_or_somebody_elses_is_not_taken_over() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    let (first, folder) = taken(&checkout, &[]);
    let part = part_of(&first, "one", &folder);
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, &bytes).unwrap();
    let (second, second_folder) = incremental(&checkout);
    assert!(!taken_over(&second).contains(&"one".to_owned()));
    assert!(taken_over(&second).contains(&odd()));
    checkout.run(&["backup", "verify", "learning"]).ok();
    // A link is as good as its target for as long as that stays there.
    let part = part_of(&second, "one", &second_folder);
    let elsewhere = checkout.beside("elsewhere");
    fs::rename(&part, &elsewhere).unwrap();
    symlink(&elsewhere, &part).unwrap();
    let (third, third_folder) = incremental(&checkout);
    assert!(part_of(&third, "one", &third_folder).symlink_metadata().unwrap().is_file());
    // A manifest that is broken is no reason to fail: the one before it is taken.
    fs::write(third_folder.join("manifest.json"), "{}").unwrap();
    fs::remove_file(&elsewhere).unwrap();
    let (fourth, _) = incremental(&checkout);
    assert!(!taken_over(&fourth).contains(&"one".to_owned()) && taken_over(&fourth).contains(&odd()));
    // Another start of the server proves nothing any more; the hashes do.
    checkout.run(&["restart", "learning"]).ok();
    let (fifth, _) = incremental(&checkout);
    assert!(taken_over(&fifth).contains(&"one".to_owned()));
    assert!(fifth["parts"].as_array().unwrap().iter().any(|part| part["from"].is_null()), "the head is new");
}

#[test]
fn only_what_the_same_people_can_read_is_taken_over() {
    let Ok(keygen) = which::which("age-keygen") else { return skip("there is no `age`") };
    let checkout = Checkout::new();
    let key = |name: &str| {
        let file = checkout.beside(name);
        let made = Command::new(&keygen).arg("-o").arg(&file).output().unwrap();
        let said = String::from_utf8(made.stderr).unwrap();
        (file.display().to_string(), said.trim().rsplit(' ').next().unwrap().to_owned())
    };
    let ((one_file, one), (two_file, two)) = (key("one"), key("two"));
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    let sealed = |key: &str| taken(&checkout, &["--incremental", "--recipient", key]).0;
    taken(&checkout, &[]);
    assert!(taken_over(&sealed(&one)).is_empty(), "what is plain must not end up in a sealed backup");
    assert!(!taken_over(&sealed(&one)).is_empty());
    assert!(taken_over(&sealed(&two)).is_empty());
    assert!(taken_over(&incremental(&checkout).0).is_empty(), "nor what is sealed in a plain one");
    let (_, folder) = taken(&checkout, &["--recipient", &two]);
    checkout.run(&["backup", "verify", "--identity", &two_file]).ok();
    let name = folder.file_name().unwrap().to_str().unwrap();
    checkout.run(&["backup", "show", "learning", name, "--export", "--identity", &one_file]).exits(1);
}
