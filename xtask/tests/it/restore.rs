//! Restores: of databases, single tables, Redis and dumps made elsewhere, and the way back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{
    Checkout, ENGINES, Engine, Random, SmallDisk, finish, free_port, has_emulator, is_root, pid_of, ran, signal, skip,
    wait_until,
};

const COUNT: &str = "SELECT count(*) FROM learning_sessions";

#[test]
fn a_database_is_restored_swapped_back_and_let_go() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning"]).ok();
        checkout.run(&["seed", "learning"]).ok();
        let before = checkout.sql("learning", COUNT);
        checkout.run(&["restore", "learning"]).exits(1).says("there is no backup of `learning`");
        checkout.run(&["backup", "learning", "--label", "first"]).ok().says("1 database");
        checkout.sql("learning", "DELETE FROM session_answers; DELETE FROM learning_sessions");
        checkout.sql("learning", "ALTER DATABASE learning_db SET work_mem = '5MB'");
        checkout.run(&["backup", "learning"]).ok();

        let restored = checkout.run(&["restore", "learning", "20", "--json"]);
        restored.exits(2).says("begins several backups");
        let name = checkout.run(&["backup", "list", "--json"]).ok().json()["backups"][0]["backup"].clone();
        let name = name.as_str().unwrap();
        let restored = checkout.run(&["restore", "learning", name, "--json"]).ok().json();
        assert_eq!(restored["restored"][0]["backup"], name);
        assert_eq!(checkout.sql("learning", COUNT), before);
        checkout.run(&["migrate", "check", "learning"]).ok();

        checkout.run(&["restore", "learning", "--undo"]).ok().says("as it was before");
        assert_eq!(checkout.sql("learning", COUNT), "0", "the one that was replaced is back");
        assert_eq!(checkout.sql("learning", "SHOW work_mem"), "5MB", "with its settings");
        checkout.run(&["restore", "learning", "--undo"]).ok();
        assert_eq!(checkout.sql("learning", COUNT), before, "and so is the restored one");
        checkout.run(&["restore", "learning"]).ok();
        assert_eq!(checkout.sql("learning", COUNT), "0");
        assert_eq!(checkout.sql("learning", "SHOW work_mem"), "5MB", "the backup has the database's settings");

        // Prune alone leaves them; told to, it shows them, asks, and drops them.
        checkout.run(&["backup", "prune", "--yes"]).ok().says("nothing to remove").silent_about("old database");
        let prune = ["backup", "prune", "learning", "--old-databases"];
        let planned = checkout.run(&[&prune[..], &["--dry-run", "--json"]].concat()).ok().json();
        assert_eq!(planned["old_databases"].as_array().unwrap().len(), 2);
        checkout.run(&prune).exits(4).says("old database").says("--old-databases --yes");
        checkout.run(&["backup", "prune", "user", "--old-databases", "--yes"]).ok().says("nothing to remove");
        checkout.run(&[&prune[..], &["--yes"]].concat()).ok().says("2 old databases went");
        checkout.run(&["restore", "learning", "--undo"]).exits(1).says("nothing to go back to");
        checkout.run(&["restore", "learning"]).ok();
        checkout.run(&["restore", "learning"]).ok();

        // One whose dropping was interrupted is no database to go back to, and goes with the others.
        let halve = "UPDATE pg_database SET datconnlimit = -2 WHERE datname LIKE 'learning\\_db\\_before\\_%'";
        checkout.sql("learning", halve);
        checkout.run(&["restore", "learning", "--undo"]).exits(1).says("nothing to go back to");
        checkout.run(&["restore", "learning", "--drop-old"]).exits(4).says("nobody is there to ask");
        checkout.run(&["restore", "learning", "--drop-old", "--yes"]).ok().says("2 old databases dropped");
        checkout.run(&["restore", "learning", "--undo"]).exits(1).says("nothing to go back to");
        let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate";
        let kept: Vec<String> = checkout
            .sql("learning", databases)
            .split(' ')
            .map(str::to_owned)
            .filter(|name| name != "xtask_spare")
            .collect();
        assert_eq!(kept, ["learning_db", "postgres"]);
    }
}

