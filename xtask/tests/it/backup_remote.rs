//! Backups at a remote that rclone knows: real servers of WebDAV, SFTP and S3 on loopback, and what happens when they go away.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Checkout, free_port, is_root, programs, skip, wait_until};

/// A server with a folder behind it, called `nas` by the checkout's rclone.
struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    /// Nothing where there is no rclone.
    fn start(checkout: &mut Checkout, protocol: &str) -> Option<Server> {
        let Ok(rclone) = which::which("rclone") else {
            skip("there is no `rclone`");
            return None;
        };
        let (port, folder, config) = (free_port(), checkout.beside("remote"), checkout.beside("rclone.conf"));
        fs::create_dir_all(&folder).unwrap();
        let obscured = Command::new(&rclone).args(["obscure", "secret"]).output().unwrap().stdout;
        let login = format!("user = u\npass = {}\n", String::from_utf8(obscured).unwrap().trim());
        let text = match protocol {
            "webdav" => format!("[nas]\ntype = webdav\nvendor = other\nurl = http://127.0.0.1:{port}\n{login}"),
            "sftp" => format!("[nas]\ntype = sftp\nhost = 127.0.0.1\nport = {port}\nshell_type = none\n{login}"),
            _ => format!(
                "[nas]\ntype = s3\nprovider = Other\nendpoint = http://127.0.0.1:{port}\n\
                 access_key_id = u\nsecret_access_key = secret\n"
            ),
        };
        fs::write(&config, text).unwrap();
        checkout.environment.insert("RCLONE_CONFIG".into(), config.display().to_string());
        // rclone cannot have both this and a transport of its own.
        checkout.environment.insert("AWS_CA_BUNDLE".into(), String::new());
        let mut server = match protocol {
            "s3" => {
                let Ok(program) = which::which("s3s-fs") else {
                    skip("there is no `s3s-fs`");
                    return None;
                };
                let mut server = Command::new(program);
                server.args(["--access-key", "u", "--secret-key", "secret", "--host", "127.0.0.1"]);
                server.args(["--port", &port.to_string()]);
                server
            }
            _ => {
                let mut server = Command::new(&rclone);
                server.args(["serve", protocol, "--dir-cache-time", "0s", "--user", "u", "--pass", "secret"]);
                server.args(["--addr", &format!("127.0.0.1:{port}")]);
                server
            }
        };
        server.arg(&folder).env("RCLONE_CONFIG", checkout.beside("none")).env("HOME", checkout.beside("home"));
        let process = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the remote answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Server { process, folder })
    }

    fn manifests(&self) -> Vec<PathBuf> {
        files_below(&self.folder).into_iter().filter(|path| path.ends_with("manifest.json")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// An `rclone` before the real one, which does that first.
fn with_rclone(checkout: &mut Checkout, script: &str) {
    let real = which::which("rclone").unwrap();
    let script = script.replace("RCLONE", &real.display().to_string());
    let folder = programs(checkout, &[("rclone", &script)]);
    checkout.environment.insert("PATH".into(), format!("{folder}:{}", std::env::var("PATH").unwrap()));
}

fn tables(checkout: &Checkout) {
    checkout
        .sql("learning", "CREATE TABLE one AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g");
}

const PLACE: &str = "rclone:nas:keep/日本 語";

#[test]
fn a_remote_keeps_backups_as_a_folder_does() {
    for protocol in ["webdav", "sftp", "s3"] {
        let mut checkout = Checkout::new();
        let Some(server) = Server::start(&mut checkout, protocol) else { continue };
        checkout.run(&["up", "learning", "redis"]).ok();
        checkout.run(&["redis-cli", "SET", "kept", "yes"]).ok();
        tables(&checkout);
        checkout.run(&["backup", "list", "--at", PLACE]).ok().says("no backups yet in rclone:nas:keep");
        let ran = checkout.run(&["backup", "--to", PLACE, "--label", "first"]).ok();
        ran.says("→ rclone:nas:keep/日本 語/effect/*/").silent_about("secret");
        assert!(!checkout.root.join("backups").exists(), "{protocol}: nothing is copied here");
        assert_eq!(server.manifests().len(), 2);
        checkout.run(&["backup", "list", "--at", PLACE]).ok().says("-first").says("2 backups");
        checkout.run(&["backup", "show", "learning", "--at", PLACE]).ok().says("20,000 rows");
        checkout.run(&["backup", "verify", "--restore", "--at", PLACE]).ok().says("restored, and the same");
        let listed = checkout.run(&["backup", "list", "learning", "--at", PLACE, "--json"]).ok().json();
        assert_eq!(listed["backups"][0]["verified"]["was_restored"], true, "{listed}");

        let again = checkout.run(&["backup", "learning", "--to", PLACE, "--incremental", "--json"]).ok().json();
        let parts = again["backups"][0]["manifest"]["parts"].as_array().unwrap().clone();
        let is_there = |part: &Value| part["from"].is_string() || part["file"] == "parts/head.zst";
        assert!(parts.iter().all(is_there), "{protocol}: all rows were there already");
        checkout.sql("learning", "DELETE FROM one");
        checkout.run(&["restore", "learning", "--at", PLACE, "--yes", "--force"]).ok();
        assert_eq!(checkout.sql("learning", "SELECT count(*) FROM one"), "20000");
        checkout.run(&["backup", "verify", "learning", "--at", PLACE]).ok();
        let rules = ["--keep-last=1", "--keep-daily=0", "--keep-weekly=0", "--keep-monthly=0"];
        let prune = |more: &[&str]| checkout.run(&[&["backup", "prune", "--at", PLACE], &rules[..], more].concat());
        if protocol == "s3" {
            // This server gives no list of all that is below a folder, so nothing goes, and rclone does not mind.
            prune(&["--yes"]).exits(1).says("-first` is no backup any more, but rclone has left files");
        } else {
            prune(&["--yes"]).ok().says("1 backup went");
            prune(&["--yes"]).ok().says("nothing to remove");
        }
        checkout.run(&["backup", "verify", "learning", "--at", PLACE]).ok();

        // A bit that turns there is found from here, and what verified before does so no longer.
        let is_it = |path: &PathBuf| path.to_string_lossy().ends_with("-one.zst");
        let part = files_below(&server.folder).into_iter().filter(is_it).max().unwrap();
        let mut bytes = fs::read(&part).unwrap();
        bytes[100] ^= 1;
        fs::write(&part, bytes).unwrap();
        checkout.run(&["backup", "verify", "learning", "--at", PLACE]).exits(3).says("its BLAKE3 differs");
        checkout.run(&["backup", "list", "learning", "--at", PLACE]).ok().says("not verified");
    }
}

#[test]
fn a_remote_that_goes_away_in_the_middle_has_no_backup() {
    let mut checkout = Checkout::new();
    let Some(mut server) = Server::start(&mut checkout, "webdav") else { return };
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    let script = format!(
        "case \"$*\" in rcat*-one.zst) head -c 50000 | RCLONE \"$@\"; kill -9 {}; cat >/dev/null; exec RCLONE lsf nas: ;; esac; exec RCLONE \"$@\"",
        server.process.id()
    );
    with_rclone(&mut checkout, &script);
    let ran = checkout.run(&["backup", "learning", "--to", "rclone:nas:keep"]).exits(1).says("refused");
    assert!(ran.err.contains("cannot back up `learning`"), "{}", ran.err);
    assert!(server.manifests().is_empty());
    drop(server.process.wait());
    checkout.run(&["backup", "list", "--at", "rclone:nas:keep"]).exits(1).says("refused");
    // What was left there looks like no backup to anybody, and is not removed while somebody may be writing it.
    let folder = server.folder.clone();
    drop(server);
    let Some(server) = Server::start(&mut checkout, "webdav") else { return };
    assert!(!files_below(&folder).is_empty());
    checkout.run(&["backup", "list", "--at", "rclone:nas:keep"]).ok().says("no backups yet");
    checkout.run(&["backup", "prune", "--at", "rclone:nas:keep", "--yes"]).ok().says("nothing to remove");
    assert_eq!(server.folder, folder);
    for path in files_below(&folder) {
        let touched = Command::new("touch").args(["-d", "2 days ago"]).arg(&path).status().unwrap();
        assert!(touched.success());
    }
    checkout.run(&["backup", "prune", "learning", "--at", "rclone:nas:keep", "--yes"]).ok().says("1 leftover went");
    assert!(files_below(&folder).is_empty());
}

/// A helper that is killed while it sends the manifest leaves the begin of one. Damage looks otherwise, and stays.
#[test]
fn a_manifest_that_was_cut_off_is_a_leftover() {
    let mut checkout = Checkout::new();
    let Some(server) = Server::start(&mut checkout, "webdav") else { return };
    checkout.run(&["up", "redis"]).ok();
    for _ in 0..4 {
        checkout.run(&["backup", "redis", "--to", PLACE]).ok();
    }
    checkout.run(&["backup", "verify", "--every", "--at", PLACE]).ok();
    let mut manifests = server.manifests();
    manifests.sort();
    let cut = |at: usize, length: usize| {
        let text = fs::read(&manifests[at]).unwrap();
        fs::write(&manifests[at], &text[..text.len().min(length)]).unwrap();
    };
    cut(0, 0);
    cut(1, 100);
    cut(2, 100);
    let mut flipped = fs::read(&manifests[3]).unwrap();
    flipped[100] ^= 1;
    fs::write(&manifests[3], flipped).unwrap();
    for at in [0, 1, 3] {
        fs::remove_file(manifests[at].with_file_name("verified.json")).unwrap();
    }
    let prune = || checkout.run(&["backup", "prune", "--at", PLACE, "--yes"]).ok();
    prune().says("nothing to remove").says("4 broken, left alone").silent_about("leftover");
    for path in files_below(&server.folder) {
        assert!(Command::new("touch").args(["-d", "2 days ago"]).arg(&path).status().unwrap().success());
    }
    prune().says("2 leftovers went").says("2 broken, left alone");
    let mut left = server.manifests();
    left.sort();
    assert_eq!(left, manifests[2..], "one that was verified, and one with a bit that turned");
}

#[test]
fn a_remote_that_is_full_has_no_backup() {
    if !is_root() {
        return skip("only root can mount a small disk");
    }
    let mut checkout = Checkout::new();
    let Some(server) = Server::start(&mut checkout, "sftp") else { return };
    let folder = server.folder.clone();
    let keep = folder.join("keep");
    fs::create_dir(&keep).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200k", "tmpfs"]).arg(&keep).status().unwrap();
    assert!(mounted.success());
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    let ran = checkout.run(&["backup", "learning", "--to", "rclone:nas:keep"]);
    let (manifests, left) = (server.manifests(), files_below(&keep));
    drop(server);
    assert!(Command::new("umount").arg("-l").arg(&keep).status().unwrap().success());
    ran.exits(1).says("cannot back up `learning`");
    assert!(manifests.is_empty() && left.is_empty(), "{manifests:?} {left:?}");
}

#[test]
fn a_remote_that_gives_back_something_else_has_no_backup() {
    let mut checkout = Checkout::new();
    let Some(server) = Server::start(&mut checkout, "webdav") else { return };
    checkout.run(&["up", "learning"]).ok();
    tables(&checkout);
    with_rclone(
        &mut checkout,
        "case \"$*\" in cat*-one.zst) RCLONE \"$@\" | tr a b; exit 0 ;; esac; exec RCLONE \"$@\"",
    );
    let ran = checkout.run(&["backup", "learning", "--to", "rclone:nas:keep"]).exits(1);
    ran.says("does not hold what was written").says("one.zst").says("its BLAKE3 differs");
    assert!(files_below(&server.folder).is_empty());
}

#[test]
fn what_is_no_remote_is_said() {
    let mut checkout = Checkout::new();
    let Some(_server) = Server::start(&mut checkout, "webdav") else { return };
    checkout.run(&["backup", "list", "--at", "rclone:nas"]).exits(2).says("names no remote");
    checkout.run(&["backup", "list", "--at", "rclone:nowhere:x"]).exits(1).says("didn't find section in config file");
    checkout.run(&["backup", "prune", "--at", "rclone:nowhere:x", "--yes"]).exits(1).says("rclone:nowhere:x/effect");
    let empty = programs(&checkout, &[]);
    checkout.environment.insert("PATH".into(), empty);
    let ran = checkout.run(&["backup", "list", "--at", "rclone:nas:x"]).exits(1);
    ran.says("needs the program `rclone`, which is not on PATH").says("apt-get install rclone");
}
