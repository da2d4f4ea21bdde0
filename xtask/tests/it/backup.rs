//! Backups and restores: that a backup is what the database was, that a broken one is always found, and that no restore,
//! whatever happens to it, costs the live database a row.

mod company;
mod damage;
mod everything;
mod interrupted;
mod places;
mod together;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Checkout, Engine, on_both_engines};

/// A table with rows of many kinds; the same ones each time.
#[track_caller]
fn fill(checkout: &Checkout, rows: u32) {
    let sql = format!(
        "CREATE TABLE people (id integer PRIMARY KEY, name text, note jsonb, at timestamptz); \
         INSERT INTO people SELECT id, 'person ' || md5(id::text), jsonb_build_object('level', id % 7, 'words', \
         ARRAY[md5(id::text), '単語', NULL]), timestamptz '2026-01-05 09:00+00' + id * interval '7 minutes' \
         FROM generate_series(1, {rows}) AS id"
    );
    checkout.sql("learning", &sql);
}

/// Which database answers, and what it answers.
#[track_caller]
fn people(checkout: &Checkout) -> String {
    checkout.sql(
        "learning",
        "SELECT (SELECT oid FROM pg_database WHERE datname = current_database()), count(*), \
         sum(hashtextextended(people::text, 0)) FROM people",
    )
}

/// Of [`people`]: what it answers, whichever it is.
fn rows(people: &str) -> &str {
    people.split_once('|').unwrap().1
}

/// The databases that restores fill, and those that they have replaced.
#[track_caller]
fn beside(checkout: &Checkout, like: &str) -> String {
    let sql = format!("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE '{like}'");
    checkout.sql("learning", &sql)
}

const SIDES: &str = "xtask\\_side\\_%";
const REPLACED: &str = "%\\_before\\_%";

/// The backups that the helper sees.
#[track_caller]
fn listed(checkout: &Checkout) -> Vec<Value> {
    let list = checkout.run(&["backup", "list", "--json"]).ok().json();
    list["backups"].as_array().unwrap().clone()
}

/// The folder of the latest backup of that name.
#[track_caller]
fn latest(checkout: &Checkout, name: &str) -> PathBuf {
    let shown = checkout.run(&["backup", "show", name, "--json"]).ok().json();
    checkout.root.join("backups/effect").join(name).join(shown["backup"].as_str().unwrap())
}

/// All files below a folder, in an order that is always the same.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

on_both_engines! {
    what_was_backed_up_comes_back_and_what_was_replaced_too
}

fn what_was_backed_up_comes_back_and_what_was_replaced_too(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    checkout.run(&["up", "learning", "user", "redis"]).ok();
    fill(&checkout, 2000);
    checkout.run(&["redis-cli", "SET", "kept", "yes"]).ok();
    let backed_up = people(&checkout);
    checkout.run(&["backup", "--label", "before"]).ok().says("2 databases and redis in one cut");
    checkout.run(&["backup", "list"]).ok().says("-before").says("not verified");
    checkout.run(&["backup", "verify"]).ok().says("3 backups verified");
    checkout.run(&["backup", "verify", "--restore"]).ok().says("restored, and the same");
    assert_eq!(listed(&checkout)[0]["verified"]["was_restored"], true);
    assert_eq!(beside(&checkout, SIDES), "");
    assert_eq!(people(&checkout), backed_up, "a restore for a try leaves the live database alone");

    checkout.sql("learning", "DELETE FROM people WHERE id > 10");
    let changed = people(&checkout);
    checkout.run(&["restore", "learning"]).ok().says("1 backup restored and compared").says("swapped in");
    assert_eq!(rows(&people(&checkout)), rows(&backed_up));
    // Back, and back again, as often as one likes.
    let restored = people(&checkout);
    for expected in [&changed, &restored, &changed] {
        checkout.run(&["restore", "learning", "--undo"]).ok().says("swapped back");
        assert_eq!(people(&checkout), *expected);
    }
    assert_eq!(beside(&checkout, REPLACED).split(' ').count(), 1);
    checkout.run(&["restore", "learning", "--drop-old"]).exits(4).says("--yes");
    checkout.run(&["restore", "learning", "--drop-old", "--yes"]).ok().says("1 old database dropped");
    assert_eq!(beside(&checkout, REPLACED), "");
    checkout.run(&["restore", "learning", "--undo"]).exits(1).says("nothing to go back to");
    assert_eq!(people(&checkout), changed);
    let set = listed(&checkout)[0]["backup"].as_str().unwrap().to_owned();
    checkout.run(&["restore", "--all", &set]).ok().says("3 backups restored and compared");
    assert_eq!(rows(&people(&checkout)), rows(&backed_up));
}

#[test]
fn a_name_without_a_backup_keeps_nobody_from_verifying_the_others() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "user"]).ok();
    // Its first backup fails, and leaves nothing.
    checkout.sql("user", "CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    checkout.sql("user", "UPDATE pg_proc SET prolang = 999999 WHERE proname = 'broken'");
    checkout.run(&["backup", "user"]).exits(1);
    let folder = checkout.root.join("backups/effect/user");
    assert!(!folder.exists());
    checkout.sql("user", "DELETE FROM pg_proc WHERE proname = 'broken'");
    checkout.run(&["backup", "learning", "--label", "one"]).ok();
    fs::create_dir(&folder).unwrap();
    checkout.run(&["backup", "verify"]).ok().says("no backup").says("1 backup verified");
    checkout.run(&["backup", "user", "--label", "two"]).ok();
    let one = latest(&checkout, "learning").file_name().unwrap().to_str().unwrap().to_owned();
    let verified = checkout.run(&["backup", "verify", "--backup", &one, "--json"]).ok();
    assert_eq!(verified.json()["without"], serde_json::json!(["user"]));
    verified.says("1 backup verified");
    checkout.run(&["backup", "verify", "--backup", "1999"]).exits(2).says("there is no backup `1999`");
    // Who names one wants it, and still knows of the others.
    checkout.run(&["backup", "verify", "learning", "user", "--backup", &one]).exits(2).says("as it was written");
}
