//! What every engine must do alike: the same tests for both, and one that compares what they answer.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Checkout, ENGINES, Engine, Holder, docker, finish, on_both_engines, signal, skip_docker, wait_until,
};

on_both_engines! {
    everyday_verbs_do_what_they_say
    a_password_changed_in_env_is_set
    a_changed_port_or_file_restarts_only_what_it_concerns
    what_died_is_shown_and_started_again
    taken_ports_are_all_named_before_anything_starts
    two_at_once_and_down_in_between_leave_one_whole_stack
    interrupted_or_killed_the_next_up_works
    the_other_engine_is_refused_and_explained
    the_whole_set_is_migrated_seeded_checked_and_reverted
}

fn everyday_verbs_do_what_they_say(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    checkout.run(&["status"]).exits(3).says("not created yet");
    checkout.run(&["up", "learning", "redis", "--dry-run"]).ok().says("create and start");
    checkout.run(&["down"]).ok().says("is not running");
    checkout.run(&["up", "learning", "redis"]).ok().says("2 services ready");
    checkout.run(&["up", "learning", "redis"]).ok().says("effect is up: 2 services, unchanged");
    checkout.run(&["up", "learning", "redis", "--dry-run"]).ok().says("unchanged");

    checkout.run(&["psql", "learning", "-qc", "CREATE TABLE kept AS SELECT 7 AS id"]).ok();
    checkout.run(&["redis-cli", "SET", "kept", "7"]).ok().says("OK");
    let url = checkout.run(&["env", "learning-service", "--format", "json"]).ok().json();
    let port = checkout.port("POSTGRES_LEARNING_PORT");
    assert_eq!(url["DATABASE_URL"], format!("postgresql://effect:effect_password@127.0.0.1:{port}/learning_db"));
    checkout.run(&["run", "learning", "--", "sh", "-c", "exit $((PGPORT % 7 + 1))"]).exits(i32::from(port % 7) + 1);
    checkout.run(&["logs", "learning", "--tail", "50"]).ok().says("learning │ ").says("ready to accept connections");
    checkout.run(&["logs", "redis", "--since", "1h"]).ok().says("redis │ ");
    let ports = checkout.run(&["ports", "--json"]).ok().json();
    let ours = |row: &&Value| row["state"] == "ours";
    assert_eq!(ports["ports"].as_array().unwrap().iter().filter(ours).count(), 2);

    checkout.run(&["stop", "learning"]).ok().says("1 service stopped; data stay");
    checkout.run(&["stop", "learning"]).ok().says("not running");
    assert_eq!(state(&checkout, "learning"), "stopped");
    checkout.run(&["psql", "learning", "-c", "SELECT 1"]).exits(1).says("`learning` is not running");
    checkout.run(&["up", "learning", "redis"]).ok().says("unchanged");
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");
    checkout.run(&["restart", "redis"]).ok().says("1 service ready");
    checkout.run(&["redis-cli", "GET", "kept"]).ok().says("7");

    checkout.run(&["down"]).ok().says("effect is down: 2 services stopped; data stay");
    assert_eq!(state(&checkout, "learning"), "stopped");
    checkout.run(&["up", "learning"]).ok().says("1 service ready");
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");
    checkout.run(&["down", "--volumes"]).exits(4).says("learning").says("nothing was done").says("--yes");
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");
    checkout.run(&["down", "--volumes", "--dry-run"]).ok().says("remove");
    checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok().says("all data removed");
    assert_eq!(state(&checkout, "learning"), "absent");
    checkout.run(&["up", "learning"]).ok().says("new");
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'"), "0");
}

fn state(checkout: &Checkout, service: &str) -> String {
    let status = checkout.run(&["status", "--json"]).json();
    let lines = status["services"].as_array().unwrap();
    let line = lines.iter().find(|line| line["name"] == service).unwrap_or_else(|| panic!("no {service} in {status}"));
    line["state"].as_str().unwrap().to_owned()
}

