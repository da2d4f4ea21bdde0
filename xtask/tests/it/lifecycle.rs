//! Up, down and between: what runs, where it answers, and what stays.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::{Checkout, PATIENCE, has_emulator, has_postgres_15, install, is_root, pid_of, signal, skip, stat};

/// The whole stack, and a client that knows only what `env` prints.
#[test]
fn the_whole_stack_comes_up_and_serves_a_client() {
    if !has_emulator() {
        return skip("no Pub/Sub emulator with Java");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "--timeout-secs", "300"]).ok().says("10 services ready").says("6 topics");
    checkout.run(&["up"]).ok().says("effect is up: 10 services, unchanged");
    let status = checkout.run(&["status", "--json"]).ok().json();
    let services = status["services"].as_array().unwrap();
    assert_eq!(services.len(), 10);
    for service in services {
        assert_eq!(service["state"], "ready", "{service}");
        assert!(service["pid"].is_u64() && service["uptime_secs"].is_u64());
    }
    assert_eq!(services[1]["max_connections"], 100);
    assert!(services[1]["data_bytes"].as_u64().unwrap() > 1_000_000);

    let env = checkout.run(&["env", "learning-service", "--format", "json"]).ok().json();
    let url = env["DATABASE_URL"].as_str().unwrap();
    assert!(url.ends_with("/learning_db"));
    // A client of PostgreSQL with the URL alone, as a driver would have it.
    let beside =
        checkout.record("learning").unwrap()["program"].as_str().unwrap().replace("/bin/postgres", "/bin/psql");
    let mut psql = std::process::Command::new(beside);
    psql.args([
        url,
        "-XAtc",
        "CREATE TABLE sessions (id int); INSERT INTO sessions VALUES (7); SELECT id FROM sessions",
    ]);
    psql.env_remove("PGPASSWORD");
    assert!(crate::support::ran(psql).ok().out.ends_with("7\n"));

    let redis = env["REDIS_URL"].as_str().unwrap().strip_prefix("redis://").unwrap();
    assert_eq!(converse(redis, b"SET key value\r\nGET key\r\nQUIT\r\n"), "+OK\r\n$5\r\nvalue\r\n+OK\r\n");

    let emulator = env["PUBSUB_EMULATOR_HOST"].as_str().unwrap();
    let project = env["PUBSUB_PROJECT_ID"].as_str().unwrap();
    let body = r#"{"messages":[{"data":"aGVsbG8=","orderingKey":"a"}]}"#;
    let publish = http("POST", emulator, &format!("/v1/projects/{project}/topics/learning-events:publish"), body);
    assert!(publish.contains("messageIds"), "{publish}");
    let pull = http(
        "POST",
        emulator,
        &format!("/v1/projects/{project}/subscriptions/progress-learning-events:pull"),
        r#"{"maxMessages":1}"#,
    );
    assert!(pull.contains("aGVsbG8="), "{pull}");
    assert_eq!(env["SERVICE_PORT"], "50051");

    // Each server is in a session of its own and has a record; nobody listens beyond loopback.
    for service in ["learning", "redis", "pubsub"] {
        let pid = checkout.pid(service);
        assert_eq!(stat(pid)[3], pid.to_string(), "{service} is not the leader of its session");
    }
    checkout.assert_all_recorded();
    assert_eq!(checkout.servers().len(), 10);
    let ports: Vec<String> = services.iter().map(|service| service["address"].as_str().unwrap().to_owned()).collect();
    for address in ports {
        let port: u16 = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        let beyond = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(!beyond.contains(&format!("00000000:{port:04X} 00000000:0000 0A")), "{address} listens on any address");
    }

    checkout.run(&["stop", "learning"]).ok().says("1 service stopped");
    checkout.run(&["status"]).exits(3).says("stopped");
    checkout.run(&["up"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT id FROM sessions"), "7");
    checkout.run(&["restart", "--timeout-secs", "300"]).ok().says("10 services ready");
    let pull = http("GET", emulator, &format!("/v1/projects/{project}/topics"), "");
    assert!(pull.contains("saga-events"), "topics are back after a restart: {pull}");

    checkout.run(&["down"]).ok().says("data stay");
    assert!(checkout.servers().is_empty());
    checkout.run(&["down"]).ok();
    checkout.run(&["stop"]).ok().says("not running");
}

/// Sends bytes, reads to the end.
fn converse(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    // The emulator leaves connections open.
    while !is_whole(&String::from_utf8_lossy(&answer)) {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// An answer of HTTP says itself where it ends: by its length, or with a last piece of none.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let head = head.to_lowercase();
    match head.lines().find_map(|line| line.strip_prefix("content-length:")) {
        Some(length) => body.len() >= length.trim().parse().unwrap(),
        None => body.ends_with("0\r\n\r\n"),
    }
}

fn http(method: &str, address: &str, path: &str, body: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    converse(address, request.as_bytes())
}

#[test]
fn servers_run_with_the_stacks_own_configuration() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    assert_settings(&checkout, "effect", "learning", "docker/postgres/effect.conf");
    assert_redis_settings(&checkout, "effect", "docker/redis/effect.conf");
    assert_eq!(checkout.sql("learning", "SHOW server_encoding"), "UTF8");
    assert_eq!(
        checkout.sql("learning", "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'learning_db'"),
        "b|C.UTF-8"
    );
    assert_eq!(checkout.sql("learning", "SHOW password_encryption"), "scram-sha-256");
    let cluster = checkout.sql("learning", "SHOW cluster_name");
    assert!(cluster.starts_with("effect/learning/"), "{cluster}");
}

#[test]
fn nanika_runs_with_its_own_files_on_postgresql_15() {
    if !has_postgres_15() {
        return skip("no PostgreSQL 15");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "--stack", "nanika"]).ok().says("2 services ready").says("PostgreSQL 15");
    assert_settings(&checkout, "nanika", "game", "docker/postgres/postgresql.conf");
    assert_redis_settings(&checkout, "nanika", "docker/redis/redis.conf");
    let collation =
        "SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()";
    let ran = checkout.run(&["--stack", "nanika", "psql", "game", "-XAtc", collation]).ok();
    assert_eq!(ran.out.trim(), "C.UTF-8|UTF8");
    // The password is part of a statement that this configuration would log.
    let log = fs::read_to_string(checkout.data_folder("nanika").join("game/server.log")).unwrap();
    assert!(!log.contains("nanika_password") && !log.contains("ALTER ROLE"), "{log}");
    checkout.run(&["--stack", "nanika", "status"]).ok();
    checkout.run(&["--stack", "nanika", "down"]).ok();
}