#[test]
fn a_table_or_a_database_is_restored_beside_the_live_one() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "user"]).ok();
        checkout.run(&["seed", "user"]).ok();
        checkout.sql(
            "user",
            "CREATE SCHEMA s; CREATE TABLE s.parent (a int); CREATE TABLE s.\"A (b\" (c text) INHERITS (s.parent)",
        );
        checkout.sql(
            "user",
            "CREATE TABLE s.by_month (a int, b text DEFAULT 'x') PARTITION BY RANGE (a); \
             CREATE TABLE s.by_month_1 PARTITION OF s.by_month FOR VALUES FROM (0) TO (10) PARTITION BY LIST (b); \
             CREATE TABLE s.by_month_1w PARTITION OF s.by_month_1 FOR VALUES IN ('w'); \
             CREATE TABLE s.by_month_1rest PARTITION OF s.by_month_1 DEFAULT; \
             CREATE TABLE s.by_month_2 PARTITION OF s.by_month FOR VALUES FROM (10) TO (20); \
             INSERT INTO s.by_month VALUES (1, 'w'), (2, 'x'), (3, 'y'), (12, 'z')",
        );
        checkout.sql("user", "INSERT INTO s.\"A (b\" SELECT g, 'row ' || g FROM generate_series(1, 10) g");
        checkout.run(&["backup", "user"]).ok();
        let users = checkout.sql("user", "SELECT count(*) FROM users");
        checkout.sql("user", "DELETE FROM s.\"A (b\"; UPDATE users SET display_name = 'x'");

        checkout.run(&["restore", "user", "--table", "users"]).ok().says("beside the live table");
        assert_eq!(checkout.sql("user", "SELECT count(*) FROM users_restored WHERE display_name <> 'x'"), users);
        checkout.run(&["restore", "user", "--table", "users"]).exits(4).says("there is a table");
        checkout.run(&["restore", "user", "--table", "usres"]).exits(2).says("did you mean `users`");
        checkout.run(&["restore", "user", "--table", "s.A (b", "--into", "again"]).ok();
        assert_eq!(
            checkout.sql("user", "SELECT string_agg(a || c, ',' ORDER BY a) FROM s.again WHERE a < 3"),
            "1row 1,2row 2"
        );
        assert_eq!(checkout.sql("user", "SELECT count(*) FROM s.parent"), "0", "a copy is nobody's child");
        checkout.run(&["restore", "user", "--table", "by_month"]).ok().says("4 rows restored beside");
        assert_eq!(checkout.sql("user", "SELECT string_agg(b, '' ORDER BY a) FROM s.by_month_restored"), "wxyz");
        checkout.run(&["restore", "user", "--table", "by_month_2"]).ok().says("1 row restored beside");

        checkout.run(&["restore", "user", "--into", "tried"]).ok();
        checkout.run(&["restore", "user", "--into", "tried"]).exits(4).says("there is a database `tried` already");
        assert_eq!(
            checkout.sql("user", "SELECT count(DISTINCT display_name) FROM users"),
            "1",
            "the live one is as it was"
        );
    }
}

/// A database's own settings are there only once it is the live one; its contents must read the same before.
#[test]
fn a_database_that_shows_its_rows_in_another_way_is_restored() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["seed", "learning"]).ok();
    checkout.sql("learning", "ALTER DATABASE learning_db SET TimeZone = 'Asia/Tokyo'");
    checkout.sql("learning", "ALTER DATABASE learning_db SET bytea_output = 'escape'");
    checkout.sql("learning", "CREATE TABLE pieces AS SELECT '\\x00ff'::bytea AS piece, now() AS at");
    let shown = checkout.sql("learning", "TABLE pieces");
    assert!(shown.contains("+09") && shown.contains("\\377"), "{shown}");
    checkout.run(&["backup", "learning"]).ok();
    checkout.run(&["backup", "verify", "learning", "--restore"]).ok();
    checkout.sql("learning", "ALTER DATABASE learning_db RESET ALL");
    checkout.run(&["restore", "learning"]).ok();
    assert_eq!(checkout.sql("learning", "TABLE pieces"), shown);
}

