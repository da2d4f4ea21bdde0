//! Data of an older PostgreSQL, moved to the version that the manifest asks for.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::support::{
    Checkout, Engine, docker, finish, has_postgres_15, local_images, signal, skip, skip_docker, wait_until,
};

/// Nanika on PostgreSQL 15, seeded; nothing where that cannot be.
fn on_15(engine: Engine) -> Option<Checkout> {
    let mut checkout = Checkout::new();
    match engine {
        Engine::Native if !has_postgres_15() => {
            skip("PostgreSQL 15 is not on this machine");
            return None;
        }
        Engine::Docker => {
            let images = local_images(&[("postgres-15", "POSTGRES_IMAGE"), ("redis-7", "REDIS_IMAGE")]);
            let (Some(images), true) = (images, checkout.use_docker()) else {
                skip_docker();
                return None;
            };
            checkout.environment.extend(images);
            // Of other test runs at the same time, and of each of this one's tests, it is another.
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let (octet, own) = (100 + std::process::id() % 100, NEXT.fetch_add(1, Ordering::Relaxed));
            checkout.environment.insert("NETWORK_SUBNET".into(), format!("10.{octet}.{}.0/24", 7 + own));
        }
        Engine::Native => {}
    }
    checkout.environment.insert("XTASK_STACK".into(), "nanika".into());
    checkout.run(&["up", "game"]).ok();
    checkout.run(&["seed"]).ok();
    Some(checkout)
}

/// From now on the manifest asks for 18.
fn ask_for_18(checkout: &mut Checkout) {
    ask_for(checkout, 18, 15);
}

/// From now on the manifest asks for that major version, and no longer for the other one.
fn ask_for(checkout: &mut Checkout, wanted: u32, before: u32) {
    for text in ["major = {}", "image = \"postgres-{}\""] {
        let of = |major: u32| text.replace("{}", &major.to_string());
        checkout.replace("config/nanika.toml", &of(before), &of(wanted));
    }
    let images = local_images(&[(&format!("postgres-{wanted}"), "POSTGRES_IMAGE")]);
    if let (true, Some(images)) = (checkout.environment.contains_key("POSTGRES_IMAGE"), images) {
        checkout.environment.extend(images);
    }
}

/// Removes the data of `game` as somebody does who goes round the helper.
fn remove_data(checkout: &Checkout, engine: Engine) {
    checkout.run(&["down"]).ok();
    match engine {
        Engine::Native => fs::remove_dir_all(checkout.data_folder("nanika").join("game/data")).unwrap(),
        Engine::Docker => drop(docker(&["volume", "rm", &format!("{}_postgres_data", checkout.project())])),
    }
}

/// The folders, or volumes, of what upgrades have kept, the oldest first.
fn kept(checkout: &Checkout, engine: Engine) -> Vec<String> {
    let mut kept: Vec<String> = match engine {
        Engine::Native => fs::read_dir(checkout.data_folder("nanika").join("game"))
            .unwrap()
            .map(|entry| entry.unwrap().path().display().to_string())
            .filter(|path| path.contains("/data-"))
            .collect(),
        Engine::Docker => {
            let of = format!("label=cargo-xtask.aside-of={}_postgres_data", checkout.project());
            docker(&["volume", "ls", "--quiet", "--filter", &of]).lines().map(str::to_owned).collect()
        }
    };
    kept.sort();
    kept
}

/// Whether there is a file below what an upgrade has kept.
fn has_file(checkout: &Checkout, engine: Engine, kept: &str, file: &str) -> bool {
    match engine {
        Engine::Native => Path::new(kept).join(file).exists(),
        Engine::Docker => {
            let (mount, path) = (format!("{kept}:/kept:ro"), format!("/kept/{file}"));
            let image = &checkout.environment["POSTGRES_IMAGE"];
            let test =
                ["run", "--rm", "--network", "none", "--volume", &mount, "--entrypoint", "test", image, "-e", &path];
            Command::new("docker").args(test).status().unwrap().success()
        }
    }
}

fn rows(checkout: &Checkout) -> String {
    checkout.sql("game", "SELECT (SELECT count(*) FROM users) || ' ' || (SELECT count(*) FROM chat_messages)")
}

