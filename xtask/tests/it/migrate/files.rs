//! `migrate`: what is wrong with files, told before anything runs, and files that it makes.

use std::fs;

use super::{LEARNING, up, write};
use crate::support::Checkout;

#[test]
fn everything_wrong_with_the_files_is_told_at_once_before_anything_runs() {
    let checkout = up(&["learning", "user"]);
    checkout.run(&["migrate", "learning", "user"]).ok();
    let edited = format!("{LEARNING}/20251110090000_user_item_records.up.sql");
    checkout.replace(&edited, "CREATE TABLE user_item_records (", "CREATE TABLE user_item_records ( -- mine");
    let user = "config/effect/user/migrations";
    fs::remove_file(checkout.root.join(user).join("20251103100000_credentials.up.sql")).unwrap();
    fs::remove_file(checkout.root.join(user).join("20251103100000_credentials.down.sql")).unwrap();
    write(&checkout, &format!("{user}/20251103090000_twin.up.sql"), "SELECT 1;\n");
    write(&checkout, &format!("{user}/20240101000000_older.up.sql"), "SELECT 1;\n");
    write(&checkout, &format!("{user}/notes.sql"), "SELECT 1;\n");
    write(&checkout, &format!("{user}/20300101000000_a.up.sql"), "\\connect other\n");
    write(&checkout, &format!("{user}/20300101000001_b.up.sql"), "COPY users (id) FROM stdin;\n1\n\\.\n");
    write(
        &checkout,
        &format!("{user}/20300101000002_c.up.sql"),
        "CREATE INDEX CONCURRENTLY x ON users (id);\nCOMMIT;\n",
    );
    let ran = checkout.run(&["migrate", "learning", "user"]).exits(1).says("nothing was changed in any database");
    for part in [
        "only white space or comments changed",
        "- CREATE TABLE user_item_records (",
        "+ CREATE TABLE user_item_records ( -- mine",
        "`cargo xtask migrate repair learning` records it",
        "migration 20251103100000 `credentials` was applied",
        "its file is gone",
        "have one version, 20251103090000",
        "20251103090000_twin.up.sql",
        "20251103090000_users.up.sql",
        "20240101000000_older.up.sql",
        "was not applied, though a later one was",
        "notes.sql",
        "20300101000000_a.up.sql:1:1",
        "`\\connect other` is a command of psql",
        "`COPY … FROM stdin` takes its rows",
        "20300101000002_c.up.sql:2:1",
        "`COMMIT` would end the transaction",
        "`CONCURRENTLY` cannot run in a transaction",
    ] {
        assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
    }
    checkout.run(&["migrate", "check", "learning"]).exits(3).says("has been edited since");
    checkout.run(&["migrate", "repair", "learning"]).ok().says("20251110090000");
    checkout.run(&["migrate", "check", "learning"]).ok();
    checkout.run(&["migrate", "learning"]).ok().says("nothing to do");
    // A gap is filled on demand.
    write(&checkout, &format!("{LEARNING}/20240101000000_older.sql"), "CREATE TABLE older (id int);\n");
    checkout.run(&["migrate", "learning"]).exits(1).says("--fill-gaps");
    checkout.run(&["migrate", "learning", "--fill-gaps"]).ok().says("1 migration");
    // One without a way back stops a revert before anything runs.
    let count = checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations");
    checkout.run(&["migrate", "revert", "learning", "--to", "0", "--yes"]).exits(1).says("has no `.down.sql` file");
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations"), count);
}

#[test]
fn a_new_migration_has_two_files_and_a_version_above_all() {
    let checkout = Checkout::new();
    let ran = checkout.run(&["migrate", "new", "learning", "Add mood to sessions!"]).ok();
    let paths: Vec<&str> = ran.out.lines().collect();
    assert!(
        paths[0].ends_with("_add_mood_to_sessions.up.sql") && paths[1].ends_with("_add_mood_to_sessions.down.sql"),
        "{}",
        ran.out
    );
    let first = paths[0].rsplit('/').next().unwrap()[..14].parse::<i64>().unwrap();
    let again = checkout.run(&["migrate", "new", "learning", "more"]).ok();
    assert!(again.out.rsplit('/').next().unwrap()[..14].parse::<i64>().unwrap() > first);
    checkout.run(&["migrate", "new", "lerning", "x"]).exits(2).says("did you mean `learning`?");
    checkout.run(&["migrate", "new", "learning", "!"]).exits(2);
}
