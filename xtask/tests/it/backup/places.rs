//! Where backups go and come from: folders with odd names, full disks, other checkouts; and those that only the owner of a key
//! can read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{SIDES, beside, files, fill, latest, listed, people, rows};
use crate::support::{Checkout, is_root, ran, skip, wait_until};

#[test]
fn a_backup_goes_where_it_is_told_and_comes_back_in_another_checkout() {
    let checkout = Checkout::named("日本 語 checkout");
    checkout.run(&["up", "learning"]).ok();
    fill(&checkout, 500);
    let backed_up = people(&checkout);
    let ran = checkout.run(&["backup", "learning", "--to", "../some where/バックアップ"]).ok();
    let folder = checkout.beside("some where").join("バックアップ");
    assert!(ran.err.contains("learning") && folder.join("effect/learning").is_dir(), "{}", ran.err);
    for file in files(&folder) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    checkout.run(&["backup", "list"]).ok().says("no backups yet");
    for label in ["a b", "../x", "", "日本", "x/y"] {
        checkout.run(&["backup", "learning", "--label", label]).exits(2).says("cannot be a label");
    }

    let other = Checkout::new();
    other.run(&["up", "learning"]).ok();
    let at = folder.display().to_string();
    other.run(&["backup", "list", "--at", &at]).ok().says("learning");
    other.run(&["backup", "verify", "--at", &at]).ok();
    other.run(&["restore", "learning", "--at", &at]).ok();
    assert_eq!(rows(&people(&other)), rows(&backed_up));
}

/// A small file system that is gone when this is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(folder: PathBuf, megabytes: u32) -> Option<Small> {
        fs::create_dir_all(&folder).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_is_said_before_or_leaves_nothing() {
    if !is_root() {
        return skip("only root can mount a small file system");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.sql(
        "learning",
        "CREATE TABLE noise AS SELECT id, (SELECT string_agg(sha256((id * 1000 + n)::text::bytea), '') \
         FROM generate_series(1, 300) AS n) AS bytes FROM generate_series(1, 3000) AS id",
    );
    let Some(small) = Small::mount(checkout.beside("small"), 8) else { return skip("no tmpfs can be mounted") };
    let to = small.0.display().to_string();
    let full = checkout.run(&["backup", "learning", "--to", &to]).exits(1);
    assert!(full.err.contains("are free") && full.err.contains("--to"), "{}", full.err);
    assert!(files(&small.0).is_empty(), "{:?}", files(&small.0));
    drop(small);

    // Somebody else fills it while the backup is written.
    let Some(small) = Small::mount(checkout.beside("small"), 80) else { return skip("no tmpfs can be mounted") };
    let backup = checkout.spawn(&["backup", "learning", "--to", &to]);
    wait_until("it is written", || !files(&small.0).is_empty());
    let mut filling = Command::new("dd");
    ran({
        filling.args(["if=/dev/zero", "bs=64k"]).arg(format!("of={to}/filling"));
        filling
    });
    let full = crate::support::finish(backup).exits(1).says("No space left on device");
    assert!(full.err.contains("cannot back up `learning`"), "{}", full.err);
    assert_eq!(files(&small.0), [small.0.join("filling")], "nothing of the backup is left");
    fs::remove_file(small.0.join("filling")).unwrap();
    checkout.run(&["backup", "learning", "--to", &to]).ok();
    checkout.run(&["backup", "verify", "--at", &to]).ok();
}

#[test]
fn only_the_owner_of_the_key_reads_an_encrypted_backup_and_everybody_can_prove_its_bytes() {
    if which::which("age").is_err() || which::which("age-keygen").is_err() {
        return skip("no `age`");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    fill(&checkout, 2000);
    let backed_up = people(&checkout);
    let key = |name: &str| {
        let mut keygen = Command::new("age-keygen");
        keygen.arg("-o").arg(checkout.root.join(name));
        let made = ran(keygen).ok();
        made.err.lines().find_map(|line| line.strip_prefix("Public key: ")).unwrap().to_owned()
    };
    let (ours, _theirs) = (key("ours.txt"), key("theirs.txt"));
    checkout.run(&["backup", "--recipient", "age1nonsense"]).exits(1);
    assert!(files(&checkout.root.join("backups")).is_empty());
    checkout.run(&["backup", "--recipient", &ours]).ok();
    let folder = latest(&checkout, "learning");
    for file in files(&folder.join("parts")) {
        let bytes = fs::read(&file).unwrap();
        assert!(bytes.starts_with(b"age-encryption.org/v1"), "{}", file.display());
    }
    checkout.run(&["backup", "list"]).ok().says("learning");
    checkout.run(&["backup", "verify"]).ok().says("2 backups verified");
    checkout.run(&["backup", "verify", "--identity", "ours.txt", "--restore"]).ok().says("restored, and the same");
    let verified = || listed(&checkout)[0]["verified"].clone();
    let before = verified();
    let wrong = checkout.run(&["backup", "verify", "learning", "--identity", "theirs.txt"]).exits(2);
    assert!(
        wrong.err.contains("the key does not open backup") && wrong.err.contains("no identity matched"),
        "{}",
        wrong.err
    );
    assert_eq!(verified(), before, "another key proves nothing against it");
    checkout.run(&["backup", "verify", "--identity", "none.txt"]).exits(2).says("there is no file");

    checkout.sql("learning", "DELETE FROM people WHERE id > 5");
    let live = people(&checkout);
    checkout.run(&["restore", "learning"]).exits(2).says("is encrypted").says("--identity");
    let wrong = checkout.run(&["restore", "learning", "--identity", "theirs.txt"]).exits(1);
    assert!(wrong.err.contains("no identity matched"), "{}", wrong.err);
    let part = files(&folder.join("parts")).into_iter().next_back().unwrap();
    let whole = fs::read(&part).unwrap();
    let mut broken = whole.clone();
    *broken.last_mut().unwrap() ^= 4;
    fs::write(&part, broken).unwrap();
    checkout.run(&["backup", "verify"]).exits(3).says("is broken");
    checkout.run(&["restore", "learning", "--identity", "ours.txt"]).exits(3).says("is broken");
    assert_eq!(people(&checkout), live);
    assert_eq!(beside(&checkout, SIDES), "");
    fs::write(&part, whole).unwrap();
    checkout.run(&["restore", "learning", "--identity", "ours.txt"]).ok();
    assert_eq!(rows(&people(&checkout)), rows(&backed_up));
}