#[test]
fn data_of_15_move_to_18_and_the_old_ones_stay_until_they_are_dropped() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        let before = rows(&checkout);
        checkout.run(&["upgrade"]).ok().says("nothing to upgrade");
        ask_for_18(&mut checkout);
        checkout.run(&["up"]).exits(4).says("PostgreSQL 15's").says("cargo xtask upgrade");
        assert_eq!(rows(&checkout), before, "the old server still runs");
        checkout.run(&["upgrade", "--dry-run"]).ok().says("game: PostgreSQL 15 → 18");
        checkout.run(&["upgrade"]).ok().says("PostgreSQL 15 → 18").says("--drop-old");
        assert_eq!(rows(&checkout), before);
        assert!(checkout.sql("game", "SHOW server_version").starts_with("18."));
        let locale = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()";
        assert_eq!(checkout.sql("game", locale), "b|C.UTF-8", "what was the default is the new one");
        checkout.run(&["up", "game"]).ok().says("unchanged");
        checkout.run(&["migrate", "check"]).ok();
        checkout.run(&["backup", "list"]).ok().says("before-upgrade-15-to-18").says("verified");
        checkout.run(&["upgrade", "--drop-old"]).exits(4).says("nobody is there to ask");
        checkout.run(&["upgrade", "--drop-old", "--yes"]).ok().says("dropped");
        checkout.run(&["upgrade", "--drop-old"]).ok().says("no upgrade has left old data");
        // There is no way back by the same verb.
        ask_for(&mut checkout, 15, 18);
        if engine == Engine::Native {
            checkout.run(&["upgrade"]).exits(4).says("newer than 15");
        }
        checkout.run(&["down"]).code.into_iter().for_each(drop);
    }
}

/// Each upgrade keeps what it has replaced, whatever an earlier one of the same major version has kept.
#[test]
fn a_second_upgrade_from_the_same_version_keeps_its_own_data() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        ask_for_18(&mut checkout);
        checkout.run(&["upgrade"]).ok();
        let first = kept(&checkout, engine);
        assert_eq!(first.len(), 1, "{first:?}");

        ask_for(&mut checkout, 15, 18);
        remove_data(&checkout, engine);
        checkout.run(&["up", "game"]).ok();
        let file = checkout
            .sql("game", "CREATE TABLE second AS SELECT 2 AS number; SELECT pg_relation_filepath('second')")
            .lines()
            .last()
            .unwrap()
            .to_owned();
        ask_for_18(&mut checkout);
        checkout.run(&["upgrade"]).ok();
        assert_eq!(checkout.sql("game", "SELECT number FROM second"), "2");
        let both = kept(&checkout, engine);
        assert_eq!((both.len(), &both[0]), (2, &first[0]), "{both:?}");
        assert!(has_file(&checkout, engine, &both[1], &file), "{file} is not in {}", both[1]);
        assert!(!has_file(&checkout, engine, &both[0], &file), "{file} is in {}", both[0]);

        // Another instance's are none of this one's business, whatever they are called.
        if engine == Engine::Docker {
            let others = format!("{}_of_another", checkout.project());
            let of = format!("cargo-xtask.aside-of={}_postgres_data", checkout.project());
            docker(&["volume", "create", "--label", &of, "--label", "cargo-xtask.instance=another", &others]);
        }
        checkout.run(&["upgrade", "--drop-old", "--yes"]).ok().says("PostgreSQL 15").says("2 databases");
        let left = kept(&checkout, engine);
        assert_eq!(left.len(), usize::from(engine == Engine::Docker), "{left:?}");
    }
}

/// What PostgreSQL 15 takes in its configuration, and 18 does not: its server never starts.
const NOT_FOR_18: &str = "old_snapshot_threshold = -1\n";

/// From now on an upgrade ends where the new server should start.
fn break_18(checkout: &Checkout) {
    checkout.append("docker/postgres/postgresql.conf", NOT_FOR_18);
}

fn mend_18(checkout: &Checkout) {
    checkout.replace("docker/postgres/postgresql.conf", NOT_FOR_18, "");
}

