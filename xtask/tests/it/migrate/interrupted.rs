//! `migrate` when it is not alone or does not come to its end: others at the same time, kills, dead servers, full disks.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::sqlx::sqlx_migrates;
use super::{LEARNING, up, url, write};
use crate::support::{SmallDisk, finish, is_root, pid_of, signal, skip, wait_until};

#[test]
fn several_at_once_from_shells_and_a_service() {
    let checkout = up(&["learning", "user"]);
    write(
        &checkout,
        &format!("{LEARNING}/20300101000000_slow.up.sql"),
        "SELECT pg_sleep(0.7);\nCREATE TABLE slow (id int);\n",
    );
    let learning = url(&checkout, "learning");
    let folder = checkout.root.join(LEARNING);
    let both = [checkout.spawn(&["migrate", "learning", "user"]), checkout.spawn(&["migrate", "learning", "user"])];
    let services: Vec<_> = (0..2)
        .map(|_| {
            let (url, folder) = (learning.clone(), folder.clone());
            std::thread::spawn(move || sqlx_migrates(&url, &folder, "_sqlx_migrations"))
        })
        .collect();
    for child in both {
        finish(child).ok();
    }
    for service in services {
        service.join().unwrap().unwrap();
    }
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations"), "5");
    assert_eq!(checkout.sql("user", "SELECT count(*) FROM _sqlx_migrations"), "4");
    checkout.run(&["migrate", "check", "learning", "user"]).ok();
}

#[test]
fn who_holds_the_lock_is_told() {
    let checkout = up(&["learning"]);
    // It ends when it is let.
    let statement = "SELECT pg_advisory_xact_lock(4711);\n";
    write(&checkout, &format!("{LEARNING}/20300101000000_slow.up.sql"), statement);
    let mut holder = checkout.session("learning");
    holder.say("SELECT pg_advisory_lock(4711);");
    let learning = url(&checkout, "learning");
    let folder = checkout.root.join(LEARNING);
    let service = std::thread::spawn(move || {
        sqlx_migrates(&format!("{learning}?application_name=learning-service"), &folder, "_sqlx_migrations")
    });
    wait_until("sqlx is at work", || {
        checkout.sql(
            "learning",
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'learning-service' AND wait_event = 'advisory'",
        ) == "1"
    });
    checkout
        .run(&["migrate", "learning", "--lock-timeout-secs", "1"])
        .exits(1)
        .says("`learning` is being migrated by learning-service (pid ")
        .says("nothing was changed");
    let mut waiting = checkout.watch(&["migrate", "learning"]);
    waiting.wait_for("waiting for learning-service (pid ");
    holder.end();
    waiting.finish().ok().says("nothing to do");
    service.join().unwrap().unwrap();
}

/// A database that is done waits for the others, and a server may have been told to end whoever waits.
#[test]
fn who_waits_for_a_slow_database_is_not_ended() {
    let checkout = up(&["learning", "user"]);
    for limit in ["idle_in_transaction_session_timeout", "idle_session_timeout"] {
        checkout.sql("user", &format!("ALTER DATABASE user_db SET {limit} = '100ms'"));
    }
    write(
        &checkout,
        &format!("{LEARNING}/20300101000000_slow.up.sql"),
        "-- no-transaction\nSELECT pg_sleep(0.5);\nCREATE TABLE slow (id int);\n",
    );
    checkout.run(&["migrate", "learning", "user"]).ok();
    checkout.run(&["migrate", "check", "learning", "user"]).ok();
    assert_eq!(checkout.sql("user", "SELECT count(*) FROM _sqlx_migrations"), "4");
}

