//! `migrate`: the set or nothing, with real servers; histories that sqlx itself reads and writes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::{Checkout, Ran, SmallDisk, finish, is_root, ran, signal, skip, wait_until};

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
    assert!(ran.err.contains("applied and kept in `user`: "), "{}", ran.err);
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
    checkout.run(&["migrate", "learning"]).ok().says("1 database, nothing to do");
    assert!(is_noted());
    checkout.run(&["migrate", "learning"]).ok().says("1 database, nothing to do");
    // By hand, in the history.
    checkout.sql("learning", "UPDATE _sqlx_migrations SET success = false WHERE version = 20251103090000");
    checkout.run(&["migrate", "learning"]).exits(1).says("20251103090000 is recorded as failed");
    checkout.sql("learning", "UPDATE _sqlx_migrations SET success = true");
    checkout.run(&["migrate", "learning"]).ok().says("nothing to do");
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

fn url(checkout: &Checkout, database: &str) -> String {
    let variables = checkout.run(&["env", database, "--format", "json"]).ok().json();
    variables["DATABASE_URL"].as_str().unwrap().to_owned()
}

/// The real sqlx, as a service calls it when it starts.
fn sqlx_migrates(url: &str, folder: &std::path::Path, table: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut migrator = sqlx_core::migrate::Migrator::new(folder).await.map_err(|error| error.to_string())?;
        migrator.dangerous_set_table_name(table.to_owned());
        let mut connection = <sqlx_postgres::PgConnection as sqlx_core::connection::Connection>::connect(url)
            .await
            .map_err(|error| error.to_string())?;
        migrator.run(&mut connection).await.map_err(|error| error.to_string())
    })
}

const ROWS: &str = "SELECT string_agg(concat_ws(' ', version, description, success, encode(checksum, 'hex')), E'\\n' ORDER BY version) FROM _sqlx_migrations";

#[test]
fn sqlx_and_this_verb_agree_on_what_was_applied() {
    let checkout = up(&["learning", "user"]);
    let (learning, user) = (url(&checkout, "learning"), url(&checkout, "user"));
    let folder = |name: &str| checkout.root.join(format!("config/effect/{name}/migrations"));
    // This verb first: nothing is left for sqlx, row for row what it would have written.
    checkout.run(&["migrate", "learning"]).ok();
    let ours = checkout.sql("learning", ROWS);
    sqlx_migrates(&learning, &folder("learning"), "_sqlx_migrations").unwrap();
    assert_eq!(checkout.sql("learning", ROWS), ours);
    checkout.run(&["migrate", "revert", "learning", "--to", "0", "--yes"]).ok();
    sqlx_migrates(&learning, &folder("learning"), "_sqlx_migrations").unwrap();
    assert_eq!(checkout.sql("learning", ROWS), ours);
    // sqlx first: nothing is left for this verb, which keeps text and catalog from now on.
    sqlx_migrates(&user, &folder("user"), "_sqlx_migrations").unwrap();
    checkout.run(&["migrate", "check", "user"]).ok().says("was migrated by something else");
    checkout.run(&["migrate", "user"]).ok().says("nothing to do");
    checkout.run(&["migrate", "check", "user"]).ok().silent_about("something else");
    assert_eq!(checkout.sql("user", "SELECT count(*) FROM _xtask_migrations WHERE history <> ''"), "4");
    checkout.run(&["migrate", "revert", "user", "--to", "0", "--yes"]).ok();
    // An edit is an edit to both.
    checkout.run(&["migrate", "user"]).ok();
    checkout.append("config/effect/user/migrations/20251103090000_users.up.sql", "-- more\n");
    assert!(sqlx_migrates(&user, &folder("user"), "_sqlx_migrations").unwrap_err().contains("has been modified"));
    checkout.run(&["migrate", "user"]).exits(1).says("has been edited since");
}

/// The real command, for one database. `None`: it is not here, which has been said.
fn sqlx_cli(checkout: &Checkout, database: &str, verb: &[&str]) -> Option<Ran> {
    let mut version = Command::new("sqlx");
    if !version.arg("--version").output().is_ok_and(|version| version.stdout.starts_with(b"sqlx-cli 0.9.")) {
        skip("no `sqlx` 0.9 on PATH");
        return None;
    }
    let mut sqlx = Command::new("sqlx");
    sqlx.arg("migrate").args(verb).arg("--source").arg(format!("config/effect/{database}/migrations"));
    sqlx.current_dir(&checkout.root).env("DATABASE_URL", url(checkout, database)).env("NO_COLOR", "1");
    Some(ran(sqlx).ok())
}