#[test]
fn an_upgrade_that_is_given_up_goes_with_its_data() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        ask_for_18(&mut checkout);
        break_18(&checkout);
        checkout.run(&["upgrade"]).exits(1).says("old_snapshot_threshold");
        checkout.run(&["up", "game"]).exits(4).says("nanika` goes on");
        checkout.run(&["upgrade", "--drop-old"]).exits(4).says("still needed");
        // Whatever would take the new server's empty database for the one that is meant.
        for verb in ["migrate", "seed", "backup", "restore"] {
            let refused = checkout.run(&[verb, "game"]);
            assert!(
                refused.code == Some(4) || verb == "seed" && refused.err.contains("not running"),
                "{}",
                refused.err
            );
        }
        let kept_one = kept(&checkout, engine);
        assert_eq!(kept_one.len(), 1);
        let down = checkout.run(&["down", "--volumes"]).exits(4);
        down.says("what upgrades have replaced and kept").says(&kept_one[0]).says("is given up; its backup");
        let down = ["down", "--volumes", "--yes", "--no-backup"];
        checkout.run(&[&down[..], &["--dry-run"]].concat()).ok().says(&kept_one[0]);
        if engine == Engine::Native {
            checkout.run(&down).ok();
            assert_eq!(fs::read_dir(checkout.data_folder("nanika").join("game")).map(Iterator::count).unwrap_or(0), 0);
            checkout.run(&["down", "--undo"]).ok();
            assert_eq!(kept(&checkout, engine), kept_one);
            checkout.run(&["up", "game"]).exits(4).says("nanika` goes on");
            checkout.run(&[&down[..], &["--discard"]].concat()).ok();
        } else {
            checkout.run(&down).ok();
            assert_eq!(kept(&checkout, engine), [""; 0]);
        }
        mend_18(&checkout);
        checkout.run(&["up", "game"]).ok();
        checkout.run(&["up", "game"]).ok().says("unchanged");
        checkout.run(&["upgrade"]).ok().says("nothing to upgrade");
        checkout.run(&["upgrade", "--drop-old"]).ok().says("no upgrade has left old data");
        assert_eq!(rows(&checkout), "0 0", "they are new ones");
    }
}

/// Not every build has ICU: then it is told, and the rows move all the same.
#[test]
fn a_locale_of_ones_own_comes_back_and_moves_along() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        let (user, database) =
            (checkout.sql("game", "SELECT current_user"), checkout.sql("game", "SELECT current_catalog"));
        let make = format!(
            "CREATE DATABASE {database} OWNER {user} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' \
            LOCALE 'C.UTF-8'"
        );
        let made = checkout.run(&[
            "psql",
            "game",
            "-X",
            "-d",
            "postgres",
            "-c",
            &format!("DROP DATABASE {database} WITH (FORCE)"),
            "-c",
            &make,
        ]);
        if made.err.contains("ICU is not supported") {
            skip("PostgreSQL 15 has no ICU");
            continue;
        }
        made.ok();
        checkout.sql("game", "CREATE TABLE words (word text); INSERT INTO words VALUES ('b'), ('C'), ('a'), ('B')");
        let words = "SELECT string_agg(word, '' ORDER BY word) FROM words";
        let locale = "SELECT row->>'datlocprovider', coalesce(row->>'datlocale', row->>'daticulocale') FROM \
            (SELECT to_jsonb(pg_database) AS row FROM pg_database WHERE datname = current_database()) AS database";
        assert_eq!(checkout.sql("game", words), "abBC");
        checkout.run(&["backup", "game"]).ok();
        checkout.run(&["restore", "game"]).ok().silent_about("locale");
        assert_eq!(checkout.sql("game", locale), "i|en-US");
        assert_eq!(checkout.sql("game", words), "abBC");

        ask_for_18(&mut checkout);
        let upgraded = checkout.run(&["upgrade", "--json"]).ok();
        let json = upgraded.json();
        assert_eq!(json["upgraded"].as_array().map(Vec::len), Some(1));
        let game = &json["upgraded"][0];
        assert_eq!((&game["name"], &game["from"], &game["to"]), (&"game".into(), &15.into(), &18.into()));
        let other = &game["other_locale"];
        if checkout.sql("game", locale) == "i|en-US" {
            upgraded.silent_about("not here");
            assert!(other.is_null());
            assert_eq!(checkout.sql("game", words), "abBC");
        } else {
            assert_eq!(other["wanted"], "en-US (icu)");
            upgraded.says("not here: the locale `en-US (icu)`, ICU is not supported in this build");
            assert_eq!(checkout.sql("game", locale), "b|C.UTF-8");
            assert_eq!(checkout.sql("game", words), "BCab");
        }
        checkout.run(&["down"]).code.into_iter().for_each(drop);
    }
}