/// `SHOW` of every line of a configuration file; addresses and ports aside.
fn assert_settings(checkout: &Checkout, stack: &str, database: &str, file: &str) {
    let text = fs::read_to_string(checkout.root.join(file)).unwrap();
    let mut compared = 0;
    for line in text.lines() {
        let line = line.split('#').next().unwrap();
        let Some((name, value)) = line.split_once('=') else { continue };
        let (name, value) = (name.trim(), value.trim().trim_matches('\''));
        if ["listen_addresses", "port"].contains(&name) {
            continue;
        }
        let shown = checkout.run(&["--stack", stack, "psql", database, "-XAtc", &format!("SHOW {name}")]).ok().out;
        // Some settings are shown in other words than they are written.
        let value = match (name, value) {
            ("log_min_duration_statement", "1000") => "1s",
            ("wal_compression", "on") => "pglz",
            _ => value,
        };
        assert_eq!(shown.trim(), value, "{name}");
        compared += 1;
    }
    assert!(compared > 8, "only {compared} settings in {file}");
}

fn assert_redis_settings(checkout: &Checkout, stack: &str, file: &str) {
    let text = fs::read_to_string(checkout.root.join(file)).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.split_once(' ').unwrap();
        if ["bind", "port"].contains(&name) {
            continue;
        }
        let value = value.trim_matches('"').replace("512mb", "536870912").replace("64mb", "67108864");
        let shown = checkout.run(&["--stack", stack, "redis-cli", "CONFIG", "GET", name]).ok().out;
        assert!(shown.contains(&value), "{name}: {value} not in {shown}");
    }
}

