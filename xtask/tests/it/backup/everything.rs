//! A database with everything that PostgreSQL has comes back as it was; told apart by pg_dump's own text, not by the helper.

use std::process::Command;

use super::{REPLACED, SIDES, beside};
use crate::support::{Checkout, finish, has_postgres_15, ran, repository, skip};

/// One database of a stack, with the clients beside its server.
struct Database<'a> {
    checkout: &'a Checkout,
    stack: &'static str,
    name: &'static str,
}

impl Database<'_> {
    fn run(&self, arguments: &[&str]) -> crate::support::Ran {
        self.checkout.run(&[arguments, &["--stack", self.stack]].concat())
    }

    #[track_caller]
    fn load_everything(&self) {
        let file = repository().join("xtask/tests/it/everything.sql");
        let mut psql = self.client("psql");
        psql.arg("-Xf").arg(file);
        let loaded = ran(psql).ok();
        assert_eq!(loaded.err, "");
    }

    fn client(&self, program: &str) -> Command {
        let folder = self.checkout.data_folder(self.stack).join(self.name);
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let server = std::path::Path::new(record["program"].as_str().unwrap()).canonicalize().unwrap();
        let mut client = Command::new(server.with_file_name(program));
        client.env("PGHOST", text(&record["sockets"])).env("PGPORT", record["port"].to_string());
        client.env("PGUSER", text(&record["login"]["user"])).env("PGDATABASE", text(&record["login"]["database"]));
        client
    }

    /// What pg_dump says, in text, but for what it makes up each time.
    #[track_caller]
    fn dumped(&self, options: &[&str]) -> Vec<String> {
        let mut dump = self.client("pg_dump");
        dump.args(options);
        let text = ran(dump).ok().out;
        let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.map(str::to_owned).collect()
    }

    /// Rows of every table, counted by the server. Partitions of a hash may have changed places.
    #[track_caller]
    fn counts(&self) -> String {
        let sql = "SELECT format('SELECT %L, count(*) FROM %s', oid::regclass, oid::regclass) FROM pg_class \
            WHERE relkind IN ('r', 'p', 'm') AND relispopulated AND relnamespace::regnamespace::text \
            NOT IN ('pg_catalog', 'pg_toast', 'information_schema') AND relname NOT LIKE 'by\\_mood\\__' \
            AND relname <> 'spread' ORDER BY oid::regclass::text \\gexec";
        let file = self.checkout.beside("counts.sql");
        std::fs::write(&file, sql).unwrap();
        let mut psql = self.client("psql");
        psql.arg("-XAtf").arg(file);
        ran(psql).ok().out
    }
}

#[track_caller]
fn assert_same(before: &[String], after: &[String]) {
    let only = |these: &[String], those: &[String]| {
        let those: std::collections::BTreeSet<&String> = those.iter().collect();
        these.iter().filter(|line| !those.contains(line)).take(20).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(before == after, "only before:\n{}\nonly after:\n{}", only(before, after), only(after, before));
}

#[track_caller]
fn comes_back(database: &Database<'_>) {
    database.load_everything();
    let schema = ["--create", "--schema-only"];
    let (definitions, counts) = (database.dumped(&schema), database.counts());
    // A row may have another place, no more.
    let rows = || {
        let mut rows = database.dumped(&["--data-only"]);
        rows.sort();
        rows
    };
    let before = rows();
    let sizes = (definitions.len(), before.len(), counts.lines().count());
    assert!(sizes.0 > 1500 && sizes.1 > 1200 && sizes.2 > 35, "{sizes:?}");
    let name = database.name;
    database.run(&["backup", name]).ok();
    database.run(&["backup", "verify", name, "--restore"]).ok().says("restored, and the same");
    assert_same(&definitions, &database.dumped(&schema));
    for _ in 0..2 {
        database.run(&["restore", name]).ok();
        assert_same(&definitions, &database.dumped(&schema));
        assert_same(&before, &rows());
        assert_eq!(database.counts(), counts);
    }
    database.run(&["restore", name, "--undo"]).ok();
    assert_same(&definitions, &database.dumped(&schema));
    database.run(&["restore", name, "--drop-old", "--yes"]).ok().says("2 old databases dropped");
}

#[test]
fn a_database_with_everything_that_postgresql_has_comes_back_as_it_was() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    comes_back(&Database { checkout: &checkout, stack: "effect", name: "learning" });
    assert_eq!(beside(&checkout, SIDES) + &beside(&checkout, REPLACED), "");
}

/// One value of a hundred megabytes, and a thousand tables: neither makes the helper large.
#[test]
fn memory_does_not_grow_with_a_value_nor_with_the_number_of_tables() {
    const LIMIT_MB: u64 = 128;
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.sql(
        "learning",
        "DO $$ BEGIN FOR n IN 1..1000 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT %s AS id, ''text'' AS text', n, n); \
         END LOOP; END $$; CREATE TABLE heavy AS SELECT 1 AS id, (SELECT string_agg(decode(repeat(md5(n::text), 3200), 'hex'), '') \
         FROM generate_series(1, 2048) AS n) AS bytes",
    );
    assert_eq!(checkout.sql("learning", "SELECT length(bytes) FROM heavy"), "104857600");
    let hash = "SELECT sha256(bytes) FROM heavy";
    let before = checkout.sql("learning", hash);
    for verb in [&["backup", "learning"][..], &["backup", "verify", "learning"], &["restore", "learning"]] {
        let helper = checkout.spawn(verb);
        let status = format!("/proc/{}/status", helper.id());
        let mut most = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
            most = line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1000;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        finish(helper).ok();
        assert!((1..LIMIT_MB).contains(&most), "{verb:?} took {most} MB");
    }
    assert_eq!(checkout.sql("learning", hash), before);
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM pg_tables WHERE tablename ~ '^t[0-9]+$'"), "1000");
}

#[test]
fn a_database_of_postgresql_15_comes_back_and_moves_to_18() {
    if !has_postgres_15() {
        return skip("no PostgreSQL 15");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "game", "--stack", "nanika"]).ok();
    let old = Database { checkout: &checkout, stack: "nanika", name: "game" };
    comes_back(&old);
    // Another machine, which has the same stack with a newer server.
    let other = Checkout::new();
    other.replace("config/nanika.toml", "major = 15\nimage = \"postgres-15\"", "major = 18\nimage = \"postgres-18\"");
    other.run(&["up", "game", "--stack", "nanika"]).ok();
    let new = Database { checkout: &other, stack: "nanika", name: "game" };
    let folder = checkout.root.join("backups").display().to_string();
    new.run(&["backup", "verify", "--at", &folder, "--restore"]).ok().says("restored, and the same");
    new.run(&["restore", "game", "--at", &folder]).ok();
    assert_eq!(new.counts(), old.counts());
}
