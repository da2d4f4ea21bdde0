//! `migrate plan --rehearse`: what would happen, found out on a copy.

use super::{LEARNING, up, url, write};
use crate::support::{finish, signal, wait_until};

#[test]
fn a_rehearsal_tells_what_would_happen_and_touches_a_copy_only() {
    let checkout = up(&["learning"]);
    checkout.run(&["migrate", "learning"]).ok();
    checkout.sql("learning", "CREATE TABLE words (id int, word text); INSERT INTO words SELECT g, nullif('w' || g, 'w7') FROM generate_series(1, 1000) g");
    write(
        &checkout,
        &format!("{LEARNING}/20300101000000_a.up.sql"),
        "ALTER TABLE words ALTER id TYPE bigint;\nUPDATE words SET word = upper(word) WHERE id < 5;\n",
    );
    write(
        &checkout,
        &format!("{LEARNING}/20300101000001_b.up.sql"),
        "-- no-transaction\nCREATE INDEX CONCURRENTLY by_word ON words (word);\n",
    );
    checkout
        .run(&["migrate", "plan", "learning", "--rehearse"])
        .ok()
        .says("words: ACCESS EXCLUSIVE")
        .says("rewrites  words")
        .says("rows      words: 4")
        .says("outside of a transaction");
    write(
        &checkout,
        &format!("{LEARNING}/20300101000002_c.up.sql"),
        "SELECT 1;\nALTER TABLE words ALTER word SET NOT NULL;\n",
    );
    let ran = checkout
        .run(&["migrate", "plan", "learning", "--rehearse"])
        .exits(1)
        .says("would fail; only a copy was touched");
    assert!(ran.err.contains("rows of \"words\" that it fails for: 1, such as\n      (7,)"), "{}", ran.err);
    write(
        &checkout,
        &format!("{LEARNING}/20300101000002_c.up.sql"),
        "ALTER TABLE words ADD CONSTRAINT long CHECK (length(word) > 3);\n",
    );
    checkout
        .run(&["migrate", "plan", "learning", "--rehearse"])
        .exits(1)
        .says("rows of \"words\" that it fails for: 98, such as");
    let copies = "SELECT count(*) FROM pg_database WHERE datname LIKE 'xtask_rehearsal%'";
    assert_eq!(checkout.sql("learning", copies), "0");
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations"), "4");
    // Interrupted, the copy goes away as well; killed, the next rehearsal removes it.
    write(&checkout, &format!("{LEARNING}/20300101000002_c.up.sql"), "SELECT pg_sleep(20);\n");
    for (name, left) in [("INT", "0"), ("KILL", "1")] {
        let rehearsal = checkout.spawn(&["migrate", "plan", "learning", "--rehearse"]);
        wait_until("it is at work", || {
            checkout.sql("learning", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
        });
        signal(i32::try_from(rehearsal.id()).unwrap(), name);
        finish(rehearsal);
        assert_eq!(checkout.sql("learning", copies), left, "after {name}");
    }
    write(&checkout, &format!("{LEARNING}/20300101000002_c.up.sql"), "SELECT 1;\n");
    checkout.run(&["migrate", "plan", "learning", "--rehearse"]).ok();
    assert_eq!(checkout.sql("learning", copies), "0");
    // Somebody else is in the database.
    let url = url(&checkout, "learning");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connection = runtime
        .block_on(<sqlx_postgres::PgConnection as sqlx_core::connection::Connection>::connect(&format!(
            "{url}?application_name=a-service"
        )))
        .unwrap();
    checkout.run(&["migrate", "plan", "learning", "--rehearse"]).exits(1).says("is in use").says("a-service (pid ");
    drop(connection);
}