fn a_password_changed_in_env_is_set(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["psql", "learning", "-qc", "CREATE TABLE kept AS SELECT 7 AS id"]).ok();
    checkout.set("POSTGRES_PASSWORD=\"n3w \\\\ p@ss'word\"");
    checkout.run(&["env", "learning"]).ok().says("effect_password").says("still runs with earlier settings");
    checkout.run(&["up", "learning"]).ok().says("password set").silent_about("p@ss");
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");
    checkout.run(&["up", "learning"]).ok().says("unchanged");
    checkout.run(&["stop"]).ok();
    checkout.set("POSTGRES_PASSWORD=another-secret");
    checkout.set("POSTGRES_USER=somebody");
    checkout.run(&["up", "learning"]).ok().says("password set").silent_about("another-secret");
    assert_eq!(checkout.sql("learning", "SELECT current_user || id FROM kept"), "somebody7");
}

fn a_changed_port_or_file_restarts_only_what_it_concerns(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    let services = ["up", "learning", "user", "redis"];
    checkout.run(&services).ok();
    let before = pids(&checkout);
    let port = crate::support::free_port();
    checkout.set(&format!("POSTGRES_LEARNING_PORT={port}"));
    checkout.run(&services).ok().says("its port changes");
    let after = pids(&checkout);
    assert_ne!(before["learning"], after["learning"]);
    assert_eq!((&before["user"], &before["redis"]), (&after["user"], &after["redis"]));
    assert_eq!(checkout.run(&["env", "learning", "--format", "json"]).ok().json()["PGPORT"], port.to_string());
    checkout.append("docker/redis/effect.conf", "maxmemory 100mb\n");
    checkout.run(&services).ok().says("its configuration changed");
    checkout.run(&["redis-cli", "CONFIG", "GET", "maxmemory"]).ok().says("104857600");
    assert_eq!(after["user"], pids(&checkout)["user"]);
    checkout.run(&services).ok().says("3 services, unchanged");
}

fn pids(checkout: &Checkout) -> BTreeMap<String, Value> {
    let status = checkout.run(&["status", "--json"]).json();
    let lines = status["services"].as_array().unwrap().iter();
    lines.map(|line| (line["name"].as_str().unwrap().to_owned(), line["pid"].clone())).collect()
}

fn what_died_is_shown_and_started_again(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["psql", "learning", "-qc", "CREATE TABLE kept AS SELECT 7 AS id"]).ok();
    match engine {
        Engine::Native => signal(checkout.pid("learning"), "KILL"),
        Engine::Docker => drop(docker(&["kill", &checkout.container("postgres-learning")])),
    }
    wait_until("it is seen to have died", || state(&checkout, "learning") == "died");
    checkout.run(&["status"]).exits(3).says("died").says("cargo xtask logs learning");
    checkout.run(&["doctor"]).exits(3).says("though nobody stopped it");
    checkout.run(&["up", "learning", "redis"]).ok().says("ready");
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");
    assert_eq!(state(&checkout, "learning"), "ready");
}

fn taken_ports_are_all_named_before_anything_starts(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    let held = ["POSTGRES_LEARNING_PORT", "REDIS_PORT"].map(|name| ("127.0.0.1", checkout.port(name)));
    let holder = Holder::of(&held);
    let refused = checkout.run(&["up", "learning", "redis", "user"]).exits(1).says("2 of 3 ports are taken");
    assert!(refused.err.contains(&holder.pid()), "{}", refused.err);
    assert_eq!(state(&checkout, "user"), "absent");
    checkout.run(&["up", "learning", "redis", "--auto-ports"]).ok().says("2 services ready");
    drop(holder);
    // The other engine's checkout is told who holds a port here.
    let mut other = Checkout::new();
    other.set(&format!("POSTGRES_LEARNING_PORT={}", checkout.port("POSTGRES_LEARNING_PORT")));
    other.environment.insert("XTASK_STATE_DIR".into(), checkout.environment["XTASK_STATE_DIR"].clone());
    let refused = other.run(&["up", "learning"]).exits(1).says("1 of 1 port");
    let named = match engine {
        Engine::Native => "learning of effect in".to_owned(),
        Engine::Docker => format!("container {}-postgres-learning-1, of Compose in", checkout.project()),
    };
    assert!(refused.err.contains(&named), "{}", refused.err);
}