#[test]
fn redis_and_topics_are_restored() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        let services: &[&str] = if has_emulator() { &["redis", "pubsub"] } else { &["redis"] };
        checkout.run(&[&["up", "--timeout-secs", "300"], services].concat()).ok();
        for number in 0..50 {
            checkout.run(&["redis-cli", "SET", &format!("key:{number}"), "value"]).ok();
        }
        checkout.run(&["redis-cli", "SET", "brief", "value", "EX", "600"]).ok();
        checkout.run(&[&["backup"], services].concat()).ok().says("51 keys");
        checkout.run(&["backup", "verify"]).ok();
        checkout.run(&["redis-cli", "FLUSHALL"]).ok();
        checkout.run(&["redis-cli", "SET", "later", "value"]).ok();
        checkout.run(&["restore", "redis"]).ok().says("51 keys");
        checkout.run(&["redis-cli", "DBSIZE"]).ok().says("51");
        checkout.run(&["redis-cli", "INFO", "replication"]).ok().says("role:master");
        checkout.run(&["restart", "redis"]).ok();
        checkout.run(&["redis-cli", "GET", "key:7"]).ok().says("value");
        checkout.run(&["restore", "redis", "--undo"]).ok();
        checkout.run(&["redis-cli", "KEYS", "*"]).ok().says("later").silent_about("key:7");
        if has_emulator() {
            // The emulator forgets everything when it stops, and `up` makes what the manifest names.
            checkout.run(&["restore", "pubsub"]).ok().says("6 topics");
        } else {
            skip("no Pub/Sub emulator");
        }
    }
}

/// What a killed restore leaves, and what a person has set up.
#[test]
fn redis_that_waits_for_the_server_of_a_killed_restore_is_its_own_master_again() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "redis"]).ok();
        let replica_of = |host: &str| {
            checkout.run(&["redis-cli", "REPLICAOF", host, &free_port().to_string()]).ok();
            checkout.run(&["redis-cli", "SET", "key", "other"]).says("READONLY");
        };
        let is_master = || checkout.run(&["redis-cli", "INFO", "replication"]).ok().out.contains("role:master");
        checkout.run(&["redis-cli", "SET", "key", "value"]).ok();
        replica_of("127.0.0.1");
        checkout.run(&["status"]).exits(3).says("`cargo xtask up redis` mends it");
        checkout.run(&["up", "redis"]).ok().says("takes writes again");
        assert!(is_master());
        checkout.run(&["up", "redis"]).ok().says("unchanged").silent_about("takes writes again");
        replica_of("127.0.0.1");
        checkout.run(&["backup", "redis"]).ok().says("note: redis takes writes again").says("1 key");
        replica_of("127.0.0.1");
        checkout.run(&["restore", "redis"]).ok().says("note: redis takes writes again").says("1 key");
        assert!(is_master());
        checkout.run(&["redis-cli", "GET", "key"]).ok().says("value");
        replica_of("127.0.0.2");
        checkout.run(&["up", "redis"]).ok().says("unchanged");
        assert!(!is_master(), "another host's replica is somebody's will");
    }
}

#[test]
fn redis_takes_writes_after_a_restore_was_killed_at_any_moment() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "redis"]).ok();
        checkout.run(&["redis-cli", "EVAL", "for i = 1, 50000 do redis.call('SET', i, i) end", "0"]).ok();
        checkout.run(&["backup", "redis"]).ok();
        let begun = std::time::Instant::now();
        checkout.run(&["restore", "redis"]).ok();
        let whole = u64::try_from(begun.elapsed().as_millis()).unwrap();
        let mut random = Random(29);
        for round in 0..if engine == Engine::Native { 12 } else { 4 } {
            let helper = checkout.spawn(&["restore", "redis"]);
            std::thread::sleep(std::time::Duration::from_millis(random.below(whole)));
            signal(pid_of(&helper), "KILL");
            finish(helper);
            let is_up = || checkout.run(&["up", "redis"]).code == Some(0);
            wait_until("it takes writes", || is_up() && checkout.run(&["redis-cli", "SET", "1", "1"]).out == "OK\n");
            let keys = checkout.run(&["redis-cli", "DBSIZE"]).ok();
            assert!(keys.out.ends_with(" 50000\n"), "round {round}: {}", keys.out);
            checkout.run(&["backup", "redis"]).ok().silent_about("takes writes again");
        }
        checkout.run(&["restore", "redis"]).ok().says("50,000 keys");
    }
}

