//! `migrate`: the set or nothing, with real servers.

mod catalog;
mod files;
mod interrupted;
mod rehearsal;
mod sqlx;

use std::fs;

use crate::support::{Checkout, wait_until};

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

fn url(checkout: &Checkout, database: &str) -> String {
    let variables = checkout.run(&["env", database, "--format", "json"]).ok().json();
    variables["DATABASE_URL"].as_str().unwrap().to_owned()
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

#[test]
fn what_one_step_sets_the_next_does_not_see() {
    let checkout = up(&["learning"]);
    let steps = [
        "CREATE SCHEMA other;\nCREATE ROLE weak;\nSET search_path = other;\nSET ROLE weak;\n",
        "CREATE TABLE here (id int);\n",
        "SELECT set_config('search_path', 'other', false);\n",
        "CREATE TABLE also_here (id int);\n",
    ];
    for (index, text) in steps.iter().enumerate() {
        write(&checkout, &format!("{LEARNING}/2030010100000{index}_step.sql"), text);
    }
    checkout.run(&["migrate", "learning"]).ok();
    let schemas = "SELECT string_agg(DISTINCT schemaname, ',') FROM pg_tables WHERE tablename LIKE '%here'";
    assert_eq!(checkout.sql("learning", schemas), "public");
}

#[test]
fn a_step_outside_of_a_transaction_stays_and_is_told() {
    let checkout = up(&["learning", "user"]);
    write(
        &checkout,
        &format!("{LEARNING}/20300101000000_index.up.sql"),
        "-- no-transaction\nCREATE INDEX CONCURRENTLY by_user ON learning_sessions (user_id);\nVACUUM learning_sessions;\n",
    );
    write(&checkout, &format!("{LEARNING}/20300101000000_index.down.sql"), "DROP INDEX by_user;\n");
    write(&checkout, &format!("{LEARNING}/20300101000001_bad.up.sql"), "CREATE TABLE a (id int);\nSELECT nothing;\n");
    checkout.run(&["migrate", "plan"]).exits(1).says("not running");
    checkout.run(&["migrate", "plan", "learning"]).ok().says("outside of a transaction").says("2 statements");
    let ran = checkout.run(&["migrate", "learning", "user"]).exits(1);
    assert!(ran.err.contains("applied and kept in `learning`: 20251103090000, 20251103100000, 20251110090000, 20251124090000, 20300101000000"), "{}", ran.err);
    // The other database has waited with its commit.
    assert!(!ran.err.contains("kept in `user`"), "{}", ran.err);
    assert_eq!(checkout.sql("user", "SELECT to_regclass('users') IS NULL"), "t");
    assert!(ran.err.contains("20300101000001_bad.up.sql:2:8"), "{}", ran.err);
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM _sqlx_migrations"), "5");
    assert_eq!(checkout.sql("learning", "SELECT to_regclass('by_user') IS NOT NULL AND to_regclass('a') IS NULL"), "t");
    // Nobody holds the lock after it, and the next run goes on.
    write(&checkout, &format!("{LEARNING}/20300101000001_bad.up.sql"), "CREATE TABLE a (id int);\n");
    checkout.run(&["migrate", "learning", "user"]).ok().says("1 migration");
    checkout.run(&["migrate", "check", "learning", "user"]).ok();
    // One that fails inside says what it has done.
    write(
        &checkout,
        &format!("{LEARNING}/20300101000002_half.up.sql"),
        "-- no-transaction\nCREATE TABLE half (id int);\nINSERT INTO half VALUES ('x');\n",
    );
    let ran = checkout.run(&["migrate", "learning"]).exits(1).says("its first 1 statements were done before, and stay");
    assert!(ran.err.contains("20300101000002_half.up.sql:3:26"), "{}", ran.err);
}

#[test]
fn a_database_that_records_nothing_leaves_all_as_they_were() {
    let checkout = up(&["learning", "user"]);
    checkout.run(&["migrate", "learning", "user"]).ok();
    checkout.sql(
        "user",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$read by auditors$$; END'; \
         CREATE TRIGGER refuse BEFORE INSERT ON _sqlx_migrations EXECUTE FUNCTION refuse()",
    );
    for folder in [LEARNING, "config/effect/user/migrations"] {
        write(&checkout, &format!("{folder}/20300101000000_more.up.sql"), "CREATE TABLE more (id int);\n");
    }
    let ran =
        checkout.run(&["migrate", "learning", "user"]).exits(1).says("`user` cannot be migrated: read by auditors");
    assert!(!ran.err.contains("kept in"), "{}", ran.err);
    for database in ["learning", "user"] {
        assert_eq!(checkout.sql(database, "SELECT to_regclass('more') IS NULL"), "t");
    }
}

/// What was found once is not looked for again, until a file or a history is another one, however much it looks the same.
#[test]
fn nothing_to_do_is_known_until_something_changes() {
    let checkout = up(&["learning"]);
    checkout.run(&["migrate", "learning"]).ok();
    // Files that are newer may change once more within what their times can tell.
    std::thread::sleep(std::time::Duration::from_millis(3200));
    let known = checkout.root.join(".xtask/effect/known.json");
    let is_noted = || fs::read_to_string(&known).unwrap_or_default().contains("histories of learning");
    assert!(!is_noted());
    // A run that took long notes nothing.
    wait_until("it is noted", || {
        checkout.run(&["migrate", "learning"]).ok().says("1 database, nothing to do");
        is_noted()
    });
    checkout.run(&["migrate", "learning"]).ok().says("1 database, nothing to do");
    // By hand, in the history.
    checkout.sql("learning", "UPDATE _sqlx_migrations SET success = false WHERE version = 20251103090000");
    checkout.run(&["migrate", "learning"]).exits(1).says("20251103090000 is recorded as failed");
    checkout.sql("learning", "UPDATE _sqlx_migrations SET success = true");
    checkout.run(&["migrate", "learning"]).ok().says("nothing to do");
    // A failure of somebody whose file is not here.
    let noted = || {
        wait_until("it is noted", || {
            checkout.run(&["migrate", "learning"]).ok().says("nothing to do");
            is_noted()
        });
    };
    noted();
    checkout.sql("learning", "INSERT INTO _sqlx_migrations VALUES (20991231000000, 'elsewhere', now(), false, '', -1)");
    checkout.run(&["migrate", "learning"]).exits(1).says("20991231000000 is recorded as failed");
    checkout.sql("learning", "DELETE FROM _sqlx_migrations WHERE NOT success");
    // Another schema is worked in, which has no history yet.
    noted();
    checkout.sql("learning", "CREATE SCHEMA effect");
    checkout.run(&["migrate", "learning"]).ok().says("4 migrations in 1 database");
    checkout.sql("learning", "SET client_min_messages = error; DROP SCHEMA effect CASCADE");
    noted();
    // A table of the same content that is another one.
    checkout.sql("learning", "CREATE TABLE copy AS TABLE _sqlx_migrations");
    checkout.sql("learning", "DROP TABLE _sqlx_migrations; ALTER TABLE copy RENAME TO _sqlx_migrations");
    checkout.run(&["migrate", "learning"]).ok().says("nothing to do");
    // A file of the same size, with its time put back.
    let file = checkout.root.join(LEARNING).join("20251103090000_learning_sessions.up.sql");
    let (text, times) = (fs::read_to_string(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    assert!(text.contains("learning"));
    fs::write(&file, text.replacen("learning", "teaching", 1)).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
    checkout.run(&["migrate", "learning"]).exits(1).says("has been edited since");
}

#[test]
fn a_broken_statement_far_inside_leaves_all_databases_as_they_were() {
    let databases = ["event-store", "learning", "vocabulary", "user", "progress"];
    let checkout = up(&databases);
    for database in databases {
        let folder = checkout.root.join(format!("config/effect/{database}/migrations"));
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir_all(&folder).unwrap();
        for step in 1..=35 {
            let text = format!(
                "-- step {step}: 語\nCREATE FUNCTION f{step}() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN RETURN {step}; \
                 END; $body$;\nCREATE TABLE t{step} (id int DEFAULT f{step}());\n"
            );
            fs::write(folder.join(format!("{step:04}_step.sql")), text).unwrap();
        }
    }
    let broken = "config/effect/progress/migrations/0030_step.sql";
    checkout.replace(broken, "(id int DEFAULT", "(id integr DEFAULT");
    let ran = checkout.run(&[&["migrate"], &databases[..]].concat()).exits(1);
    for part in [
        "migration 30 of `progress` failed, nothing was changed in any of the 5 databases",
        &format!("{broken}:3:22"),
        "type \"integr\" does not exist",
    ] {
        assert!(ran.err.contains(part), "no {part:?} in {}", ran.err);
    }
    let objects = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    for database in databases {
        assert_eq!(checkout.sql(database, objects), "0", "{database}");
    }
    checkout.replace(broken, "integr DEFAULT", "int DEFAULT");
    checkout.run(&[&["migrate"], &databases[..]].concat()).ok().says("175 migrations in 5 databases");
    checkout.run(&[&["migrate", "check"], &databases[..]].concat()).ok();
}

#[test]
fn another_server_is_migrated_by_its_address() {
    let mut checkout = up(&["learning"]);
    checkout.sql("learning", "CREATE DATABASE ci");
    let port = checkout.port("POSTGRES_LEARNING_PORT");
    let url = format!("postgres://effect@localhost:{port}/ci");
    checkout.environment.insert("PGPASSWORD".into(), "effect_password".into());
    checkout.run(&["migrate", "check", "learning", "--url", &url]).exits(3).says("4 pending migrations");
    checkout.run(&["migrate", "plan", "learning", "--url", &url]).ok().says("20251103090000");
    checkout.run(&["migrate", "learning", "--url", &url]).ok().says("4 migrations in 1 database");
    checkout.run(&["migrate", "run", "learning", "--url", &url]).ok().says("nothing to do");
    checkout.run(&["migrate", "check", "learning", "--url", &url]).ok();
    checkout.run(&["migrate", "status", "learning", "--url", &url]).ok().says("applied").silent_about("pending");
    // The instance's own database is another one.
    checkout.run(&["migrate", "status", "learning"]).ok().says("pending").silent_about("applied");
    checkout.run(&["migrate", "--url", &url]).exits(2).says("is the address of one database");
    checkout.run(&["migrate", "user", "--url", &url]).exits(4).says("`ci` on port").says("`learning` of an instance");
    let pooler = "postgres://me:secret@ep-cool-1-pooler.example.com/learning";
    checkout
        .run(&["migrate", "learning", "--url", pooler])
        .exits(4)
        .says("`ep-cool-1-pooler.example.com` is a pooler, nothing was done")
        .says("`ep-cool-1.example.com`")
        .silent_about("secret");
    let wrong = format!("postgres://effect:secret@localhost:{port}/ci");
    checkout
        .run(&["migrate", "learning", "--url", &wrong])
        .exits(1)
        .says(&format!("cannot connect to `ci` on port {port}"))
        .silent_about("secret");
}