/// What was put aside stays so, and the backup is what the new server gets.
#[test]
fn an_upgrade_that_failed_half_way_goes_on_once_that_is_mended() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        let before = rows(&checkout);
        ask_for_18(&mut checkout);
        break_18(&checkout);
        checkout.run(&["upgrade"]).exits(1).says("old_snapshot_threshold");
        let kept_one = kept(&checkout, engine);
        ask_for(&mut checkout, 15, 18);
        checkout.run(&["upgrade"]).exits(4).says("set `postgres.major = 18` to go on").says("before-upgrade-15-to-18");
        ask_for_18(&mut checkout);
        checkout.run(&["upgrade", "--dry-run"]).ok().says("goes on from its backup");
        mend_18(&checkout);
        checkout.run(&["upgrade"]).ok().says("goes on from its backup");
        assert_eq!(rows(&checkout), before);
        assert_eq!(kept(&checkout, engine), kept_one);
    }
}

/// As long as the old servers have all that there is, they may have run on since the backup.
#[test]
fn a_backup_of_an_upgrade_that_moved_nothing_is_not_trusted() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        let taken = checkout.run(&["backup", "game", "--json"]).ok().json();
        let folder = checkout.root.join(".xtask/nanika");
        let instance: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("instance.json")).unwrap()).unwrap();
        let state = serde_json::json!({
            "instance": instance["id"], "from": { "game": 15 }, "to": 18,
            "backup": taken["backups"][0]["manifest"]["backup"],
        });
        checkout.sql("game", "CREATE TABLE later AS SELECT 1 AS number");
        let write = || fs::write(folder.join("upgrade.json"), state.to_string()).unwrap();
        write();
        checkout.run(&["upgrade"]).ok().says("nothing to upgrade");
        assert!(!folder.join("upgrade.json").exists());
        write();
        ask_for_18(&mut checkout);
        checkout.run(&["upgrade", "--dry-run"]).ok().says("game: PostgreSQL 15 → 18");
        checkout.run(&["upgrade"]).ok();
        assert_eq!(checkout.sql("game", "SELECT number FROM later"), "1");
    }
}

/// Whoever is connected is named; and with `--force`, what the old server has told as done is what the new one has.
#[test]
fn no_row_is_lost_that_an_old_server_took() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        checkout.sql("game", "CREATE TABLE ticks (tick int)");
        ask_for_18(&mut checkout);
        let mut reader = checkout.spawn(&["psql", "game", "-XAtc", "SELECT pg_sleep(600)"]);
        wait_until("somebody is connected", || {
            checkout.sql("game", "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'") == "1"
        });
        checkout.run(&["upgrade"]).exits(4).says("`game` is in use by 1 client").says("`--force`");
        assert!(checkout.sql("game", "SHOW server_version").starts_with("15."));
        reader.kill().unwrap();
        reader.wait().unwrap();

        let is_over = AtomicBool::new(false);
        let acknowledged = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut acknowledged = Vec::new();
                for tick in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let insert = format!("INSERT INTO ticks VALUES ({tick})");
                    if checkout.run(&["psql", "game", "-XAtc", &insert]).code == Some(0) {
                        acknowledged.push(tick.to_string());
                    }
                }
                acknowledged
            });
            std::thread::sleep(Duration::from_millis(300));
            let upgraded = checkout.run(&["upgrade", "--force"]);
            is_over.store(true, Ordering::Relaxed);
            let acknowledged = writer.join().unwrap();
            upgraded.ok();
            acknowledged
        });
        assert!(acknowledged.len() > 1, "{acknowledged:?}");
        let there = checkout.sql("game", "SELECT tick FROM ticks");
        let there: Vec<&str> = there.lines().collect();
        let lost: Vec<&String> = acknowledged.iter().filter(|tick| !there.contains(&tick.as_str())).collect();
        assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    }
}

