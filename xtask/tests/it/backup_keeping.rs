//! What stays of backups: the rules of `prune`, what it never removes, and what it does with things that are no backups.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Checkout, ENGINES, Engine, copy_tree};

/// A checkout with one backup of `pubsub`-like smallness: Redis without keys. Nothing runs any more.
fn checkout_with_a_backup() -> (Checkout, PathBuf) {
    let checkout = Checkout::new();
    checkout.run(&["up", "redis"]).ok();
    checkout.run(&["backup", "redis"]).ok();
    checkout.run(&["stop"]).ok();
    let folder = checkout.root.join("backups/effect/redis");
    let only = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    (checkout, only)
}

/// The same backup once more, as if it had been taken at another time.
fn again_at(backup: &Path, time: &str) -> PathBuf {
    let name = time.replace(':', "-");
    let copy = backup.with_file_name(&name);
    copy_tree(backup, &copy);
    let mut manifest: Value = serde_json::from_slice(&fs::read(copy.join("manifest.json")).unwrap()).unwrap();
    manifest["backup"] = json!(name);
    manifest["taken"] = json!(time);
    write_manifest(&copy, &manifest);
    copy
}

fn write_manifest(folder: &Path, manifest: &Value) {
    let text = serde_json::to_vec(manifest).unwrap();
    let (hash, _) = archive::part::digest(&text[..]).unwrap();
    fs::write(folder.join("manifest.json"), text).unwrap();
    fs::write(folder.join("manifest.json.b3"), format!("{hash}  manifest.json\n")).unwrap();
}

fn verdicts(plan: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    plan["backups"].as_array().unwrap().iter().map(|one| (text(&one["backup"]), text(&one["verdict"]))).collect()
}

#[test]
fn prune_does_what_its_dry_run_says() {
    let (checkout, only) = checkout_with_a_backup();
    let verified = again_at(&only, "2025-01-05T03:00:00Z");
    checkout.run(&["backup", "verify", "redis", "--backup", "2025-01-05T03"]).ok();
    for time in ["2025-01-06T03:00:00Z", "2025-02-01T03:00:00Z", "2025-02-01T04:00:00Z"] {
        again_at(&only, time);
    }
    let broken = again_at(&only, "2025-02-02T03:00:00Z");
    fs::write(broken.join("manifest.json"), "{}").unwrap();
    let left = only.with_file_name(".partial-2025-02-03T03-00-00Z");
    fs::create_dir_all(left.join("parts")).unwrap();

    let rules = ["--keep-last", "1", "--keep-daily", "2", "--keep-weekly", "0", "--keep-monthly", "0"];
    let prune = |more: &[&str]| checkout.run(&[&["backup", "prune"], &rules[..], more].concat());
    let plan = prune(&["--dry-run", "--json"]).ok().json();
    let expected = [
        ("2025-01-05T03-00-00Z", "keep"),
        ("2025-01-06T03-00-00Z", "remove"),
        ("2025-02-01T03-00-00Z", "remove"),
        ("2025-02-01T04-00-00Z", "keep"),
        ("2025-02-02T03-00-00Z", "broken"),
    ];
    for (found, expected) in verdicts(&plan).iter().zip(expected) {
        assert_eq!((found.0.as_str(), found.1.as_str()), expected);
    }
    assert_eq!(plan["backups"][0]["reasons"], json!(["last-verified"]));
    assert_eq!(plan["backups"][5]["reasons"], json!(["last", "daily"]));
    assert_eq!(plan["leftovers"].as_array().unwrap().len(), 1);
    prune(&["--dry-run"]).ok().says("left alone").says("the last that is verified").says("2 backups would go");
    prune(&[]).exits(4).says("nobody is there to ask, nothing was removed");
    assert_eq!(verdicts(&prune(&["--dry-run", "--json"]).ok().json()).len(), 6, "nothing went so far");

    prune(&["--yes"]).ok().says("2 backups went").says("1 leftover went").says("1 broken, left alone");
    let after = verdicts(&prune(&["--dry-run", "--json"]).ok().json());
    assert_eq!(after.iter().filter(|(_, verdict)| verdict == "keep").count(), 3);
    assert_eq!(after.len(), 4);
    assert!(broken.exists() && verified.exists() && !left.exists());
    prune(&["--yes"]).ok().says("nothing to remove; 3 backups stay");
    // Whatever the numbers say: the last verified one, and the only one.
    let nothing = ["--keep-last=0", "--keep-daily=0", "--keep-weekly=0", "--keep-monthly=0", "--yes"];
    let prune_all = || checkout.run(&[&["backup", "prune"], &nothing[..]].concat());
    prune_all().ok();
    assert!(verified.exists() && !only.exists());
    fs::remove_file(verified.join("verified.json")).unwrap();
    prune_all().ok().says("nothing to remove");
    assert!(verified.exists(), "there is no other");
    checkout.run(&["backup", "list"]).ok().says("2025-01-05T03-00-00Z");
}