#[test]
fn a_password_changed_in_env_is_set_and_stays_out_of_sight() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    let pid = checkout.pid("learning");
    checkout.set("POSTGRES_PASSWORD=\"n3w \\\\ p@ss'word\"");
    checkout.run(&["env", "learning"]).ok().says("effect_password").says("still runs with earlier settings");
    let ran = checkout.run(&["up", "learning"]).ok().says("password set").silent_about("p@ss");
    assert_eq!(checkout.pid("learning"), pid, "no restart is needed: {}", ran.err);
    assert_eq!(checkout.sql("learning", "SELECT 1"), "1");
    // The old one no longer opens the door by TCP.
    let psql = checkout.record("learning").unwrap()["program"].as_str().unwrap().replace("/bin/postgres", "/bin/psql");
    let mut old = std::process::Command::new(psql);
    old.args([
        "-h",
        "127.0.0.1",
        "-p",
        &checkout.port("POSTGRES_LEARNING_PORT").to_string(),
        "-U",
        "effect",
        "learning_db",
        "-c",
        "SELECT 1",
    ]);
    old.env("PGPASSWORD", "effect_password");
    let refused = crate::support::ran(old);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("password authentication failed"), "{}", refused.err);

    // The same while it is stopped, with another user and nothing to be found in logs or command lines.
    checkout.run(&["stop"]).ok();
    checkout.set("POSTGRES_PASSWORD=another-secret");
    checkout.set("POSTGRES_USER=somebody");
    checkout.run(&["up", "learning"]).ok().says("password set").says("user created").silent_about("another-secret");
    assert_eq!(checkout.sql("learning", "SELECT current_user"), "somebody");
    let log = fs::read_to_string(checkout.data_folder("effect").join("learning/server.log")).unwrap();
    assert!(!log.contains("secret") && !log.contains("p@ss"), "{log}");
    for pid in checkout.servers() {
        assert!(!crate::support::command_line(pid).contains("secret"));
    }
    let record = checkout.record_path("learning").metadata().unwrap();
    assert_eq!(record.mode() & 0o077, 0, "the record holds the password");
}

#[test]
fn a_changed_port_or_file_restarts_only_what_it_concerns() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "user", "redis"]).ok();
    let (learning, user, redis) = (checkout.pid("learning"), checkout.pid("user"), checkout.pid("redis"));
    let port = crate::support::free_port();
    checkout.set(&format!("POSTGRES_LEARNING_PORT={port}"));
    checkout.run(&["up", "learning", "user", "redis"]).ok().says("its port changes");
    assert_ne!(checkout.pid("learning"), learning);
    assert_eq!((checkout.pid("user"), checkout.pid("redis")), (user, redis));
    assert_eq!(checkout.sql("learning", "SHOW port"), port.to_string());
    checkout.append("docker/redis/effect.conf", "maxmemory 100mb\n");
    checkout.run(&["up", "learning", "user", "redis"]).ok().says("its configuration changed");
    checkout.run(&["redis-cli", "CONFIG", "GET", "maxmemory"]).ok().says("104857600");
    assert_eq!(checkout.pid("user"), user);
}

#[test]
fn run_gives_the_variables_and_the_exit_code() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    let port = checkout.port("POSTGRES_LEARNING_PORT");
    let ran = checkout
        .run(&["run", "learning-service", "--", "bash", "-c", "echo $DATABASE_URL $SERVICE_PORT; exit 7"])
        .exits(7);
    assert_eq!(ran.out, format!("postgresql://effect:effect_password@127.0.0.1:{port}/learning_db 50051\n"));
    checkout.run(&["run", "learning-service", "--", "no-such-program"]).exits(1).says("cannot run `no-such-program`");
    checkout
        .run(&["psql", "user", "-c", "SELECT 1"])
        .exits(1)
        .says("`user` is not running")
        .says("cargo xtask up user");
}