/// PostgreSQL's own client, beside the server.
fn client(checkout: &Checkout, name: &str) -> PathBuf {
    let program = checkout.record("learning").unwrap()["program"].as_str().unwrap().to_owned();
    PathBuf::from(program).with_file_name(name)
}

fn dump(checkout: &Checkout, options: &[&str], file: &str) -> PathBuf {
    let path = checkout.beside(file);
    let program = client(checkout, "pg_dump").display().to_string();
    let path_text = path.display().to_string();
    checkout.run(&[&["run", "learning", "--", &program, "--file", &path_text], options].concat()).ok();
    path
}

#[test]
fn dumps_made_elsewhere_are_restored_whatever_their_form() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["seed", "learning"]).ok();
    let before = checkout.sql("learning", COUNT);
    checkout.sql("learning", "CREATE ROLE neon_owner; CREATE SCHEMA \"Sp ace\" AUTHORIZATION neon_owner");
    checkout.sql("learning", "CREATE TABLE \"Sp ace\".\"学習\" AS SELECT '\\.'::text AS \"co;l\", E'a\\tb\\\\' AS b");
    checkout.sql(
        "learning",
        "ALTER TABLE \"Sp ace\".\"学習\" OWNER TO neon_owner; GRANT SELECT ON learning_sessions TO neon_owner",
    );
    let mut files = vec![
        dump(&checkout, &[], "plain.sql"),
        dump(&checkout, &["--create", "--inserts"], "inserts.sql"),
        dump(&checkout, &["--format=custom"], "custom.dump"),
        dump(&checkout, &["--format=tar"], "a.tar"),
        dump(&checkout, &["--format=directory"], "folder"),
    ];
    ran(gzip(&files[0])).ok();
    files.push(checkout.beside("plain.sql.gz"));
    // Elsewhere means that this server does not know the roles.
    checkout.sql("learning", "DROP SCHEMA \"Sp ace\" CASCADE; DROP OWNED BY neon_owner; DROP ROLE neon_owner");
    for file in &files {
        checkout.sql("learning", "TRUNCATE learning_sessions CASCADE");
        let file = file.display().to_string();
        let told = checkout.run(&["restore", "learning", "--from", &file]).ok();
        assert_eq!(checkout.sql("learning", COUNT), before, "{file}");
        assert_eq!(checkout.sql("learning", "SELECT \"co;l\" || b FROM \"Sp ace\".\"学習\""), "\\.a\tb\\", "{file}");
        assert!(told.err.contains("neon_owner"), "{file}: {}", told.err);
        checkout.run(&["restore", "learning", "--drop-old", "--yes"]).ok();
    }
    // Not in the place of the live one.
    let file = files[0].display().to_string();
    checkout.run(&["restore", "learning", "--from", &file, "--into", "elsewhere"]).ok().says("into `elsewhere`");
    checkout.run(&["restore", "learning", "--from", &file, "--into", "elsewhere"]).exits(4);
}

fn gzip(file: &std::path::Path) -> Command {
    let mut command = Command::new("gzip");
    command.arg("--keep").arg(file);
    command
}

