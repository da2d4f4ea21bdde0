//! `migrate` and sqlx: histories that each reads as the other wrote them, from its library and from its command.

use std::fs;
use std::process::Command;

use super::{up, url, write};
use crate::support::{Checkout, Ran, ran, skip};

/// The real sqlx, as a service calls it when it starts.
pub fn sqlx_migrates(url: &str, folder: &std::path::Path, table: &str) -> Result<(), String> {
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
