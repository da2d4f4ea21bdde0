//! Backups and restores while others are at work: writers, clients, other verbs of the helper.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{REPLACED, beside, fill, latest, listed, people, rows};
use crate::support::{Checkout, finish, pid_of, ran, signal, wait_until};

/// A client that stays until it is ended, under a name of its own.
fn client(checkout: &Checkout, database: &str) -> Child {
    let mut psql =
        checkout.command(&["psql", database, "-Xqc", "SET application_name = 'a service'; SELECT pg_sleep(600)"]);
    psql.env("PGAPPNAME", "a service").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let child = psql.spawn().unwrap();
    let there = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND datname = '{database}_db' \
        AND pid <> pg_backend_pid()"
    );
    wait_until("the client is there", || checkout.sql(database, &there) == "1");
    child
}

fn end(mut client: Child) {
    signal(pid_of(&client), "KILL");
    client.wait().unwrap();
}

/// Money moves between accounts while backups are taken: in each of them there is as much as ever, with a line for every move.
#[test]
fn a_backup_under_writers_is_one_moment() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "user"]).ok();
    for database in ["learning", "user"] {
        checkout.sql(
            database,
            "CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL); \
             INSERT INTO accounts SELECT id, 100 FROM generate_series(1, 500) AS id; \
             CREATE TABLE moves (id bigserial, from_account integer, to_account integer, amount integer, passing text); \
             CREATE PROCEDURE move_on(seed integer) LANGUAGE plpgsql AS $$ DECLARE one integer; other integer; BEGIN \
             PERFORM setseed(seed / 100.0); FOR round IN 1..1000000 LOOP \
             one := 1 + floor(random() * 500); other := 1 + floor(random() * 500); \
             UPDATE accounts SET balance = balance + CASE id WHEN one THEN -1 ELSE 1 END WHERE id IN (one, other) AND one <> other; \
             INSERT INTO moves (from_account, to_account, amount, passing) SELECT one, other, 1, repeat('x', round % 900) \
             WHERE one <> other; DELETE FROM moves WHERE id = round AND round % 3 = 0; COMMIT; END LOOP; END $$",
        );
    }
    let call = |database: &str, seed: u32| {
        let mut psql = checkout.command(&["psql", database, "-Xqc", &format!("CALL move_on({seed})")]);
        psql.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    // Two in one database lock the same rows in different order; who loses, ends.
    let writers = [call("learning", 1), call("learning", 2), call("user", 3)];
    wait_until("they write", || checkout.sql("learning", "SELECT count(*) > 200 FROM moves") == "t");
    for _ in 0..3 {
        checkout.run(&["backup", "learning", "user"]).ok().says("in one cut");
        // The live databases have moved on, and what was backed up is what comes back.
        checkout.run(&["backup", "verify", "--restore"]).ok().says("restored, and the same");
    }
    let moved = || checkout.sql("learning", "SELECT count(*) FROM moves").parse::<u64>().unwrap();
    let before = moved();
    wait_until("they still write", || moved() != before);
    checkout.run(&["restore", "learning", "--force"]).ok();
    writers.into_iter().for_each(end);
    checkout.run(&["restore", "user", "--force"]).ok();
    for database in ["learning", "user"] {
        assert_eq!(checkout.sql(database, "SELECT sum(balance) FROM accounts"), "50000");
    }
    let shown = checkout.run(&["backup", "show", "learning", "--json"]).ok().json();
    assert!(shown["set"]["skew_micros"].as_u64().unwrap() < 10_000_000, "{}", shown["set"]);
}

#[test]
fn whoever_is_connected_is_named_and_cut_only_with_force() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "user"]).ok();
    fill(&checkout, 2000);
    let backed_up = people(&checkout);
    checkout.run(&["backup", "learning"]).ok();
    checkout.sql("learning", "DELETE FROM people WHERE id > 5");
    let live = people(&checkout);
    // Clients of another database are in nobody's way.
    let (here, elsewhere) = (client(&checkout, "learning"), client(&checkout, "user"));
    let refused = checkout.run(&["restore", "learning"]).exits(4).says("in use by 1 client").says("--force");
    assert!(refused.err.contains("pid ") && refused.err.contains("user effect"), "{}", refused.err);
    assert_eq!(people(&checkout), live);
    checkout.run(&["restore", "learning", "--force"]).ok();
    assert_eq!(rows(&people(&checkout)), rows(&backed_up));
    assert_ne!(finish(here).code, Some(0), "it was cut");
    let here = client(&checkout, "learning");
    checkout.run(&["restore", "learning", "--undo"]).exits(4).says("in use by 1 client");
    checkout.run(&["restore", "learning", "--undo", "--force"]).ok();
    assert_eq!(people(&checkout), live);
    assert!(!finish(here).err.contains("panicked"));
    end(elsewhere);
}

/// Pools connect again at once, all the time.
#[test]
fn clients_that_come_back_all_the_time_do_not_keep_a_restore_from_being_swapped() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    fill(&checkout, 2000);
    let backed_up = people(&checkout);
    checkout.run(&["backup", "learning"]).ok();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    ran(checkout.command(&[
                        "psql",
                        "learning",
                        "-XAtqc",
                        "SELECT count(*), pg_sleep(0.05) FROM people",
                    ]));
                }
            });
        }
        for round in 0..4 {
            let verb: &[&str] =
                if round % 2 == 0 { &["restore", "learning"] } else { &["restore", "learning", "--undo"] };
            let swapped = checkout.run(&[verb, &["--force"]].concat());
            if swapped.code != Some(0) {
                is_over.store(true, Ordering::Relaxed);
                swapped.ok();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(rows(&people(&checkout)), rows(&backed_up));
    assert_eq!(beside(&checkout, REPLACED).split(' ').count(), 2);
}

#[test]
fn verbs_that_meet_wait_for_each_other() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    fill(&checkout, 20_000);
    let backups = [checkout.spawn(&["backup", "learning"]), checkout.spawn(&["backup", "learning"])].map(finish);
    backups.into_iter().for_each(|ran| drop(ran.ok()));
    assert_eq!(listed(&checkout).len(), 2, "each has its own");
    checkout.run(&["backup", "verify", "--every"]).ok();
    // A migration that takes its time, and a backup in the middle of it.
    std::fs::write(
        checkout.root.join("config/effect/learning/migrations/20990101000000_slow.sql"),
        "ALTER TABLE people ADD COLUMN slow integer; SELECT pg_sleep(1); UPDATE people SET slow = id;",
    )
    .unwrap();
    let migrate = checkout.spawn(&["migrate", "learning"]);
    let lock = checkout.root.join(".xtask/effect/lock");
    wait_until("it is at work", || std::fs::read_to_string(&lock).unwrap().contains("xtask migrate learning"));
    checkout.run(&["backup", "learning"]).ok();
    finish(migrate).ok();
    let shown = checkout.run(&["backup", "show", "learning", "--json"]).ok().json();
    let versions = shown["subject"]["database"]["migrations"][0]["versions"].as_array().unwrap();
    assert_eq!(versions.last().unwrap(), 20_990_101_000_000u64, "{}", latest(&checkout, "learning").display());
    checkout.run(&["backup", "verify", "learning", "--restore"]).ok();
}
