//! `migrate`: the set or nothing, with real servers; histories that sqlx itself reads and writes.

use std::fs;

use crate::support::Checkout;

const LEARNING: &str = "config/effect/learning/migrations";

/// A checkout with `databases` running and not migrated.
fn up(databases: &[&str]) -> Checkout {
    let checkout = Checkout::new();
    let mut arguments = vec!["up", "--no-migrate"];
    arguments.extend(databases);
    checkout.run(&arguments).ok();
    checkout
}

fn write(checkout: &Checkout, path: &str, text: &str) {
    fs::write(checkout.root.join(path), text).unwrap();
}

#[test]
fn the_whole_set_from_empty_once_and_again() {
    let checkout = Checkout::new();
    let ran = checkout.run(&["up", "--without", "pubsub"]).ok().says("5 migrations");
    assert!(ran.err.contains("4 migrations"), "{}", ran.err);
    checkout.run(&["up", "--without", "pubsub"]).ok().says("unchanged");
    checkout.run(&["migrate"]).ok().says("8 databases, nothing to do");
    checkout.run(&["migrate", "check"]).ok().says("is as its migrations say: 8 databases");
    checkout.run(&["migrate", "status"]).ok().says("5 applied");
    checkout.run(&["migrate", "revert", "--to", "0"]).exits(4).says("nobody is there to ask");
    checkout.run(&["migrate", "revert", "--to", "0", "--yes"]).ok().says("8 databases");
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations"), "0");
    assert_eq!(checkout.sql("learning", "SELECT to_regclass('learning_sessions') IS NULL"), "t");
    checkout.run(&["migrate", "check"]).exits(3).says("pending migrations");
    checkout.run(&["migrate"]).ok().says("8 databases");
    checkout.run(&["migrate", "check"]).ok();
}

#[test]
fn one_that_fails_leaves_all_as_they_were() {
    let checkout = up(&["learning", "user"]);
    write(
        &checkout,
        "config/effect/user/migrations/20300101000000_bad.up.sql",
        "CREATE TABLE ok (id int);\n\nCREATE TABLE bad (\n  id int,\n  interval_days INTEGR NOT NULL\n);\n",
    );
    let ran = checkout.run(&["migrate", "learning", "user"]).exits(1);
    let expected = "  config/effect/user/migrations/20300101000000_bad.up.sql:5:17\n    5 |   interval_days INTEGR NOT NULL\n      |                 ^^^^^^ type \"integr\" does not exist\n";
    assert!(ran.err.contains(expected), "{}", ran.err);
    assert!(
        ran.err.contains("migration 20300101000000 of `user` failed, nothing was changed in any of the 2 databases")
    );
    for database in ["learning", "user"] {
        assert_eq!(
            checkout.sql(database, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"),
            "0"
        );
    }
    // By itself, the other one goes through.
    let ran = checkout.run(&["migrate", "--each", "learning", "user"]).exits(1);
    assert!(ran.err.contains("1 of 2 databases failed; migrated: learning"), "{}", ran.err);
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations"), "4");
    assert_eq!(checkout.sql("user", "SELECT to_regclass('_sqlx_migrations') IS NULL"), "t");
    // Servers stay, `up` says what is wrong.
    let ran = checkout.run(&["up", "learning", "user"]).exits(1).says("2 services ready");
    assert!(ran.err.contains("type \"integr\" does not exist"), "{}", ran.err);
    assert_eq!(checkout.servers().len(), 2);
}

#[test]
fn an_error_without_a_place_names_its_statement() {
    let checkout = up(&["learning"]);
    let path = format!("{LEARNING}/20300101000000_bad.up.sql");
    write(
        &checkout,
        &path,
        "CREATE TABLE a (id int UNIQUE);\nINSERT INTO a VALUES (1);\n-- again\nINSERT INTO a\nVALUES (1);\n",
    );
    let ran = checkout.run(&["migrate", "learning"]).exits(1).says("20300101000000_bad.up.sql:4:1");
    assert!(ran.err.contains("    4 | INSERT INTO a\n      | ^^^^^^^^^^^^^ duplicate key"), "{}", ran.err);
    assert!(ran.err.contains("Key (id)=(1) already exists."), "{}", ran.err);
    // What COMMIT would check is told by step as well.
    write(
        &checkout,
        &path,
        "CREATE TABLE a (id int UNIQUE, b int REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO a VALUES (1, 2);\n",
    );
    checkout.run(&["migrate", "learning"]).exits(1).says("20300101000000_bad.up.sql").says("violates foreign key");
    // A place inside a function's body.
    write(&checkout, &path, "SELECT 'größe';\nDO $$ BEGIN\n  PERFORM nothing_there();\nEND $$;\n");
    checkout.run(&["migrate", "learning"]).exits(1).says("20300101000000_bad.up.sql:2:1").says("line 2 at PERFORM");
    write(&checkout, &path, "SELECT 'größe' AS a,\n  b;\n");
    checkout
        .run(&["migrate", "learning"])
        .exits(1)
        .says("20300101000000_bad.up.sql:2:3")
        .says("column \"b\" does not exist");
}
