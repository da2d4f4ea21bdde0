//! Seeds: all databases or none, once, and again only when asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Checkout, finish, repository, signal, wait_until};

const ALL: [&str; 8] = ["event-store", "learning", "vocabulary", "user", "progress", "algorithm", "ai", "saga"];

/// Databases that run, with the tables of their migrations.
fn running(databases: &[&str]) -> Checkout {
    let checkout = Checkout::new();
    checkout.run(&[&["up"], databases].concat()).ok();
    checkout
}

/// Puts these files in place of a database's seeds.
pub fn seeds(checkout: &Checkout, database: &str, files: &[(&str, &str)]) {
    let folder = checkout.root.join(format!("config/effect/{database}/seeds"));
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
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

    checkout.run(&["seed"]).ok().says("effect is seeded at scale 1: 8 databases, unchanged");

    // What no server can enforce holds over all of them.
    let checked = checkout.run(&["check", "references", "--json"]).ok().says("20 references and 5 checks hold").json();
    let references = checked["references"].as_array().unwrap();
    assert!(references.iter().all(|one| one["orphans"] == 0 && one["values"].as_u64() > Some(0)), "{references:#?}");
    let checks = checked["checks"].as_array().unwrap();
    assert!(checks.iter().any(|one| one["name"] == "daily_progress" && one["rows"] == 578), "{checks:#?}");

    // And what does not hold is found, with its example.
    let nobody = "00000000-0000-0000-0000-00000000dead";
    checkout.sql(
        "ai",
        &format!(
            "UPDATE chat_sessions SET user_id = '{nobody}' WHERE id = (SELECT min(id::text)::uuid FROM chat_sessions)"
        ),
    );
    checkout.sql("progress", "UPDATE daily_progress SET response_ms = response_ms + 1 WHERE (user_id, day) = (SELECT user_id, day FROM daily_progress ORDER BY 1, 2 LIMIT 1)");
    checkout.sql("event-store", "ALTER TABLE events DISABLE TRIGGER ALL; DELETE FROM events WHERE position = (SELECT position FROM events WHERE event_type = 'SessionStarted' LIMIT 1)");
    checkout.replace(
        "config/effect.toml",
        "\"generation_tasks.user_id\" = \"user.users.id\"",
        "\"generation_task.user_id\" = \"user.users.ident\"",
    );
    let found = checkout.run(&["check", "references"]).exits(3);
    for text in [
        nobody,
        "1 orphan",
        "did you mean `generation_tasks`?",
        "`user.users` has no column `ident`",
        "1 row only in progress",
    ] {
        assert!(found.out.contains(text), "no {text:?} in\n{}", found.out);
    }
    let found = checkout.run(&["check", "references", "--json"]).exits(3).json();
    let gaps = found["checks"].as_array().unwrap().iter().find(|one| one["name"] == "stream_gaps").unwrap();
    assert_eq!(gaps["wrong"][0]["rows"], 1, "{gaps:#}");
    // What a server says is told once, without the place in its source.
    checkout.sql("progress", "ALTER TABLE user_progress RENAME TO other");
    let found = checkout.run(&["check", "references"]).exits(3);
    let said = "user_progress.progress.sql: the server says: relation \"user_progress\" does not exist\n";
    assert!(found.out.contains(said), "no {said:?} in\n{}", found.out);
}

/// Two databases with one table each, and seeds for it.
fn two() -> Checkout {
    let checkout = Checkout::new();
    checkout.run(&["up", "user", "ai", "--no-migrate"]).ok();
    for database in ["user", "ai"] {
        checkout.sql(database, "CREATE TABLE person (id integer PRIMARY KEY, name text)");
        seeds(
            &checkout,
            database,
            &[
                (
                    "0001_people.sql",
                    "INSERT INTO person SELECT n, 'p' || n FROM generate_series(1, 10 * current_setting('xtask.scale')::integer) AS n;",
                ),
                ("0002_person.csv", "id,name\n-1,\\N\n-2,\"a, b\nc\"\n"),
            ],
        );
    }
    checkout
}

fn people(checkout: &Checkout, database: &str) -> String {
    checkout.sql(database, "SELECT count(*), count(name) FROM person")
}