fn two_at_once_and_down_in_between_leave_one_whole_stack(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    let services = ["up", "learning", "redis"];
    let both = [checkout.spawn(&services), checkout.spawn(&services)].map(finish);
    let outputs: String = both.into_iter().map(|ran| ran.ok().err).collect();
    assert!(outputs.contains("2 services, unchanged"), "{outputs}");
    assert_eq!(state(&checkout, "learning"), "ready");
    checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok();

    let up = checkout.spawn(&services);
    wait_until("it holds the lock", || checkout.run(&["down", "--no-wait"]).code == Some(1));
    checkout.run(&["down"]).ok();
    let up = finish(up).ok();
    assert!(up.err.contains("2 services ready"), "{}", up.err);
    assert_eq!(state(&checkout, "learning"), "stopped");
    checkout.run(&services).ok();
}

fn interrupted_or_killed_the_next_up_works(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    let services = ["up", "learning", "user", "redis"];
    for (round, name) in ["INT", "KILL", "TERM", "KILL", "INT", "KILL"].into_iter().enumerate() {
        let up = checkout.spawn(&services);
        // Containers take a few times as long as processes.
        let step = if engine == Engine::Docker { 450 } else { 90 };
        std::thread::sleep(std::time::Duration::from_millis(40 + step * round as u64));
        signal(i32::try_from(up.id()).unwrap(), name);
        finish(up);
        checkout.run(&services).ok();
        for service in ["learning", "user", "redis"] {
            assert_eq!(state(&checkout, service), "ready", "{service} after {name} in round {round}");
        }
        assert_eq!(checkout.sql("user", "SELECT current_database()"), "user_db");
        match round % 2 {
            0 => checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok(),
            _ => checkout.run(&["stop"]).ok(),
        };
    }
}

fn the_other_engine_is_refused_and_explained(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    checkout.run(&["up", "redis"]).ok();
    let other = if engine == Engine::Native { "docker" } else { "native" };
    checkout.run(&["up", "redis", "--engine", other]).exits(4).says("keeps its data there").says("down --volumes");
    checkout.run(&["up", "redis", "--engine", "auto"]).ok().says("unchanged");
    checkout.run(&["stop"]).ok();
    checkout.run(&["up", "redis", "--engine", other]).exits(4);
    checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok();
}

fn the_whole_set_is_migrated_seeded_checked_and_reverted(engine: Engine) {
    let Some(checkout) = Checkout::on(engine) else { return };
    checkout.run(&["up", "--without", "pubsub"]).ok().says("9 services ready").says("5 migrations");
    checkout.run(&["up", "--without", "pubsub"]).ok().says("unchanged");
    checkout.run(&["migrate", "check"]).ok();
    checkout.run(&["seed"]).ok().says("8 databases seeded");
    checkout.run(&["seed"]).ok().says("unchanged");
    checkout.run(&["check", "references"]).ok();
    checkout.sql("learning", "ALTER TABLE learning_sessions ADD COLUMN by_hand integer");
    checkout.run(&["migrate", "check", "learning"]).exits(3).says("by_hand");
    checkout.sql("learning", "ALTER TABLE learning_sessions DROP COLUMN by_hand");
    checkout.run(&["migrate", "revert", "--steps", "1"]).exits(4).says("--yes");
    checkout.run(&["migrate", "revert", "--steps", "1", "--yes"]).ok();
    checkout.run(&["migrate", "check"]).exits(3).says("pending");
    checkout.run(&["up", "--without", "pubsub"]).ok().says("1 migration");
    checkout.run(&["migrate", "check"]).ok();
    checkout.run(&["up", "--without", "pubsub"]).ok().says("unchanged");
}