#[test]
fn prune_stays_within_the_backups() {
    let (checkout, only) = checkout_with_a_backup();
    let precious = checkout.beside("precious");
    copy_tree(&only, &precious);
    let place = only.parent().unwrap().to_owned();
    // A link with the name of a backup, of a leftover, files where folders belong, and somebody's notes.
    symlink(&precious, place.join("2024-01-01T00-00-00Z")).unwrap();
    symlink(&precious, place.join(".partial-2024-01-01T00-00-00Z")).unwrap();
    fs::write(place.join("2024-01-02T00-00-00Z"), "a file").unwrap();
    fs::write(place.join("../saga"), "a file").unwrap();
    fs::create_dir(place.join("notes")).unwrap();
    // A backup that names what is not its own, and one that says to be another.
    let escaping = again_at(&only, "2024-01-03T00:00:00Z");
    let mut manifest: Value = serde_json::from_slice(&fs::read(escaping.join("manifest.json")).unwrap()).unwrap();
    manifest["parts"][0]["file"] = json!("../../precious/dump");
    write_manifest(&escaping, &manifest);
    let posing = place.join("2024-01-04T00-00-00Z");
    copy_tree(&only, &posing);

    let arguments = ["backup", "prune", "--keep-last=1", "--keep-daily=0", "--keep-weekly=0", "--keep-monthly=0"];
    let ran = checkout.run(&[&arguments[..], &["--yes"]].concat()).ok().says("2 broken, left alone");
    assert!(ran.err.contains("nothing to remove"), "{}", ran.err);
    for stays in ["2024-01-01T00-00-00Z", "2024-01-02T00-00-00Z", "notes", ".partial-2024-01-01T00-00-00Z"] {
        assert!(place.join(stays).symlink_metadata().is_ok(), "{stays}");
    }
    assert!(precious.join("manifest.json").exists() && escaping.exists() && posing.exists());
    checkout.run(&["backup", "show", "redis", "2024-01-03"]).exits(3).says("names a part outside of the backup");
    checkout.run(&["backup", "show", "redis", "2024-01-04"]).exits(3).says("says that it is backup");
    checkout.run(&["backup", "list", "saga"]).exits(1).says("cannot read").says("saga");
    checkout.run(&["backup", "prune", "sagaa"]).exits(2).says("did you mean `saga`?");
    checkout.run(&["backup", "prune", "--at", "/nowhere", "--yes"]).ok().says("nothing to remove");
}

#[test]
fn rules_come_from_the_manifest_and_must_keep_something() {
    let (checkout, only) = checkout_with_a_backup();
    again_at(&only, "2025-01-05T03:00:00Z");
    let rules = "keep-last = 3\nkeep-daily = 7\nkeep-weekly = 4\nkeep-monthly = 6";
    checkout.replace("config/effect.toml", rules, "keep-last = 1\nkeep-daily = 0\nkeep-weekly = 0\nkeep-monthly = 0");
    checkout.run(&["backup", "prune", "--dry-run"]).ok().says("1 backup would go");
    checkout.run(&["backup", "prune", "--dry-run", "--keep-last", "2"]).ok().says("nothing to remove");
    checkout.replace("config/effect.toml", "keep-last = 1", "keep-last = 0");
    checkout.run(&["backup", "prune", "--dry-run"]).exits(2).says("rules that keep nothing");
    checkout.replace("config/effect.toml", "keep-last = 0", "keep-last = -1");
    checkout.run(&["backup", "prune", "--dry-run"]).exits(2).says("backup.keep-last");
}

/// Two checkouts may keep their backups in one place: neither takes the other's work for a leftover.
#[test]
fn what_somebody_else_is_writing_is_no_leftover() {
    let (checkout, only) = checkout_with_a_backup();
    let writing = only.with_file_name(".partial-2025-02-03T03-00-00Z");
    fs::create_dir(&writing).unwrap();
    let claim = fs::File::open(&writing).unwrap();
    claim.try_lock().unwrap();
    checkout.run(&["backup", "prune", "--yes"]).ok().silent_about("leftover");
    assert!(writing.exists());
    drop(claim);
    checkout.run(&["backup", "prune", "--yes"]).ok().says("1 leftover went");
    assert!(!writing.exists());
}