#[test]
fn a_changed_file_or_scale_is_told_and_done_again_only_when_agreed() {
    let checkout = two();
    checkout.run(&["seed", "--dry-run", "user", "ai"]).ok().says("fill");
    checkout.run(&["seed", "user", "ai"]).ok().says("2 databases seeded: 24 rows");
    assert_eq!(people(&checkout, "user"), "12|11");
    checkout.run(&["seed", "user", "ai"]).ok().says("effect is seeded at scale 1: 2 databases, unchanged");
    assert_eq!(
        checkout.sql("user", "SELECT string_agg(file || ' ' || rows, ', ' ORDER BY file) FROM _xtask_seeds"),
        "0001_people.sql 10, 0002_person.csv 2"
    );

    checkout
        .run(&["seed", "user", "ai", "--scale", "3"])
        .exits(4)
        .says("the scale was 1, and 3 is asked for")
        .says("`cargo xtask seed user ai --scale 3 --again`");
    let path = "config/effect/user/seeds/0001_people.sql";
    checkout.append(path, "\n-- more\n");
    fs::write(
        checkout.root.join("config/effect/user/seeds/0003_more.sql"),
        "SELECT 1;\nINSERT INTO person VALUES (1000, 'more');",
    )
    .unwrap();
    checkout
        .run(&["seed", "user", "ai"])
        .exits(4)
        .says("`0001_people.sql` was changed, `0003_more.sql` is new")
        .silent_about("0002");
    checkout.run(&["seed", "ai"]).ok().says("unchanged");
    assert_eq!(people(&checkout, "user"), "12|11");

    checkout.sql("user", "INSERT INTO person VALUES (5000, 'mine')");
    checkout.run(&["seed", "user", "ai", "--again"]).exits(4).says("nobody is there to ask").says("person  13  rows");
    checkout
        .run(&["seed", "user", "ai", "--again", "--dry-run"])
        .ok()
        .says("empty, and fill again")
        .says("person  13  rows");
    assert_eq!(people(&checkout, "user"), "13|12");
    checkout.run(&["seed", "user", "ai", "--again", "--yes", "--scale", "3"]).ok().says("65 rows");
    assert_eq!(people(&checkout, "user"), "33|32");
    // Whoever reads the record of it is not waited for.
    let mut reader = checkout.session("user");
    reader.say("BEGIN; SELECT count(*) FROM _xtask_seeds;");
    checkout.run(&["seed", "user", "ai", "--again", "--yes"]).ok().says("65 rows");
    reader.end();
    // The scale of the last time stays.
    checkout.run(&["seed", "user", "ai"]).ok().says("effect is seeded at scale 3: 2 databases, unchanged");

    // A table made anew is empty: nothing of it was seeded.
    for database in ["user", "ai"] {
        checkout.sql(database, "DROP TABLE person; CREATE TABLE person (id integer PRIMARY KEY, name text)");
    }
    checkout.run(&["seed", "user", "ai"]).ok().says("65 rows");
    // Rows in the way, and no record of any seed.
    checkout.sql("user", "DROP TABLE _xtask_seeds");
    checkout.run(&["seed", "user"]).exits(1).says("duplicate key").says("`--again`");
    checkout.run(&["seed", "user", "--again", "--yes"]).ok();
}

