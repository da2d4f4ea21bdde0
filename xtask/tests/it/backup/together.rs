//! Several databases and Redis replaced by one restore: all of them or none, and back together, without what another restore
//! has replaced.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use super::{REPLACED, SIDES, beside, fill, people};
use crate::support::{Checkout, Engine, on_both_engines, wait_until};

on_both_engines! {
    a_set_is_restored_as_a_whole_or_not_at_all
    the_way_back_is_that_of_the_latest_restore_alone
}

/// Two databases and Redis, changed since the backup whose name this gives. It lies beside the checkout.
fn changed_since_a_backup(checkout: &Checkout) -> String {
    checkout.run(&["up", "learning", "user", "redis"]).ok();
    fill(checkout, 200);
    checkout.sql("user", "CREATE TABLE mark AS SELECT 'then' AS said");
    checkout.run(&["redis-cli", "SET", "mark", "then"]).ok();
    let taken = checkout.run(&["backup", "--to", "../keep", "--json"]).ok().json();
    checkout.sql("learning", "DELETE FROM people WHERE id > 5");
    say(checkout, "now");
    taken["backups"][0]["manifest"]["backup"].as_str().unwrap().to_owned()
}

fn say(checkout: &Checkout, word: &str) {
    checkout.sql("user", &format!("UPDATE mark SET said = '{word}'"));
    checkout.run(&["redis-cli", "SET", "mark", word]).ok();
}

#[track_caller]
fn assert_says(checkout: &Checkout, word: &str) {
    assert_eq!(checkout.sql("user", "SELECT said FROM mark"), word);
    checkout.run(&["redis-cli", "GET", "mark"]).ok().says(word);
}

fn a_set_is_restored_as_a_whole_or_not_at_all(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    let set = changed_since_a_backup(&checkout);
    let live = people(&checkout);
    let restore = || checkout.run(&["restore", "--all", &set, "--at", "../keep"]);
    let assert_as_before = || {
        assert_eq!(people(&checkout), live);
        assert_says(&checkout, "now");
        for like in [SIDES, REPLACED] {
            assert_eq!(beside(&checkout, like), "");
        }
        checkout.run(&["restore", "--all", "--undo"]).ok().says("nothing to go back to");
    };
    // What Redis has cannot be kept.
    let in_the_way = checkout.root.join("backups/effect/redis");
    fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    fs::write(&in_the_way, "").unwrap();
    restore().exits(1).says("what `redis` has could not be kept, nothing was changed");
    fs::remove_file(&in_the_way).unwrap();
    assert_as_before();
    // It takes nothing over, once the databases are swapped.
    checkout.run(&["redis-cli", "ACL", "SETUSER", "default", "-replicaof"]).ok();
    restore().exits(1).says("2 databases swapped back, and as before").says("redis was not restored, and is as it was");
    checkout.run(&["redis-cli", "ACL", "SETUSER", "default", "+replicaof"]).ok();
    assert_as_before();
    if engine == Engine::Native {
        // A standby is cut by nobody, so the second database cannot be swapped.
        let mut standby = checkout.command(&["psql", "user", "dbname=user_db replication=database"]);
        let mut standby = standby.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let there = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = 'user_db'";
        wait_until("the standby is there", || checkout.sql("user", there) == "1");
        restore().exits(1).says("1 database swapped back, and as before").says("cannot swap the databases of `user`");
        drop(standby.stdin.take());
        standby.wait().unwrap();
        assert_as_before();
    }
    restore().ok();
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM people"), "200");
    assert_says(&checkout, "then");
}

/// On Monday one database is restored, and on Friday the others.
fn the_way_back_is_that_of_the_latest_restore_alone(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    changed_since_a_backup(&checkout);
    checkout.run(&["restore", "learning", "--at", "../keep"]).ok();
    let monday = people(&checkout);
    let taken = checkout.run(&["backup", "user", "redis", "--json"]).ok().json();
    let set = taken["backups"][0]["manifest"]["backup"].as_str().unwrap();
    say(&checkout, "later");
    checkout.run(&["restore", "--all", set]).ok();
    assert_says(&checkout, "now");
    for word in ["later", "now", "later"] {
        let undone = checkout.run(&["restore", "--all", "--undo", "--json"]).ok();
        undone.says("1 database and redis swapped back").says("untouched: learning");
        assert_says(&checkout, word);
        assert_eq!(people(&checkout), monday, "another restore's");
    }
    checkout.run(&["restore", "learning", "--undo"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM people"), "5");
    let undone = checkout.run(&["restore", "--all", "--undo", "--json"]).ok().json();
    assert_eq!((&undone["undone"][0]["name"], &undone["untouched"]), (&json!("learning"), &json!(["user", "redis"])));
    assert_says(&checkout, "later");
}