#[test]
fn a_dump_that_is_broken_or_hostile_changes_nothing() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["seed", "learning"]).ok();
    let before = checkout.sql("learning", COUNT);
    let plain = fs::read_to_string(dump(&checkout, &[], "plain.sql")).unwrap();
    let custom = fs::read(dump(&checkout, &["--format=custom"], "custom.dump")).unwrap();
    let mark = checkout.beside("mark");
    let at = |text: &str| plain.find(text).unwrap();
    let cases: [(&str, Vec<u8>, i32, &str); 9] = [
        ("shell.sql", format!("SELECT 1;\n\\! touch {}\n", mark.display()).into_bytes(), 4, "shell.sql:2"),
        ("hidden.sql", format!("SELECT 1 \\! touch {}\n;\n", mark.display()).into_bytes(), 4, "command of psql"),
        ("copy.sql", b"\\copy t FROM '/etc/passwd'\n".to_vec(), 4, "copy.sql:1"),
        ("wrong.sql", plain.replacen(" integer", " integr", 1).into_bytes(), 1, "type \"integr\" does not exist"),
        ("rows.sql", plain.as_bytes()[..at("FROM stdin;\n") + 40].to_vec(), 1, "cut off"),
        ("text.sql", plain.as_bytes()[..at("CREATE TABLE") + 60].to_vec(), 4, "cut off"),
        ("cut.dump", custom[..custom.len() * 3 / 5].to_vec(), 1, "pg_restore"),
        ("latin.sql", b"SELECT '\xe4';\n".to_vec(), 4, "not UTF-8"),
        ("other", vec![0; 600], 2, "no dump that this helper knows"),
    ];
    for (name, content, code, words) in cases {
        let file = checkout.beside(name);
        fs::write(&file, content).unwrap();
        checkout.run(&["restore", "learning", "--from", &file.display().to_string()]).exits(code).says(words);
        assert_eq!(checkout.sql("learning", COUNT), before, "{name}");
    }
    assert!(!mark.exists(), "a dump started a program");
    checkout.run(&["restore", "learning", "--undo"]).exits(1).says("nothing to go back to");
    let left = checkout.sql("learning", "SELECT count(*) FROM pg_database WHERE datname LIKE 'xtask_side_%'");
    assert_eq!(left, "0", "nothing is left of what failed");
    for extension in
        ["CREATE EXTENSION IF NOT EXISTS no_such_thing WITH SCHEMA public;", "CREATE EXTENSION IF NOT EXISTS nor_this;"]
    {
        let file = checkout.beside("extension.sql");
        fs::write(&file, format!("{extension}\n")).unwrap();
        checkout
            .run(&["restore", "learning", "--from", &file.display().to_string()])
            .exits(1)
            .says("extensions that this server has not");
    }
}

/// Found before where it can be, else when the server says so; it may even end over it.
#[test]
fn a_full_disk_ends_a_restore_and_costs_the_live_database_nothing() {
    if !is_root() {
        return skip("only root can mount a small disk");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "user"]).ok();
    let folder = checkout.data_folder("effect").join("learning");
    fs::create_dir(&folder).unwrap();
    let _disk = SmallDisk::mount(&folder, "700m");
    let owner = fs::metadata(checkout.record_path("user")).unwrap().uid();
    std::os::unix::fs::chown(&folder, Some(owner), None).unwrap();
    checkout.run(&["up", "learning", "--no-migrate"]).ok();
    checkout.sql(
        "learning",
        "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 8) AS text FROM generate_series(1, 400000) g",
    );
    checkout.sql("learning", "CHECKPOINT");
    checkout.run(&["backup", "learning"]).ok();
    let balloon = folder.join("balloon");
    let leave = |bytes: u64| {
        drop(fs::remove_file(&balloon));
        let space = rustix::fs::statvfs(&folder).unwrap();
        let file = fs::File::create(&balloon).unwrap();
        let size = (space.f_bavail * space.f_frsize).saturating_sub(bytes);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    };
    leave(20 << 20);
    checkout.run(&["restore", "learning"]).exits(1).says("are free");
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM big"), "400000");
    leave(300 << 20);
    let restore = checkout.spawn(&["restore", "learning"]);
    let begun = "SELECT count(*) FROM pg_database WHERE datname LIKE 'xtask_side_%'";
    wait_until("the restore has begun", || checkout.sql("learning", begun) == "1");
    // Whatever the restore has left of it, down to the last pieces.
    let file = fs::OpenOptions::new().append(true).open(&balloon).unwrap();
    let mut size = file.metadata().unwrap().len();
    while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), size, 1 << 20).is_ok() {
        size += 1 << 20;
    }
    finish(restore).exits(1).says("`learning` was not restored, and is as it was");
    drop(file);
    fs::remove_file(&balloon).unwrap();
    wait_until("its server is back", || checkout.run(&["up", "learning", "--no-migrate"]).code == Some(0));
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM big"), "400000");
    checkout.run(&["restore", "learning"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM pg_database WHERE datname LIKE 'xtask_side_%'"), "0");
    checkout.run(&["down"]).ok();
}