#[test]
fn one_shot_commands_work_without_the_programs() {
    let mut checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    // A PATH with a server's programs and no client: what is looked for beside the server is not there either.
    let programs = crate::support::programs(&checkout, &[]);
    let bin = checkout.record("learning").unwrap()["program"].as_str().unwrap().to_owned();
    for name in ["postgres", "initdb"] {
        std::os::unix::fs::symlink(bin.replace("/bin/postgres", &format!("/bin/{name}")), format!("{programs}/{name}"))
            .unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    checkout.run(&["stop"]).ok();
    checkout.environment.insert("PATH".into(), programs.clone());
    checkout.run(&["up", "learning", "redis"]).ok();
    let ran = checkout.run(&["psql", "learning", "-c", "SELECT 1 AS one, '学習' AS two, NULL AS three"]).ok();
    assert_eq!(ran.out, "  one  two   three\n  1    学習\n(1 row)\n");
    checkout.run(&["psql", "learning", "-c", "SELEC"]).exits(1).says("syntax error");
    checkout.run(&["psql", "learning"]).exits(1).says("there is no `psql`");
    checkout.run(&["redis-cli", "SET", "a", "1"]).ok().says("OK");
    checkout.run(&["redis-cli", "INCR", "a"]).ok().says("(integer) 2");
    checkout.run(&["redis-cli", "GET", "none"]).ok().says("(nil)");
    checkout.run(&["redis-cli", "NOSUCH"]).exits(1).says("unknown command");
    checkout.run(&["redis-cli"]).exits(1).says("there is no `redis-cli`");
    checkout.environment.insert("PATH".into(), path);
}

#[test]
fn logs_are_prefixed_cut_and_followed() {
    let checkout = Checkout::new();
    checkout.run(&["logs"]).exits(1).says("never started");
    checkout.run(&["up", "learning", "redis"]).ok();
    let all = checkout.run(&["logs"]).ok();
    assert!(
        all.out.lines().any(|line| line.starts_with("learning │ ") && line.contains("ready to accept connections")),
        "{}",
        all.out
    );
    assert!(all.out.lines().any(|line| line.starts_with("redis    │ ")));
    let one = checkout.run(&["logs", "redis", "--tail", "2"]).ok();
    assert_eq!(one.out.lines().count(), 2);
    assert!(checkout.run(&["logs", "--since", "1h"]).ok().out.contains("learning │"));
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(checkout.run(&["logs", "--since", "1s"]).ok().out, "");
    checkout.run(&["logs", "--since", "soon"]).exits(2).says("30s, 10m, 2h or 1d");

    let mut following = checkout.watch(&["logs", "learning", "--follow", "--tail", "1"]);
    following.wait_for("learning │ ");
    checkout.run(&["psql", "learning", "-c", "SELEC follow_me"]).exits(1);
    following.wait_for("follow_me");
    signal(pid_of(&following.child), "INT");
    let followed = following.finish().exits(130).silent_about("interrupted");
    assert!(followed.out.lines().all(|line| line.starts_with("learning │ ")), "{}", followed.out);
}

#[test]
fn paths_with_spaces_and_japanese_and_great_length_work() {
    for name in ["my \"project\" 学習 'x' $HOME", &"deep/".repeat(30)] {
        let checkout = Checkout::named(name);
        checkout.run(&["up", "learning", "redis"]).ok();
        assert_eq!(checkout.sql("learning", "SELECT 1"), "1");
        checkout.run(&["redis-cli", "SET", "a", "b"]).ok();
        checkout.run(&["restart"]).ok();
        checkout.run(&["redis-cli", "GET", "a"]).ok().says("b");
        checkout.run(&["status"]).exits(3);
        checkout.run(&["logs"]).ok();
    }
}

#[test]
fn an_ordinary_user_needs_nothing_of_roots() {
    if !is_root() {
        return skip("every other test already runs as an ordinary user");
    }
    let mut checkout = Checkout::new();
    let (uid, gid) = (23_456, 23_456);
    // Without an entry in /etc/passwd, initdb refuses; so a real user's: `daemon` has one everywhere.
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let daemon = passwd.lines().find(|line| line.starts_with("daemon:")).map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    });
    let (uid, gid) = daemon.unwrap_or((uid, gid));
    let home = checkout.beside("home");
    fs::create_dir(&home).unwrap();
    for folder in [home.clone(), checkout.root.clone(), checkout.root.parent().unwrap().to_owned()] {
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    for file in [".env", ".env.nanika"] {
        std::os::unix::fs::chown(checkout.root.join(file), Some(uid), Some(gid)).unwrap();
    }
    checkout.user = Some((uid, gid));
    checkout.environment.insert("HOME".into(), home.display().to_string());
    // The helper itself must be within reach.
    let helper = checkout.beside("helper");
    install(fs::File::open(env!("CARGO_BIN_EXE_xtask")).unwrap(), &helper);
    let run = |arguments: &[&str]| {
        let template = checkout.command(arguments);
        let mut command = std::process::Command::new(&helper);
        command.args(arguments).current_dir(&checkout.root);
        command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, gid);
        crate::support::ran(command)
    };
    run(&["up", "learning", "redis"]).ok().silent_about("nobody");
    let owner = fs::metadata(format!("/proc/{}", checkout.pid("learning"))).unwrap().uid();
    assert_eq!(owner, uid);
    assert!(home.join(".cache/cargo-xtask/toolbox").is_dir());
    run(&["psql", "learning", "-XAtc", "SELECT 1"]).ok();
    // What root leaves behind is explained.
    std::os::unix::fs::chown(checkout.root.join(".xtask/effect/lock"), Some(0), Some(0)).unwrap();
    run(&["stop"]).exits(1).says("is another user's").says("sudo chown -R");
    std::os::unix::fs::chown(checkout.root.join(".xtask/effect/lock"), Some(uid), Some(gid)).unwrap();
    run(&["status"]).exits(3);
    run(&["down", "--volumes", "--yes", "--discard"]).ok();
}

