//! Ports that something else holds: all of them told at once, the holder named, never killed, and a way out that works.

use std::fs;
use std::net::TcpListener;

use crate::support::{Checkout, Holder, free_port, programs};

#[test]
fn every_conflict_is_told_at_once_and_nothing_starts() {
    let checkout = Checkout::new();
    let holder = Holder::of(&[
        ("127.0.0.1", checkout.port("POSTGRES_LEARNING_PORT")),
        ("0.0.0.0", checkout.port("POSTGRES_USER_PORT")),
        ("::1", checkout.port("REDIS_PORT")),
        ("::", checkout.port("POSTGRES_AI_PORT")),
    ]);
    let ran = checkout.run(&["up", "--without", "pubsub"]).exits(1).says("4 of 9 ports are taken, nothing was started");
    for service in ["learning", "user", "redis", "ai"] {
        let line = ran
            .err
            .lines()
            .find(|line| line.contains(&format!("  {service} ")))
            .unwrap_or_else(|| panic!("{}", ran.err));
        assert!(line.contains(&holder.pid()), "{line}");
    }
    assert!(checkout.servers().is_empty() && checkout.recorded().is_empty());

    // The lines of the hint are what `ports --fix` writes; every other line stays.
    checkout.append(".env", "# 学習\nMINE=1 # mine\n");
    let before = fs::read_to_string(checkout.root.join(".env")).unwrap();
    checkout.run(&["ports"]).exits(3).says("4 ports taken");
    let json = checkout.run(&["ports", "--json"]).exits(3).json();
    let taken = json["ports"].as_array().unwrap().iter().filter(|port| port["state"] == "taken").count();
    assert_eq!(taken, 4);
    checkout.run(&["ports", "--fix", "--dry-run"]).ok().says("→ POSTGRES_LEARNING_PORT=");
    assert_eq!(fs::read_to_string(checkout.root.join(".env")).unwrap(), before);
    checkout.run(&["ports", "--fix"]).ok().says("→ POSTGRES_LEARNING_PORT=");
    let after = fs::read_to_string(checkout.root.join(".env")).unwrap();
    let changed: Vec<&str> =
        before.lines().zip(after.lines()).filter(|(old, new)| old != new).map(|(old, _)| old).collect();
    assert_eq!(changed.len(), 4, "{after}");
    assert!(after.ends_with("# 学習\nMINE=1 # mine\n"));
    for line in ran.err.lines().filter(|line| line.contains("_PORT=")) {
        assert!(after.contains(line.trim()), "the hint said {line}, written was\n{after}");
    }
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["ports"]).ok().says("this instance");
    drop(holder);
}

#[test]
fn auto_ports_moves_them_and_starts() {
    let checkout = Checkout::new();
    let port = checkout.port("REDIS_PORT");
    let _holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    checkout.run(&["up", "redis", "--auto-ports"]).ok().says("→ REDIS_PORT=").says("1 service ready");
    assert_ne!(checkout.port("REDIS_PORT"), port);
    checkout.run(&["redis-cli", "PING"]).ok().says("PONG");
}

#[test]
fn a_port_set_in_the_environment_is_changed_there() {
    let mut checkout = Checkout::new();
    let port = free_port();
    let _holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    checkout.environment.insert("REDIS_PORT".into(), port.to_string());
    checkout.run(&["up", "redis"]).exits(1).says("`REDIS_PORT` is set in the environment");
    checkout.run(&["ports", "--fix"]).exits(2).says("unset REDIS_PORT");
}

#[test]
fn another_checkout_of_the_stack_is_named() {
    let first = Checkout::new();
    let mut second = Checkout::named("effect-review");
    second.environment.clone_from(&first.environment);
    first.run(&["up", "redis"]).ok();
    second.set(&format!("REDIS_PORT={}", first.port("REDIS_PORT")));
    let ran = second.run(&["up", "redis"]).exits(1);
    assert!(ran.err.contains("redis of effect in "), "{}", ran.err);
    assert!(ran.err.contains("(native, since "), "{}", ran.err);
    first.run(&["status"]).exits(3);
    assert_eq!(first.servers().len(), 1, "a holder is named, never killed");
}

/// The port is free when it is checked, and taken when the server wants it: the same message.
#[test]
fn a_port_lost_between_check_and_start_gives_the_same_message() {
    let mut checkout = Checkout::new();
    checkout.run(&["up", "redis"]).ok();
    let real = checkout.record("redis").unwrap()["program"].as_str().unwrap().to_owned();
    checkout.run(&["down"]).ok();
    let port = checkout.port("REDIS_PORT");
    let script = format!(
        "if [ \"$1\" = --version ]; then echo 'Redis server v=8.2.3 sha=0'; exit; fi\n\
         python3 -c 'import socket,time; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); \
         s.bind((\"127.0.0.1\",{port})); s.listen(); time.sleep(60)' &\n\
         until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done\nexec '{real}' \"$@\""
    );
    let fake = programs(&checkout, &[("redis-server", &script)]);
    checkout.environment.insert("PATH".into(), format!("{fake}:{}", std::env::var("PATH").unwrap()));
    let ran = checkout.run(&["up", "redis"]).exits(1);
    assert!(
        ran.err.contains("is taken, nothing was started") || ran.err.contains("1 of 1 port is taken"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("python3") && ran.err.contains("ports --fix"), "{}", ran.err);
    assert!(checkout.recorded().is_empty());
}

/// The two stacks side by side, as on a developer's machine: Nanika's defaults collide with Effect's.
#[test]
fn nanika_runs_beside_effect_once_its_ports_are_moved() {
    if !crate::support::has_postgres_15() {
        return crate::support::skip("no PostgreSQL 15");
    }
    let checkout = Checkout::new();
    let (postgres, redis) = (checkout.port("POSTGRES_EVENT_STORE_PORT"), checkout.port("REDIS_PORT"));
    fs::write(checkout.root.join(".env.nanika"), format!("POSTGRES_PORT={postgres}\nREDIS_PORT={redis}\n")).unwrap();
    checkout.run(&["up", "event-store", "redis"]).ok();
    let ran = checkout.run(&["up", "--stack", "nanika"]).exits(1).says("2 of 2 ports are taken");
    assert!(ran.err.contains("event-store of effect in "), "{}", ran.err);
    assert!(
        ran.err.contains("`cargo xtask ports --fix --stack nanika` writes free ones into .env.nanika"),
        "{}",
        ran.err
    );
    let before = fs::read_to_string(checkout.root.join(".env")).unwrap();
    checkout.run(&["ports", "--fix", "--stack", "nanika"]).ok();
    assert_eq!(fs::read_to_string(checkout.root.join(".env")).unwrap(), before, "effect's file is not touched");
    checkout.run(&["up", "--stack", "nanika"]).ok();
    checkout.run(&["--stack", "nanika", "psql", "game", "-XAtc", "SELECT current_user"]).ok().says("nanika_user");
    assert_eq!(checkout.sql("event-store", "SELECT current_user"), "effect");
    checkout.run(&["down", "--stack", "nanika"]).ok();
    checkout.run(&["status", "--json"]).exits(3).says("\"ready\"");
}

#[test]
fn what_direnv_exports_from_env_can_be_moved_there() {
    let mut checkout = Checkout::new();
    let port = checkout.port("REDIS_PORT");
    let _held = TcpListener::bind(("127.0.0.1", port)).unwrap();
    checkout.environment.insert("REDIS_PORT".into(), port.to_string());
    checkout.run(&["ports", "--fix"]).ok();
    assert_ne!(checkout.port("REDIS_PORT"), port);
}