/// One that no client holds is found by the lock that it keeps others from.
#[test]
fn a_prepared_transaction_is_named_before_anything_is_moved() {
    let Some(mut checkout) = on_15(Engine::Native) else { return };
    checkout.append("docker/postgres/postgresql.conf", "max_prepared_transactions = 2\n");
    checkout.run(&["up", "game"]).ok();
    checkout.sql("game", "CREATE TABLE ticks (tick int)");
    checkout.sql("game", "BEGIN; INSERT INTO ticks VALUES (1); PREPARE TRANSACTION 'left'");
    ask_for_18(&mut checkout);
    let refused = checkout.run(&["upgrade"]).exits(4).says("`game` is being written to, nothing was changed");
    refused.says("a prepared transaction, which `ROLLBACK PREPARED 'left'` ends");
    checkout.sql("game", "COMMIT PREPARED 'left'");
    checkout.run(&["upgrade"]).ok();
    assert_eq!(checkout.sql("game", "SELECT tick FROM ticks"), "1");
}

/// A new server that cannot be is no reason to put data aside.
#[test]
fn what_the_new_server_needs_is_there_before_anything_is_moved() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        let before = rows(&checkout);
        ask_for_18(&mut checkout);
        let environment = checkout.environment.clone();
        let (name, value, missing) = match engine {
            Engine::Native => ("XTASK_CACHE_DIR", checkout.root.join("empty").display().to_string(), "PostgreSQL 18"),
            Engine::Docker => ("POSTGRES_IMAGE", "localhost:9/none/postgres:18".to_owned(), "1 image missing"),
        };
        checkout.environment.insert(name.into(), value);
        let refused = checkout.run(&["upgrade", "--offline"]).exits(1);
        refused.says(missing).says("nothing was started").silent_about("--without");
        assert_eq!(rows(&checkout), before, "the old server still runs");
        assert!(kept(&checkout, engine).is_empty() && !checkout.root.join("backups/nanika").exists());
        checkout.environment = environment;
        checkout.run(&["upgrade"]).ok();
        assert_eq!(rows(&checkout), before);
    }
}

/// What is not moved is named, before and for as long as it is kept; and there is nothing to go back to but that.
#[test]
fn what_stays_behind_is_named() {
    for engine in [Engine::Native, Engine::Docker] {
        let Some(mut checkout) = on_15(engine) else { continue };
        checkout.run(&["psql", "game", "-X", "-c", "CREATE DATABASE reports"]).ok();
        checkout.sql("game", "CREATE ROLE analyst LOGIN PASSWORD 'x'; GRANT SELECT ON users TO analyst");
        ask_for_18(&mut checkout);
        checkout.run(&["upgrade", "--dry-run"]).ok().says("15 → 18, without `reports` (");
        let upgraded = checkout.run(&["upgrade", "--json"]).ok().says("not moved").says("`reports` (");
        let upgraded = upgraded.says("new roles, that nobody can log in as: analyst").json();
        let game = &upgraded["upgraded"][0];
        assert_eq!((&game["behind"][0]["database"], game["behind"].as_array().unwrap().len()), (&"reports".into(), 1));
        assert_eq!(game["new_roles"], serde_json::json!(["analyst"]));
        checkout.run(&["restore", "game", "--undo"]).exits(1).says("nothing to go back to");
        checkout.run(&["upgrade", "--drop-old"]).exits(4).says("with `reports` (");
    }
}

/// Killed at any moment, the next `upgrade` finishes, and `up` never starts an empty server in between.
#[test]
fn a_killed_upgrade_is_finished_by_the_next() {
    for delay in [60, 250, 400, 550, 700, 900] {
        let Some(mut checkout) = on_15(Engine::Native) else { return };
        let before = rows(&checkout);
        ask_for_18(&mut checkout);
        let child = checkout.spawn(&["upgrade"]);
        std::thread::sleep(Duration::from_millis(delay));
        signal(i32::try_from(child.id()).unwrap(), "KILL");
        finish(child);
        let up = checkout.run(&["up", "game"]);
        if up.code == Some(0) {
            assert_eq!(rows(&checkout), before, "after {delay} ms it was done");
        } else {
            up.exits(4).says("cargo xtask upgrade");
            checkout.run(&["upgrade"]).ok();
        }
        assert_eq!(rows(&checkout), before, "killed after {delay} ms");
        assert!(checkout.sql("game", "SHOW server_version").starts_with("18."));
        checkout.run(&["up", "game"]).ok();
    }
}