#[test]
fn one_that_fails_leaves_all_as_before() {
    let checkout = two();
    let broken = |text: &str| {
        seeds(&checkout, "ai", &[("0001_ok.sql", "INSERT INTO person VALUES (1, 'one');"), ("0002_broken.sql", text)])
    };
    let nothing = |checkout: &Checkout| {
        for database in ["user", "ai"] {
            assert_eq!(people(checkout, database), "0|0");
            assert_eq!(checkout.sql(database, "SELECT to_regclass('_xtask_seeds')"), "");
        }
    };
    broken("-- 語\nINSERT INTO person VALUES (2, 'two');\nINSERT INTO person\n  VALUES (3, nowhere);\n");
    checkout
        .run(&["seed", "user", "ai"])
        .exits(1)
        .says("nothing was changed in any of the 2 databases")
        .says("config/effect/ai/seeds/0002_broken.sql:4:14")
        .says("    4 |   VALUES (3, nowhere);\n      |              ^ column \"nowhere\" does not exist");
    nothing(&checkout);
    // No place from the server: that of the statement.
    broken("SELECT 1;\n\n-- again\nINSERT INTO person VALUES (1, 'one');");
    checkout
        .run(&["seed", "user", "ai"])
        .exits(1)
        .says("0002_broken.sql:4:1")
        .says("duplicate key")
        .says("(id)=(1) already exists");
    nothing(&checkout);
    broken("INSERT INTO persons VALUES (1)");
    checkout.run(&["seed", "user", "ai"]).exits(1).says("cargo xtask migrate");
    nothing(&checkout);
    // What is only wrong at the commit.
    checkout.sql("ai", "CREATE TABLE one (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    broken("INSERT INTO one VALUES (1), (1);");
    checkout.run(&["seed", "user", "ai"]).exits(1).says("a deferred constraint of `ai` failed");
    nothing(&checkout);
    // All that can be seen beforehand, at once.
    broken("BEGIN;\n\\copy person FROM 'x'\nCOPY person FROM stdin;\n1\t\\N\n\\.\nCOMMIT;\n");
    fs::write(checkout.root.join("config/effect/user/seeds/notes.txt"), "").unwrap();
    checkout.run(&["seed", "user", "ai"]).exits(2).says("notes.txt").says("a file that is no seed");
    fs::remove_file(checkout.root.join("config/effect/user/seeds/notes.txt")).unwrap();
    let refused = checkout.run(&["seed", "user", "ai"]).exits(2);
    for text in [
        "0002_broken.sql:1",
        "0002_broken.sql:2",
        "`\\copy`, a command of psql",
        "0002_broken.sql:3",
        "`COPY … FROM stdin`",
        "0002_broken.sql:6",
    ] {
        assert!(refused.err.contains(text), "no {text:?} in {}", refused.err);
    }
    nothing(&checkout);
    // Tables that are not there at all.
    checkout.sql("ai", "DROP TABLE person, one");
    checkout.run(&["seed", "user", "ai"]).exits(1).says("no tables yet in ai").says("`cargo xtask migrate` makes them");
}

#[test]
fn a_csv_file_that_is_wrong_is_told_with_its_line() {
    let checkout = two();
    let wrong = |text: &[u8], code: i32| {
        fs::write(checkout.root.join("config/effect/user/seeds/0002_person.csv"), text).unwrap();
        let ran = checkout.run(&["seed", "user"]).exits(code);
        assert_eq!(people(&checkout, "user"), "0|0");
        ran
    };
    wrong(b"id,name\n-1,\"two\nlines\"\n-2\n-3,x\n", 1)
        .says("0002_person.csv:4")
        .says("missing data for column \"name\"");
    wrong(b"id,name\n-1,a\nx,b\n", 1).says("0002_person.csv:3").says("invalid input syntax for type integer");
    wrong(b"id,nam\n-1,a\n", 1).says("0002_person.csv:1").says("column \"nam\"");
    wrong(b"id,name\n-1,a\n-2,M\xfcller\n", 2).says("0002_person.csv:3").says("not UTF-8");
    wrong(b"id,name\n-1,a\n-1,b\n", 1).says("0002_person.csv:3").says("duplicate key");
    wrong(b"", 2).says("an empty line");
    fs::write(
        checkout.root.join("config/effect/user/seeds/0002_person.csv"),
        b"\xef\xbb\xbfid,name\r\n-1,\\N\r\n-2,\r\n",
    )
    .unwrap();
    checkout.run(&["seed", "user"]).ok();
    assert_eq!(people(&checkout, "user"), "12|11");
}

/// The largest resident set of a process, in kB.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

#[test]
fn memory_does_not_grow_with_a_file() {
    let checkout = two();
    let path = checkout.root.join("config/effect/user/seeds/0002_person.csv");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    writeln!(file, "id,name").unwrap();
    let name = "語".repeat(330);
    for n in 0..205_000 {
        writeln!(file, "{},{name}", -n - 1).unwrap();
    }
    drop(file.into_inner().unwrap());
    assert!(fs::metadata(&path).unwrap().len() > 200_000_000);
    let child = checkout.spawn(&["seed", "user"]);
    let pid = child.id();
    let mut largest = 0;
    while let Some(now) = high_water(pid) {
        largest = largest.max(now);
        std::thread::sleep(Duration::from_millis(2));
    }
    finish(child).ok().says("205,010 rows");
    eprintln!("200 MB of CSV: {largest} kB at most");
    assert!(largest > 0 && largest < 64 * 1024, "{largest} kB");
}

#[test]
fn killed_at_any_moment_it_leaves_all_or_nothing_and_goes_on() {
    let checkout = two();
    for database in ["user", "ai"] {
        let slow =
            "INSERT INTO person SELECT n, 'p' FROM generate_series(1, 100000) AS n; SELECT count(*) FROM person;";
        seeds(&checkout, database, &[("0001_many.sql", slow), ("0002_person.csv", "id,name\n-1,x\n")]);
    }
    let begun = Instant::now();
    checkout.run(&["seed", "user", "ai"]).ok();
    let took = begun.elapsed();
    let mut done = 0;
    for moment in 0..20u32 {
        for database in ["user", "ai"] {
            checkout.sql(database, "TRUNCATE person; DROP TABLE IF EXISTS _xtask_seeds");
        }
        let mut child = checkout.spawn(&["seed", "user", "ai"]);
        // From the first step to the last, in no order that anything else has.
        std::thread::sleep(took.mul_f64(f64::from(moment * 7 % 20) / 20.0));
        child.kill().unwrap();
        finish(child);
        // Its servers notice, and let go of what they did: no lock stays.
        let idle =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cargo xtask' AND pid <> pg_backend_pid()";
        for database in ["user", "ai"] {
            wait_until("the killed run's work is over", || checkout.sql(database, idle) == "0");
            let there = people(&checkout, database);
            assert!(there == "0|0" || there == "100001|100001", "{there}");
        }
        done += usize::from(people(&checkout, "user") != "0|0");
        checkout.run(&["seed", "user", "ai"]).ok();
        for database in ["user", "ai"] {
            assert_eq!(people(&checkout, database), "100001|100001");
        }
    }
    assert!(done < 20, "never killed in time");
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_all_as_before() {
    let checkout = two();
    let slow = |seconds: u32| {
        let text = format!("INSERT INTO person VALUES (1, 'one'); SELECT pg_sleep({seconds});");
        seeds(&checkout, "ai", &[("0001_slow.sql", &text)]);
    };
    slow(20);
    let seed = checkout.spawn(&["seed", "user", "ai"]);
    wait_until("it is at work", || {
        checkout.sql("ai", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
    });
    signal(checkout.pid("ai"), "KILL");
    finish(seed).exits(1).says("`0001_slow.sql` of `ai` failed");
    assert_eq!(people(&checkout, "user"), "0|0");
    slow(0);
    wait_until("it can be started again", || checkout.run(&["up", "user", "ai", "--no-migrate"]).code == Some(0));
    assert_eq!(people(&checkout, "ai"), "0|0");
    checkout.run(&["seed", "user", "ai"]).ok().says("13 rows");
}

#[test]
fn two_at_once_take_turns() {
    let checkout = two();
    let both = [checkout.spawn(&["seed", "user", "ai"]), checkout.spawn(&["seed", "user", "ai"])];
    let both = both.map(|child| finish(child).ok());
    assert!(both.iter().any(|ran| ran.err.contains("unchanged")), "{both:?}");
    assert_eq!(people(&checkout, "user"), "12|11");

    // Somebody else's lock is waited for, and named.
    checkout.sql("user", "DROP TABLE _xtask_seeds; TRUNCATE person");
    let lock = 0x7874_736b_7365_6564_i64;
    let mut holder = checkout.session("user");
    holder.say(&format!("BEGIN; SELECT pg_advisory_lock({lock});"));
    checkout.run(&["seed", "user", "--no-wait"]).exits(1).says("another seed works on `user`: `psql`, server process");
    let mut waiting = checkout.watch(&["seed", "user"]);
    waiting.wait_for("waiting: another seed works on `user`");
    holder.end();
    waiting.finish().ok().says("12 rows");
}

#[test]
fn files_that_databases_share_are_the_same_everywhere() {
    for (name, databases) in [("0001_people.sql", 7), ("0002_study.sql", 4), ("0003_work.sql", 4)] {
        let path = |database: &str| repository().join(format!("config/effect/{database}/seeds/{name}"));
        let there: Vec<PathBuf> = ALL.map(path).into_iter().filter(|path| path.exists()).collect();
        assert_eq!(there.len(), databases, "{name}");
        let text = |path: &Path| fs::read(path).unwrap();
        for other in &there[1..] {
            assert!(text(other) == text(&there[0]), "{} differs from {}", other.display(), there[0].display());
        }
    }
}

#[test]
fn the_other_stack_is_seeded_as_well() {
    if !crate::support::has_postgres_15() {
        return crate::support::skip("no PostgreSQL 15");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "game", "--stack", "nanika"]).ok();
    checkout.run(&["seed", "--stack", "nanika"]).ok().says("1 database seeded: 760 rows");
    checkout.run(&["check", "references", "--stack", "nanika"]).ok().says("nanika declares no references");
}