/// Two checkouts keep their backups in one place. Each has its own series, also once its instance is another one.
#[test]
fn nobody_prunes_what_another_checkout_keeps() {
    let (one, other) = (Checkout::new(), Checkout::new());
    let shared = one.beside("shared").display().to_string();
    let backup = |checkout: &Checkout| {
        let taken = checkout.run(&["backup", "redis", "--to", &shared, "--json"]).ok().json();
        taken["backups"][0]["manifest"]["backup"].as_str().unwrap().to_owned()
    };
    for checkout in [&one, &other] {
        checkout.run(&["up", "redis"]).ok();
    }
    let verified = backup(&one);
    one.run(&["backup", "verify", "redis", "--at", &shared]).ok();
    let (gone, last) = (backup(&one), backup(&one));
    let others = [backup(&other), backup(&other)];
    one.run(&["down", "--volumes", "--yes", "--discard"]).ok();
    one.run(&["up", "redis"]).ok();
    let again = backup(&one);
    // As an earlier version has left it.
    let kept = Path::new(&shared).join("effect/redis");
    let old = again_at(&kept.join(&verified), "2025-01-05T03:00:00Z");
    let mut manifest: Value = serde_json::from_slice(&fs::read(old.join("manifest.json")).unwrap()).unwrap();
    manifest["format"] = json!(1);
    manifest.as_object_mut().unwrap().remove("origin");
    write_manifest(&old, &manifest);

    let rules = ["--keep-last=1", "--keep-daily=0", "--keep-weekly=0", "--keep-monthly=0"];
    let prune = |more: &[&str]| other.run(&[&["backup", "prune", "--at", &shared], &rules[..], more].concat()).ok();
    let plan = prune(&["--dry-run", "--json"]).json();
    let removed: Vec<String> =
        verdicts(&plan).into_iter().filter(|(_, verdict)| verdict == "remove").map(|(backup, _)| backup).collect();
    assert_eq!(removed, [gone, last, others[0].clone()]);
    prune(&["--dry-run"]).says(&format!("from {}", plan["backups"][1]["origin"]["machine"].as_str().unwrap()));
    prune(&["--dry-run"]).says("from an earlier version of this helper");
    prune(&["--yes"]).says("3 backups went");
    for stays in [&verified, &others[1], &again, &"2025-01-05T03-00-00Z".to_owned()] {
        assert!(kept.join(stays).exists(), "{stays}");
    }
    one.run(&["backup", "verify", "--every", "--at", &shared]).ok().says("4 backups verified");
    let shown = one.run(&["backup", "show", "redis", "--at", &shared]).ok();
    shown.says(&format!(":{}", one.root.display()));
}

#[test]
fn what_is_destroyed_is_backed_up_first() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning", "user"]).ok();
        checkout.sql("learning", "CREATE TABLE kept AS SELECT generate_series(1, 100) AS id");
        checkout.run(&["backup", "user"]).ok();
        checkout.run(&["backup", "verify", "user"]).ok();
        let refused = checkout.run(&["down", "--volumes"]).exits(4);
        refused.says("never backed up").says("ago, verified").says("A backup of learning is taken first");
        assert!(!checkout.root.join("backups/effect/learning").exists(), "nobody agreed so far");
        checkout.run(&["down", "--volumes", "--dry-run"]).ok().says("learning: back it up first");
        // A place that takes no backup is no reason to lose what has none.
        let backups = checkout.root.join("backups/effect/learning");
        fs::write(&backups, "in the way").unwrap();
        checkout.run(&["down", "--volumes", "--yes"]).exits(1).says("cannot read").says("learning");
        fs::remove_file(&backups).unwrap();
        // Nor is a database that cannot be dumped.
        checkout.sql("learning", "CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT 1'");
        checkout.sql("learning", "UPDATE pg_proc SET prolang = 999999 WHERE proname = 'broken'");
        let ran = checkout.run(&["down", "--volumes", "--yes"]).exits(1);
        ran.says("no backup of learning could be taken, nothing was destroyed").says("`--no-backup`");
        assert_eq!(checkout.sql("learning", "SELECT count(*) FROM kept"), "100", "{engine:?}");
    }
}

#[test]
fn what_is_destroyed_comes_back_from_the_backup_that_was_taken_first() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning", "user"]).ok();
        checkout.sql("learning", "CREATE TABLE kept AS SELECT generate_series(1, 100) AS id");
        checkout.run(&["stop", "user"]).ok();
        let discard = ["down", "--volumes", "--yes"];
        let ran =
            checkout.run(&[&discard[..], if engine == Engine::Native { &["--discard"] } else { &[] }].concat()).ok();
        ran.says("No backup of user can be taken: not running").says("backed up learning → backups/effect/*/");
        checkout.run(&["backup", "list"]).ok().says("-before-down").says("1 backup");
        checkout.run(&["up", "learning"]).ok();
        checkout.run(&["restore", "learning", "--yes", "--force"]).ok();
        assert_eq!(checkout.sql("learning", "SELECT count(*) FROM kept"), "100", "{engine:?}");
        let ran = checkout.run(&["down", "--volumes", "--yes", "--no-backup"]).ok();
        ran.says("last backup").silent_about("backed up learning");
    }
}

#[test]
fn seeding_again_and_reverting_back_up_first() {
    let checkout = Checkout::new();
    checkout.run(&["up", "user", "learning"]).ok();
    checkout.run(&["seed", "user", "learning"]).ok();
    checkout.run(&["seed", "user", "--again"]).exits(4).says("never backed up").says("A backup of user is taken first");
    checkout.run(&["seed", "user", "--again", "--yes", "--no-backup"]).ok().silent_about("backed up user");
    checkout.run(&["seed", "user", "--again", "--yes"]).ok().says("backed up user");
    checkout.run(&["backup", "list", "user"]).ok().says("-before-seed");
    checkout.run(&["migrate", "revert", "user", "--dry-run"]).ok().says("last backup").silent_about("taken first");
    let ran = checkout.run(&["migrate", "revert", "learning", "--yes"]).ok();
    ran.says("never backed up").says("backed up learning");
    checkout.run(&["backup", "list", "learning"]).ok().says("-before-revert");
}