#[test]
fn killed_at_any_moment_the_next_run_goes_on() {
    let checkout = up(&["learning", "user"]);
    write(
        &checkout,
        &format!("{LEARNING}/20300101000000_slow.up.sql"),
        "SELECT pg_sleep(0.05);\nCREATE TABLE slow (id int);\n",
    );
    write(&checkout, &format!("{LEARNING}/20300101000000_slow.down.sql"), "DROP TABLE slow;\n");
    let working =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cargo xtask' AND pid <> pg_backend_pid()";
    for round in 0..20 {
        let migrate = checkout.spawn(&["migrate", "learning", "user"]);
        std::thread::sleep(std::time::Duration::from_millis(10 * round));
        let name = ["KILL", "KILL", "INT"][round as usize % 3];
        signal(pid_of(&migrate), name);
        finish(migrate);
        // Its servers may still be at what it said last.
        for database in ["learning", "user"] {
            wait_until("the killed run's work is over", || checkout.sql(database, working) == "0");
        }
        let status = checkout.run(&["migrate", "status", "learning", "user", "--json"]).ok().json();
        let applied = status["databases"].as_array().unwrap().iter().map(|database| {
            let migrations = database["migrations"].as_array().unwrap();
            migrations.iter().filter(|migration| migration["state"] == "applied").count()
        });
        let applied: Vec<usize> = applied.collect();
        // One killed between one COMMIT and the next parts them, but no database is half done.
        let is_whole = |index: usize, all: usize| applied[index] == 0 || applied[index] == all;
        let is_together = applied == [0, 0] || applied == [5, 4];
        let is_right = is_together || name == "KILL" && is_whole(0, 5) && is_whole(1, 4);
        assert!(is_right, "{name} in round {round}: {applied:?}");
        checkout.run(&["migrate", "learning", "user"]).ok();
        checkout.run(&["migrate", "check", "learning", "user"]).ok();
        checkout.run(&["migrate", "revert", "learning", "user", "--to", "0", "--yes"]).ok();
    }
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_the_set_as_it_was() {
    let checkout = up(&["learning", "user"]);
    let slow = format!("{LEARNING}/20300101000000_slow.up.sql");
    write(&checkout, &slow, "SELECT pg_sleep(20);\n");
    let migrate = checkout.spawn(&["migrate", "learning", "user"]);
    wait_until("it is at work", || {
        checkout.sql("learning", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
    });
    signal(checkout.pid("learning"), "KILL");
    finish(migrate).exits(1).says("`learning` went away while it was being migrated");
    assert_eq!(checkout.sql("user", "SELECT to_regclass('users') IS NULL"), "t");
    write(&checkout, &slow, "SELECT 1;\n");
    wait_until("it can be started again", || checkout.run(&["up", "learning", "user"]).code == Some(0));
    checkout.run(&["migrate", "check", "learning", "user"]).ok();
}

#[test]
fn a_full_disk_changes_nothing_and_the_next_run_goes_on() {
    if !is_root() {
        return skip("only root can mount a small disk");
    }
    let checkout = up(&["learning"]);
    // Below one service, before its first start.
    let folder = checkout.data_folder("effect").join("user");
    fs::create_dir(&folder).unwrap();
    let disk = SmallDisk::mount(&folder, "88m");
    let owner = fs::metadata(checkout.record_path("learning")).unwrap().uid();
    std::os::unix::fs::chown(&folder, Some(owner), None).unwrap();
    checkout.run(&["up", "user", "--no-migrate"]).ok();
    checkout.run(&["migrate", "user"]).ok();
    let big = "config/effect/user/migrations/20300101000000_big.up.sql";
    let rows = |count: u32| format!("SELECT repeat('x', 1000) AS text FROM generate_series(1, {count})");
    // Without a write-ahead log it is the table that finds no space; with one it may be the server itself, which then ends.
    for (table, places) in [
        ("UNLOGGED TABLE", &["20300101000000_big.up.sql:1:1", "No space left on device"][..]),
        ("TABLE", &["nothing was changed", "went away", "No space left"][..]),
    ] {
        write(&checkout, big, &format!("CREATE {table} big AS {};\n", rows(100_000)));
        let ran = checkout.run(&["migrate", "learning", "user"]).exits(1);
        let said = places.iter().filter(|place| ran.err.contains(**place)).count();
        assert!(said == places.len() || table == "TABLE" && said > 0, "{}", ran.err);
        assert_eq!(checkout.sql("learning", "SELECT to_regclass('_sqlx_migrations') IS NULL"), "t");
    }
    disk.grow("500m");
    wait_until("its server is back", || checkout.run(&["up", "user", "learning", "--no-migrate"]).code == Some(0));
    assert_eq!(checkout.sql("user", "SELECT count(*), to_regclass('big') IS NULL FROM _sqlx_migrations"), "4|t");
    checkout.run(&["migrate", "learning", "user"]).ok().says("20300101000000 big");
    // As for seeds: all of the set or nothing.
    for database in ["user", "learning"] {
        let folder = checkout.root.join(format!("config/effect/{database}/seeds"));
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir_all(&folder).unwrap();
    }
    let few = "CREATE TABLE few AS SELECT 1 AS id;\n";
    write(&checkout, "config/effect/learning/seeds/0001_few.sql", few);
    let seed = |count| {
        let text = format!("CREATE UNLOGGED TABLE bigger AS {};\n", rows(count));
        write(&checkout, "config/effect/user/seeds/0001_big.sql", &text);
        checkout.run(&["seed", "learning", "user"])
    };
    seed(600_000).exits(1).says("No space left on device").says("nothing was changed in any of the 2 databases");
    assert_eq!(checkout.sql("learning", "SELECT to_regclass('few') IS NULL"), "t");
    seed(1_000).ok();
    checkout.run(&["down"]).ok();
}
