//! `migrate`: the catalog that the last run left, and what else lives in it.

use super::{LEARNING, up, write};

#[test]
fn alterations_by_hand_have_names() {
    let checkout = up(&["learning"]);
    checkout.run(&["migrate", "learning"]).ok();
    checkout.sql("learning", "ALTER TABLE learning_sessions ADD COLUMN mood text NOT NULL DEFAULT 'well'");
    checkout.sql("learning", "CREATE INDEX by_mood ON learning_sessions (mood)");
    checkout.sql("learning", "DROP TABLE session_answers");
    for made in [
        "CREATE TYPE mood AS ENUM ('bad', 'good')",
        "ALTER TYPE mood ADD VALUE 'fair' BEFORE 'good'",
        "CREATE DOMAIN even AS int CONSTRAINT is_even CHECK (value % 2 = 0)",
        "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'",
        "CREATE SCHEMA aside CREATE VIEW one AS SELECT 1 AS one",
        "COMMENT ON COLUMN learning_sessions.mood IS 'how it was'",
    ] {
        checkout.sql("learning", made);
    }
    let ran = checkout.run(&["migrate", "check", "learning"]).exits(3);
    for part in [
        "column learning_sessions.mood was added: text not null default 'well'::text -- how it was",
        "type mood was added: e 'bad', 'fair', 'good'",
        "type even was added: d integer is_even CHECK ((VALUE % 2) = 0)",
        "function twice(n integer) was added: f sql i f f integer SELECT 2 * n",
        "view aside.one was added: v p  SELECT 1 AS one;",
        "index learning_sessions.by_mood was added: CREATE INDEX by_mood ON learning_sessions USING btree (mood)",
        "table session_answers was dropped",
    ] {
        assert!(ran.out.contains(part), "no {part:?} in {}", ran.out);
    }
    // A migration that comes after it does not hide it.
    write(&checkout, &format!("{LEARNING}/20300101000000_a.up.sql"), "CREATE TABLE a (id int);\n");
    checkout.run(&["migrate", "learning"]).ok();
    let ran = checkout.run(&["migrate", "check", "learning", "--json"]).exits(3).json();
    let objects: Vec<&str> =
        ran["drift"]["learning"].as_array().unwrap().iter().map(|one| one["object"].as_str().unwrap()).collect();
    assert!(objects.contains(&"column learning_sessions.mood") && !objects.contains(&"table a"), "{objects:?}");
    checkout.run(&["migrate", "repair", "learning", "--catalog"]).ok();
    checkout.run(&["migrate", "check", "learning"]).ok();
    // As a helper of later years may have recorded it.
    checkout
        .sql("learning", "UPDATE _xtask_migrations SET text = '{\"later\": [1]}' WHERE history = '' AND version = 1");
    checkout.run(&["migrate", "check", "learning"]).exits(1).says("cannot be read").says("migrate repair --catalog");
    checkout.run(&["migrate", "repair", "learning", "--catalog"]).ok().says("its catalog is recorded as it is");
    checkout.run(&["migrate", "check", "learning"]).ok();
}

/// Nothing may be deleted from a published table whose rows are known by nothing.
#[test]
fn databases_that_publish_all_their_tables_are_migrated() {
    let checkout = up(&["learning"]);
    checkout.run(&["migrate", "learning"]).ok();
    checkout.sql("learning", "CREATE PUBLICATION everything FOR ALL TABLES");
    write(&checkout, &format!("{LEARNING}/20300101000000_a.up.sql"), "CREATE TABLE a (id int);\n");
    write(&checkout, &format!("{LEARNING}/20300101000000_a.down.sql"), "DROP TABLE a;\n");
    checkout.run(&["migrate", "learning"]).ok().says("1 migration");
    checkout.run(&["migrate", "revert", "learning", "--yes"]).ok();
    checkout.run(&["migrate", "check", "learning"]).exits(3).silent_about("differs");
}