/// One checkout, the same ports and settings, first on one engine, then on the other: all that leaves the helper is equal.
#[test]
fn both_engines_answer_the_same() {
    let mut answers = Vec::new();
    let mut checkout = Checkout::new();
    for engine in ENGINES {
        if engine == Engine::Docker && !checkout.use_docker() {
            return skip_docker();
        }
        let up = checkout.run(&["up", "learning", "redis", "pubsub", "--timeout-secs", "300", "--json"]).ok().json();
        let up: Vec<Value> =
            up["services"].as_array().unwrap().iter().map(|line| without(line, &["seconds"])).collect();
        let env: Vec<Value> = ["learning-service", "learning", "redis", "pubsub", "api-gateway"]
            .iter()
            .map(|name| checkout.run(&["env", name, "--format", "json"]).ok().json())
            .collect();
        let status = checkout.run(&["status", "--json"]).exits(3).json();
        for line in status["services"].as_array().unwrap() {
            let is_asked = ["learning", "redis"].contains(&line["name"].as_str().unwrap());
            assert!(line["connections"].is_u64() == is_asked, "{line}");
        }
        // A container is asked for its health by another client now and then.
        let moving = ["pid", "since", "uptime_secs", "data_bytes", "connections"];
        let status: Vec<Value> =
            status["services"].as_array().unwrap().iter().map(|line| without(line, &moving)).collect();
        let ports = checkout.run(&["ports", "--json"]).ok().json();
        let ports: Vec<Value> = ports["ports"].as_array().unwrap().iter().map(|line| without(line, &["pid"])).collect();
        let topics = checkout
            .run(&[
                "run",
                "pubsub",
                "--",
                "sh",
                "-c",
                "curl -s http://$PUBSUB_EMULATOR_HOST/v1/projects/$PUBSUB_PROJECT_ID/topics",
            ])
            .ok()
            .out;
        let collation = "SELECT datlocprovider, datlocale, pg_encoding_to_char(encoding) FROM pg_database \
            WHERE datname = current_database()";
        answers.push(json!({
            "up": up, "env": env, "status": status, "ports": ports, "topics": topics,
            "postgres": postgres_settings(&checkout), "redis": redis_settings(&checkout),
            "collation": checkout.sql("learning", collation),
            "roles": checkout.sql("learning", "SELECT rolname, rolsuper FROM pg_roles WHERE rolcanlogin ORDER BY 1"),
            "databases": checkout.sql("learning", "SELECT datname FROM pg_database ORDER BY 1"),
        }));
        checkout.run(&["down", "--volumes", "--yes", "--discard"]).ok();
    }
    let (native, docker) = (answers[0].as_object().unwrap(), answers[1].as_object().unwrap());
    for (what, answer) in native {
        assert_eq!(answer, &docker[what], "{what}");
    }
    assert!(native["topics"].as_str().unwrap().contains("learning-events"));
}

fn without(line: &Value, keys: &[&str]) -> Value {
    let mut line = line.clone();
    for key in keys {
        line.as_object_mut().unwrap().remove(*key);
    }
    line
}

/// Every line of the configuration file as the server shows it; addresses and ports aside.
fn postgres_settings(checkout: &Checkout) -> BTreeMap<String, String> {
    let text = fs::read_to_string(checkout.root.join("docker/postgres/effect.conf")).unwrap();
    let names = text.lines().filter_map(|line| line.split('#').next()?.split_once('=').map(|(name, _)| name.trim()));
    let names = names.filter(|name| !["listen_addresses", "port"].contains(name));
    names.map(|name| (name.to_owned(), checkout.sql("learning", &format!("SHOW {name}")))).collect()
}

fn redis_settings(checkout: &Checkout) -> BTreeMap<String, String> {
    let text = fs::read_to_string(checkout.root.join("docker/redis/effect.conf")).unwrap();
    let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.split_once(' ')?.0));
    let names = names.filter(|name| !["bind", "port"].contains(name));
    names.map(|name| (name.to_owned(), checkout.run(&["redis-cli", "CONFIG", "GET", name]).ok().out)).collect()
}
