//! Data: what `down --volumes` asks, takes and gives back, and data that a server must not be started on.

use std::fs;
use std::process::Command;

use crate::support::{Checkout, SmallDisk, copy_tree, is_root, skip};

#[test]
fn removing_data_is_refused_unasked_and_can_be_undone() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.sql("learning", "CREATE TABLE kept AS SELECT generate_series(1, 1234) AS id; ANALYZE kept");
    checkout.run(&["redis-cli", "SET", "kept", "yes"]).ok();
    let refused = checkout
        .run(&["down", "--volumes"])
        .exits(4)
        .says("nobody is there to ask")
        .says("This destroys the data of effect");
    assert!(refused.err.contains("learning") && refused.err.contains("1 key"), "{}", refused.err);
    assert_eq!(checkout.servers().len(), 2, "nothing was stopped");
    checkout.run(&["down", "--volumes", "--dry-run"]).ok().says("learning: stop, remove its data");
    assert_eq!(checkout.servers().len(), 2);

    checkout.run(&["down", "--volumes", "--yes"]).ok().says("cargo xtask down --undo");
    assert!(checkout.servers().is_empty());
    checkout.run(&["status"]).exits(3);
    // A second one has nothing to remove, and does not touch what the first put aside.
    checkout.run(&["down", "--volumes", "--yes"]).ok().says("no data to remove");
    checkout.run(&["down", "--undo"]).ok().says("2 services brought back");
    checkout.run(&["up", "learning", "redis"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM kept"), "1234");
    checkout.run(&["redis-cli", "GET", "kept"]).ok().says("yes");

    // New data stand in the way of old ones.
    checkout.run(&["down", "--volumes", "--yes"]).ok();
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["down", "--undo"]).exits(4).says("there are new data of learning");
    checkout.run(&["down", "--volumes", "--discard"]).exits(4);
    checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok().says("all data removed");
    checkout.run(&["down", "--undo"]).exits(1).says("nothing to bring back");
    checkout.run(&["down"]).ok();
}

#[test]
fn undo_never_takes_live_data() {
    let checkout = Checkout::new();
    checkout.run(&["up", "redis"]).ok();
    checkout.run(&["down", "--volumes", "--yes"]).ok();
    checkout.run(&["down", "--undo", "--dry-run"]).exits(2);
    checkout.run(&["up", "redis"]).ok();
    checkout.run(&["down", "--volumes", "--dry-run"]).ok().says("put aside: remove");
    fs::remove_file(checkout.data_folder("effect").join("redis/identity.json")).unwrap();
    checkout.run(&["down", "--undo"]).exits(4).says("there are new data of redis");
    assert_eq!(checkout.servers().len(), 1);
    // Data that nobody's name is on are not started on either, and nothing is stopped for it.
    checkout.append("docker/redis/effect.conf", "maxmemory 100mb\n");
    checkout.run(&["up", "redis"]).exits(4).says("another instance");
    assert_eq!(checkout.servers().len(), 1, "the running one was left alone");
}

/// On a terminal somebody is asked, and only the stack's name is a yes.
#[test]
fn on_a_terminal_the_stacks_name_is_asked_for() {
    let checkout = Checkout::new();
    checkout.run(&["up", "redis"]).ok();
    let at_terminal = |answer: &str| {
        let mut script = Command::new("script");
        let helper = format!("'{}' down --volumes", env!("CARGO_BIN_EXE_xtask"));
        script.args(["-qec", &helper, "/dev/null"]).current_dir(&checkout.root).envs(&checkout.environment);
        script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = script.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{answer}\n").as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(800));
        crate::support::finish(child)
    };
    let no = at_terminal("yes").exits(4);
    assert!(no.out.contains("Type effect to go on:"), "{}", no.out);
    assert_eq!(checkout.servers().len(), 1);
    at_terminal("effect").exits(0);
    assert!(checkout.servers().is_empty());
}

#[test]
fn data_of_another_major_are_found_before_the_server_dies_of_them() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["stop"]).ok();
    let version = checkout.data_folder("effect").join("learning/data/PG_VERSION");
    fs::write(&version, "17\n").unwrap();
    let ran = checkout.run(&["up", "learning", "redis"]).exits(4);
    assert!(ran.err.contains("are PostgreSQL 17's, and the manifest asks for 18"), "{}", ran.err);
    assert!(!ran.err.contains("FATAL"), "{}", ran.err);
    checkout.run(&["doctor"]).exits(3).says("data-major").says("PostgreSQL 17's");
    fs::write(&version, "18\n").unwrap();
    checkout.run(&["up", "learning"]).ok();
}

#[test]
fn data_of_the_wrong_owner_are_explained() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["stop"]).ok();
    let data = checkout.data_folder("effect").join("learning/data");
    std::os::unix::fs::chown(&data, Some(0), Some(0)).unwrap();
    let ran = checkout.run(&["up", "learning"]).exits(1).says("the data of `learning` belong to user 0, not to nobody");
    assert!(ran.err.contains("sudo chown -R nobody"), "{}", ran.err);
    checkout.run(&["doctor"]).exits(3).says("data-owner");
    assert!(Command::new("chown").args(["-R", "nobody"]).arg(&data).status().unwrap().success());
    checkout.run(&["up", "learning"]).ok();
}

#[test]
fn a_moved_checkout_goes_on_and_a_copied_one_is_refused() {
    let mut checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.sql("learning", "CREATE TABLE kept (id int)");
    let copy = checkout.beside("copy");
    copy_tree(&checkout.root.join("config"), &copy.join("config"));
    copy_tree(&checkout.root.join("docker"), &copy.join("docker"));
    fs::create_dir_all(copy.join(".xtask/effect")).unwrap();
    fs::copy(checkout.root.join(".xtask/effect/instance.json"), copy.join(".xtask/effect/instance.json")).unwrap();
    let mut in_copy = checkout.command(&["down"]);
    in_copy.current_dir(&copy);
    crate::support::ran(in_copy).exits(4).says("is a copy of another checkout's state");
    assert_eq!(checkout.servers().len(), 1, "the copy stops nothing of the original");

    let moved = checkout.beside("moved");
    checkout.run(&["stop"]).ok();
    fs::rename(&checkout.root, &moved).unwrap();
    checkout.root = moved.canonicalize().unwrap();
    checkout.run(&["up", "learning"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM kept"), "0");
}

#[test]
fn a_full_disk_is_told_and_the_next_up_works() {
    if !is_root() {
        return skip("only root can mount a small disk");
    }
    let checkout = Checkout::new();
    let state = checkout.root.join(".xtask");
    fs::create_dir(&state).unwrap();
    let disk = SmallDisk::mount(&state, "30m");
    // Told before anything is copied.
    checkout.run(&["up", "learning", "redis"]).exits(1).says("1 new databases need").says("are free");
    assert!(checkout.servers().is_empty());
    // Enough for the check, filled up while the cluster is there.
    disk.grow("90m");
    fs::write(state.join("filler"), vec![1; 10_000_000]).unwrap();
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["stop"]).ok();
    let filler = fs::File::create(state.join("filler")).unwrap();
    let filled = std::io::copy(&mut std::io::repeat(1), &mut &filler);
    assert!(filled.is_err(), "the disk is full now");
    drop(filler);
    let ran = checkout.run(&["up", "learning", "redis"]);
    assert_ne!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("No space left on device") || ran.err.contains("disk is full"), "{}", ran.err);
    checkout.assert_all_recorded();
    fs::remove_file(state.join("filler")).unwrap();
    checkout.run(&["up", "learning", "redis"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT 1"), "1");
    checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok();
}