#[test]
fn json_of_up_and_dry_run_is_whole() {
    let checkout = Checkout::new();
    let plan = checkout.run(&["up", "learning", "redis", "--dry-run", "--json"]).ok().json();
    assert_eq!(plan["plan"][0]["action"], "create and start");
    assert!(checkout.servers().is_empty() && !checkout.root.join(".xtask").exists(), "a dry run leaves nothing");
    let up = checkout.run(&["up", "learning", "redis", "--json"]).ok().json();
    let states: Vec<&Value> = up["services"].as_array().unwrap().iter().map(|service| &service["state"]).collect();
    assert_eq!(states, ["ready", "ready"]);
    let plan = checkout.run(&["up", "learning", "--dry-run", "--json"]).ok().json();
    assert_eq!(plan["plan"][0]["action"], "unchanged");
}

#[test]
fn two_databases_can_exchange_their_ports() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "user"]).ok();
    checkout.sql("learning", "CREATE TABLE mine (id int)");
    let (learning, user) = (checkout.port("POSTGRES_LEARNING_PORT"), checkout.port("POSTGRES_USER_PORT"));
    checkout.set(&format!("POSTGRES_LEARNING_PORT={user}"));
    checkout.set(&format!("POSTGRES_USER_PORT={learning}"));
    // What `env` prints and `psql` reaches until then is what runs.
    assert_eq!(checkout.sql("learning", "SELECT count(*) FROM mine"), "0");
    checkout.run(&["up", "learning", "user"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT current_database() || count(*) FROM mine"), "learning_db0");
    assert_eq!(checkout.sql("user", "SHOW port"), learning.to_string());
}

#[test]
fn a_narrow_umask_and_a_shell_that_points_elsewhere_do_no_harm() {
    let mut checkout = Checkout::new();
    checkout.environment.insert("PGHOSTADDR".into(), "127.0.0.9".into());
    checkout.environment.insert("PGSSLMODE".into(), "require".into());
    checkout.environment.insert("PGSERVICE".into(), "production".into());
    let script = format!("umask 077; exec '{}' up learning redis", env!("CARGO_BIN_EXE_xtask"));
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &script]).current_dir(&checkout.root).envs(&checkout.environment);
    crate::support::ran(shell).ok();
    let address = "SELECT host(inet_server_addr())";
    assert_eq!(checkout.sql("learning", address), "127.0.0.1");
    let psql = checkout.record("learning").unwrap()["program"].as_str().unwrap().replace("/bin/postgres", "/bin/psql");
    let ran = checkout.run(&["run", "learning", "--", &psql, "-XAtc", address]).ok();
    assert_eq!(ran.out, "127.0.0.1\n");
    checkout.environment.insert("XTASK_STACK".into(), String::new());
    checkout.run(&["up", "learning", "redis"]).ok().says("unchanged");
}