#[test]
fn sqlx_cli_and_this_verb_agree_on_what_was_applied() {
    let checkout = up(&["learning", "user"]);
    // This verb first.
    checkout.run(&["migrate", "learning"]).ok();
    let ours = checkout.sql("learning", ROWS);
    let Some(info) = sqlx_cli(&checkout, "learning", &["info"]) else { return };
    assert_eq!(info.out.matches("/installed ").count(), 4, "{}", info.out);
    assert!(!info.out.contains("different checksum") && !info.out.contains("pending"), "{}", info.out);
    assert_eq!(sqlx_cli(&checkout, "learning", &["run"]).unwrap().out, "");
    assert_eq!(checkout.sql("learning", ROWS), ours);
    // What sqlx takes back is pending here, and the other way round.
    sqlx_cli(&checkout, "learning", &["revert"]);
    checkout.run(&["migrate", "status", "learning"]).ok().says("pending");
    checkout.run(&["migrate", "learning"]).ok().says("1 migration");
    checkout.run(&["migrate", "revert", "learning", "--yes"]).ok();
    assert_eq!(sqlx_cli(&checkout, "learning", &["info"]).unwrap().out.matches("/pending ").count(), 1);
    // sqlx first.
    sqlx_cli(&checkout, "user", &["run"]);
    checkout.run(&["migrate", "user"]).ok().says("nothing to do");
    checkout.run(&["migrate", "check", "user"]).ok();
    // An edit is an edit to both.
    checkout.append("config/effect/user/migrations/20251103090000_users.up.sql", "-- more\n");
    sqlx_cli(&checkout, "user", &["info"]).unwrap().says("different checksum");
    checkout.run(&["migrate", "check", "user"]).exits(3).says("has been edited since");
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
fn two_services_may_share_a_database() {
    let checkout = up(&["learning"]);
    for (name, table) in [("a", "a"), ("b", "b")] {
        fs::create_dir_all(checkout.root.join(format!("services/{name}/migrations"))).unwrap();
        write(
            &checkout,
            &format!("services/{name}/migrations/1_first.up.sql"),
            &format!("CREATE TABLE {table} (id int);\n"),
        );
        write(&checkout, &format!("services/{name}/migrations/1_first.down.sql"), &format!("DROP TABLE {table};\n"));
    }
    let databases = "[databases.learning]\n";
    checkout.replace(
        "config/effect.toml",
        databases,
        &format!("{databases}migrations = [\"services/a/migrations\", \"services/b/migrations\"]\n"),
    );
    checkout.run(&["migrate", "learning"]).ok().says("2 migrations");
    let learning = url(&checkout, "learning");
    sqlx_migrates(&learning, &checkout.root.join("services/a/migrations"), "_sqlx_migrations").unwrap();
    sqlx_migrates(&learning, &checkout.root.join("services/b/migrations"), "_sqlx_migrations_b").unwrap();
    checkout.run(&["migrate", "check", "learning"]).ok();
    checkout.run(&["migrate", "revert", "learning", "--yes"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT to_regclass('a') IS NOT NULL AND to_regclass('b') IS NULL"), "t");
    checkout.replace("config/effect.toml", "services/b/migrations", "services/a");
    fs::remove_dir_all(checkout.root.join("services/a/migrations")).unwrap();
    checkout.run(&["migrate", "learning"]).exits(1).says("cannot be read");
}

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
    write(&checkout, &format!("{LEARNING}/20300101000000_slow.up.sql"), "SELECT pg_sleep(3);\n");
    let learning = url(&checkout, "learning");
    let folder = checkout.root.join(LEARNING);
    let service = std::thread::spawn(move || {
        sqlx_migrates(&format!("{learning}?application_name=learning-service"), &folder, "_sqlx_migrations")
    });
    wait_until("sqlx is at work", || {
        checkout.sql(
            "learning",
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%' AND pid <> pg_backend_pid()",
        ) == "1"
    });
    checkout
        .run(&["migrate", "learning", "--lock-timeout-secs", "1"])
        .exits(1)
        .says("waiting for learning-service (pid ")
        .says("`learning` is being migrated by learning-service (pid ")
        .says("nothing was changed");
    checkout.run(&["migrate", "learning"]).ok().says("waiting for learning-service (pid ").says("nothing to do");
    service.join().unwrap().unwrap();
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
    for round in 0..20 {
        let migrate = checkout.spawn(&["migrate", "learning", "user"]);
        std::thread::sleep(std::time::Duration::from_millis(10 * round));
        signal(i32::try_from(migrate.id()).unwrap(), ["KILL", "KILL", "INT"][round as usize % 3]);
        finish(migrate);
        let status = checkout.run(&["migrate", "status", "learning", "user", "--json"]).ok().json();
        let applied = status["databases"].as_array().unwrap().iter().map(|database| {
            let migrations = database["migrations"].as_array().unwrap();
            migrations.iter().filter(|migration| migration["state"] == "applied").count()
        });
        let applied: Vec<usize> = applied.collect();
        assert!(applied == [0, 0] || applied == [5, 4], "killed in round {round}: {applied:?}");
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
