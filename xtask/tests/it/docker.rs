//! What only containers can do to a stack: images that are missing, networks that overlap, volumes of another version, an
//! engine that goes away, and other people's Compose.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{
    Checkout, Engine, command_line, docker, finish, local_images, programs, ran, signal, skip, wait_until,
};

fn state(checkout: &Checkout, service: &str) -> Value {
    let status = checkout.run(&["status", "--json"]).json();
    let lines = status["services"].as_array().unwrap();
    lines.iter().find(|line| line["name"] == service).unwrap()["state"].clone()
}

#[test]
fn a_container_that_was_removed_or_paused_is_put_right() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["psql", "learning", "-qc", "CREATE TABLE kept AS SELECT 7 AS id"]).ok();
    docker(&["rm", "--force", &checkout.container("postgres-learning")]);
    assert_eq!(state(&checkout, "learning"), "stopped");
    checkout.run(&["up", "learning", "redis"]).ok().says("2 services ready");
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");

    docker(&["pause", &checkout.container("postgres-learning")]);
    checkout.run(&["status"]).exits(3).says("is paused");
    checkout.run(&["up", "learning", "redis"]).ok().says("its container is paused");
    docker(&["pause", &checkout.container("redis")]);
    checkout.run(&["stop"]).ok().says("2 services stopped");

    // Every container at once, as when the engine restarts; one in the middle of its start.
    checkout.run(&["up", "learning", "redis"]).ok();
    docker(&["kill", &checkout.container("postgres-learning"), &checkout.container("redis")]);
    checkout.run(&["up", "learning", "redis"]).ok().says("2 services ready");
    let up = checkout.spawn(&["restart", "learning"]);
    let project = checkout.project().to_owned();
    wait_until("it starts again", || {
        let filter = format!("label=com.docker.compose.project={project}");
        docker(&["events", "--since", "30s", "--until", "0s", "--filter", &filter, "--filter", "event=start"])
            .lines()
            .count()
            > 4
            || docker(&["ps", "--quiet", "--filter", &filter]).lines().count() == 2
    });
    docker(&["rm", "--force", &checkout.container("postgres-learning")]);
    finish(up);
    checkout.run(&["up", "learning", "redis"]).ok();
    assert_eq!(checkout.sql("learning", "SELECT id FROM kept"), "7");
}

#[test]
fn a_container_that_ends_while_it_starts_shows_its_last_lines() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.append("docker/postgres/effect.conf", "shared_bufers = 1GB\n");
    let refused = checkout.run(&["up", "learning", "redis"]).exits(1).says("`learning` ended while it started");
    assert!(refused.err.contains("shared_bufers"), "{}", refused.err);
    assert_eq!(state(&checkout, "redis"), "ready");
    checkout.replace("docker/postgres/effect.conf", "shared_bufers = 1GB\n", "");
    checkout.run(&["up", "learning", "redis"]).ok();
}

/// As an engine does that was just restarted: it ends what it finds running, while `up` makes the database that is missing.
#[test]
fn a_container_that_somebody_ends_while_its_database_is_made_is_started_again() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.run(&["up", "learning"]).ok();
    let container = checkout.container("postgres-learning");
    let psql = |sql: &str| docker(&["exec", &container, "psql", "-U", "effect", "-d", "postgres", "-Atqc", sql]);
    for end in [["kill", "--signal=KILL"], ["stop", "--time=5"]] {
        psql("DROP DATABASE learning_db");
        // For as long as somebody has this lock, no database is made.
        let lock = "BEGIN; LOCK TABLE pg_database IN SHARE MODE; SELECT pg_sleep(600)";
        let mut holder = Command::new("docker")
            .args(["exec", &container, "psql", "-U", "effect", "-d", "postgres", "-qc", lock])
            .spawn()
            .unwrap();
        let is_there = |who: &str| psql(&format!("SELECT 'yes' FROM pg_stat_activity WHERE {who}")).trim() == "yes";
        wait_until("the lock is held", || is_there("wait_event = 'PgSleep'"));
        let up = checkout.spawn(&["up", "learning"]);
        let waits = "query LIKE 'CREATE DATABASE%' AND wait_event_type = 'Lock'";
        wait_until("the database is being made", || is_there(waits));
        docker(&[&end[..], &[&container]].concat());
        finish(up).ok().says("it is started again");
        holder.wait().unwrap();
        assert_eq!(checkout.sql("learning", "SELECT current_database()"), "learning_db");
    }
}

/// An engine that was killed and started anew may have a container run whose port it forwards no more.
#[test]
fn a_container_that_lost_its_port_is_started_anew() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.run(&["up", "learning"]).ok();
    let port = checkout.port("POSTGRES_LEARNING_PORT").to_string();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = processes.filter_map(|name| name.to_str()?.parse().ok());
    let is_proxy = |pid: &i32| {
        let line = command_line(*pid);
        line.contains("docker-proxy") && line.contains(&port)
    };
    let proxies: Vec<i32> = pids.filter(is_proxy).collect();
    if proxies.is_empty() {
        skip("this engine forwards ports without processes, or they are another user's");
        return;
    }
    proxies.into_iter().for_each(|pid| signal(pid, "KILL"));
    checkout.run(&["up", "learning"]).ok().says("it is started again");
    assert_eq!(checkout.sql("learning", "SELECT current_database()"), "learning_db");
}

#[test]
fn missing_images_are_named_and_auto_goes_native() {
    let Some(mut checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.environment.insert("REDIS_IMAGE".into(), "localhost:9/none/redis:8".into());
    checkout.run(&["up", "redis"]).exits(1).says("1 image missing").says("localhost:9/none/redis:8");
    checkout.run(&["up", "redis", "--offline"]).exits(1).says("offline");
    assert!(!checkout.root.join(".xtask/effect/instance.json").exists(), "no engine is kept that never worked");
    checkout.run(&["up", "redis", "--engine", "auto", "--dry-run"]).ok().says("on the native engine").says("no image");
    checkout
        .run(&["up", "redis", "--engine", "auto"])
        .ok()
        .says("effect on the native engine (Docker answers, and has no image `localhost:9/none/redis:8`");
    checkout.run(&["up", "redis", "--engine", "auto"]).ok().says("unchanged");
}

#[test]
fn without_an_engine_a_sentence_says_so() {
    let mut checkout = Checkout::new();
    checkout.environment.insert("XTASK_ENGINE".into(), "docker".into());
    let path = |folder: &str| format!("{folder}:/usr/bin:/bin");
    // Every program of this machine but Docker's.
    let fakes = |script: &str| programs(&checkout, &[("docker", script)]);
    let cases = [
        (
            "echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1",
            "no Docker engine answers",
        ),
        (
            "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1",
            "you may not talk to Docker's engine",
        ),
        ("case $1 in version) echo '{\"Version\":\"26.1.5\"}';; *) exit 1;; esac", "no Compose v2"),
        ("case $1 in version) echo '{\"Version\":\"20.10.24\"}';; *) echo 2.26.1;; esac", "needs 25 or later"),
        ("case $1 in version) echo '{\"Version\":\"26.1.5\"}';; *) echo 1.29.2;; esac", "`docker compose` is 1.29.2"),
    ];
    for (script, said) in cases {
        let folder = fakes(script);
        let mut command = checkout.command(&["up", "redis"]);
        command.env("PATH", path(&folder));
        ran(command).exits(1).says(said);
        let mut command = checkout.command(&["up", "redis", "--engine", "auto", "--dry-run"]);
        command.env("PATH", path(&folder));
        ran(command).ok().says("on the native engine").says(said);
    }
    // What the engine says in words that nobody knows is an error, not a guess.
    let unknown = "case \"$*\" in version*) echo '{\"Version\":\"26.1.5\"}';; *'compose version'*) echo 2.26.1;; \
        *'image inspect'*) echo '[{\"Id\":\"x\",\"Config\":{}}]';; *'ps --all'*) echo abc;; \
        *'container inspect'*) echo '[{\"Id\":\"abc\",\"Name\":\"x\",\"Args\":[],\"State\":{\"Status\":\"hibernating\",\"ExitCode\":0,\"OOMKilled\":false,\"Error\":\"\",\"Pid\":1,\"StartedAt\":\"2026-01-01T00:00:00Z\"},\"Config\":{},\"HostConfig\":{}}]';; esac";
    let folder = fakes(unknown);
    let mut command = checkout.command(&["up", "redis"]);
    command.env("PATH", path(&folder));
    ran(command).exits(1).says("answered what this helper does not know").says("hibernating");
    let gibberish = fakes("echo whatever");
    let mut command = checkout.command(&["doctor"]);
    command.env("PATH", path(&gibberish));
    ran(command).exits(3).says("not-looked: ").says("answered what this helper does not know").says("info     memory");
}

#[test]
fn overlapping_addresses_are_explained_with_free_ones() {
    let Some(mut checkout) = Checkout::on(Engine::Docker) else { return };
    let Some(images) = local_images(&[("postgres-15", "POSTGRES_IMAGE"), ("redis-7", "REDIS_IMAGE")]) else { return };
    checkout.environment.extend(images);
    checkout.append(".env.nanika", "NETWORK_SUBNET=10.213.0.0/16\n");
    let network = format!("{}-other", checkout.project());
    docker(&["network", "create", "--subnet", "10.213.7.0/24", &network]);
    let refused = checkout.run(&["up", "redis", "--stack", "nanika"]);
    docker(&["network", "rm", &network]);
    let refused = refused.exits(1).says("10.213.0.0/16 of nanika-network are taken");
    assert!(refused.err.contains(&network) && refused.err.contains("NETWORK_SUBNET="), "{}", refused.err);

    // One that somebody removes after it was listed is in nobody's way.
    let list_one_more = r#"[ "$1 $2" = "network ls" ] && printf '%064d\n' 7
export PATH=${PATH#*:}
exec docker "$@""#;
    let path = format!("{}:{}", programs(&checkout, &[("docker", list_one_more)]), std::env::var("PATH").unwrap());
    let mut up = checkout.command(&["up", "--stack", "nanika"]);
    up.env("PATH", path);
    ran(up).ok().says("2 services ready");
    let own = docker(&["network", "inspect", &format!("{}_nanika-network", checkout.project())]);
    assert!(own.contains("10.213.0.0/16"), "{own}");
    checkout.run(&["up", "--stack", "nanika"]).ok().says("unchanged");
}

#[test]
fn a_volume_of_another_major_or_instance_is_refused() {
    let Some(mut checkout) = Checkout::on(Engine::Docker) else { return };
    let Some(images) = local_images(&[("postgres-15", "POSTGRES_IMAGE")]) else { return };
    let (fifteen, eighteen) = (images[0].1.clone(), checkout.environment["POSTGRES_IMAGE"].clone());
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["down"]).ok();
    checkout.replace(
        "config/effect.toml",
        "major = 18\nimage = \"postgres-18\"",
        "major = 15\nimage = \"postgres-15\"",
    );
    checkout.environment.insert("POSTGRES_IMAGE".into(), fifteen);
    checkout.run(&["doctor"]).exits(3).says("data-major");
    let refused =
        checkout.run(&["up", "learning", "redis"]).exits(4).says("the data of `learning` are PostgreSQL 18's");
    assert!(refused.err.contains("postgres.major = 18"), "{}", refused.err);
    assert_eq!(state(&checkout, "redis"), "stopped", "nothing was started");
    checkout.replace(
        "config/effect.toml",
        "major = 15\nimage = \"postgres-15\"",
        "major = 18\nimage = \"postgres-18\"",
    );
    checkout.environment.insert("POSTGRES_IMAGE".into(), eighteen);
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.run(&["down"]).ok();

    // Without its state, a checkout finds its own data again; another checkout is refused.
    fs::remove_dir_all(checkout.root.join(".xtask")).unwrap();
    checkout.run(&["up", "learning"]).ok().says("1 service ready").silent_about("new");
    let mut other = Checkout::on(Engine::Docker).unwrap();
    other.environment.insert("COMPOSE_PROJECT_NAME".into(), checkout.project().to_owned());
    other.run(&["up", "learning"]).exits(4).says("belongs to");
    other.environment.remove("COMPOSE_PROJECT_NAME");
    checkout.run(&["down", "--undo"]).exits(2).says("a volume cannot be renamed");
}

#[test]
fn a_full_disk_is_named_and_the_next_up_works() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    // A volume of 20 MB of memory, in the place of the one that `up` would make.
    let project = checkout.project().to_owned();
    let volume = format!("{project}_postgres_learning_data");
    let labels = [
        format!("com.docker.compose.project={project}"),
        "com.docker.compose.volume=postgres_learning_data".to_owned(),
    ];
    checkout.run(&["up", "redis"]).ok();
    let identity: Value =
        serde_json::from_slice(&fs::read(checkout.root.join(".xtask/effect/instance.json")).unwrap()).unwrap();
    let instance = format!("cargo-xtask.instance={}", identity["id"].as_str().unwrap());
    // Compose made it, empty, when it made the one of Redis.
    docker(&["volume", "rm", &volume]);
    let mut arguments = vec!["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=20m"];
    for label in [&labels[0], &labels[1], &instance] {
        arguments.extend(["--label", label]);
    }
    arguments.push(&volume);
    docker(&arguments);
    checkout
        .run(&["up", "learning", "user", "redis"])
        .exits(1)
        .says("no space for new databases")
        .says("nothing is lost");
    assert_eq!(state(&checkout, "redis"), "ready");
    // The container that Compose made meanwhile holds on to it.
    let container = checkout.container("postgres-learning");
    if !container.is_empty() {
        docker(&["rm", "--force", &container]);
    }
    docker(&["volume", "rm", &volume]);
    checkout.run(&["up", "learning", "user", "redis"]).ok().says("new");
    assert_eq!(checkout.sql("learning", "SELECT current_database()"), "learning_db");
}

/// The engine's socket with a switch: off, it is an engine that was stopped.
struct Gate {
    path: PathBuf,
    is_open: Arc<AtomicBool>,
    passed: Arc<AtomicUsize>,
}

impl Gate {
    fn new(checkout: &Checkout) -> Gate {
        let path = checkout.beside("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (is_open, passed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (open, count) = (Arc::clone(&is_open), Arc::clone(&passed));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
                forward(client.try_clone().unwrap(), engine.try_clone().unwrap(), Arc::clone(&open));
                forward(engine, client, Arc::clone(&open));
            }
        });
        Gate { path, is_open, passed }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

fn forward(mut from: UnixStream, mut to: UnixStream, open: Arc<AtomicBool>) {
    from.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
    std::thread::spawn(move || {
        let mut piece = [0; 16 << 10];
        loop {
            match from.read(&mut piece) {
                _ if !open.load(Ordering::SeqCst) => break,
                Ok(0) => break,
                Ok(read) => {
                    if to.write_all(&piece[..read]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(_) => break,
            }
        }
        let how = if open.load(Ordering::SeqCst) { std::net::Shutdown::Write } else { std::net::Shutdown::Both };
        let _peer_may_be_gone = to.shutdown(how);
    });
}

#[test]
fn an_engine_that_goes_away_in_the_middle_loses_nothing() {
    let Some(mut checkout) = Checkout::on(Engine::Docker) else { return };
    if !Path::new("/var/run/docker.sock").exists() {
        return;
    }
    let gate = Gate::new(&checkout);
    checkout.environment.insert("DOCKER_HOST".into(), gate.host());
    for requests in [6, 20, 40, 60, 90] {
        gate.is_open.store(true, Ordering::SeqCst);
        gate.passed.store(0, Ordering::SeqCst);
        let up = checkout.spawn(&["up", "learning", "redis"]);
        let mut done = false;
        let mut up = up;
        wait_until("it has asked that often, or is through", || {
            done = up.try_wait().unwrap().is_some();
            done || gate.passed.load(Ordering::SeqCst) >= requests
        });
        gate.is_open.store(false, Ordering::SeqCst);
        let up = finish(up);
        // What it had asked by then may have been all that it needed.
        assert!(up.code == Some(0) || !done && up.code == Some(1), "{}", up.err);
        if !done {
            assert!(!up.err.contains("panicked"), "{}", up.err);
            // It may have ended before the instance was there.
            if checkout.root.join(".xtask/effect/instance.json").exists() {
                checkout.run(&["status"]).exits(1).says("no Docker engine answers");
            }
            checkout.run(&["doctor"]);
        }
        gate.is_open.store(true, Ordering::SeqCst);
        checkout.run(&["up", "learning", "redis"]).ok();
        assert_eq!(checkout.sql("learning", "SELECT current_database()"), "learning_db");
        checkout.run(&["down", "--volumes", "--yes"]).ok();
    }
}

#[test]
fn plain_compose_sees_what_the_helper_started() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    // As `.env.example` has it.
    checkout.set("COMPOSE_FILE=docker/effect/compose.yaml");
    checkout.run(&["up", "learning", "redis"]).ok();
    let compose = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.arg("compose").args(arguments).current_dir(&checkout.root).envs(&checkout.environment);
        ran(command)
    };
    let listed = compose(&["ps", "--services"]).ok().out;
    assert_eq!(listed.lines().collect::<std::collections::BTreeSet<_>>(), ["postgres-learning", "redis"].into());
    compose(&["logs", "postgres-learning"]).ok().says("ready to accept connections");
    // Its configuration is Compose's own: nothing is made anew.
    let before = checkout.container("postgres-learning");
    compose(&["up", "--detach", "--pull", "never", "postgres-learning", "redis"]).ok();
    assert_eq!(checkout.container("postgres-learning"), before);
    // What plain Compose started is taken over as it is.
    compose(&["down"]).ok();
    compose(&["up", "--detach", "--pull", "never", "postgres-learning", "redis"]).ok();
    checkout.run(&["up", "learning", "redis"]).ok().says("unchanged");
    checkout.run(&["stop"]).ok().says("2 services stopped");
}

#[test]
fn a_second_checkout_has_a_project_of_its_own() {
    let Some(mut first) = Checkout::on(Engine::Docker) else { return };
    let mut second = Checkout::on(Engine::Docker).unwrap();
    for checkout in [&mut first, &mut second] {
        checkout.environment.remove("COMPOSE_PROJECT_NAME");
    }
    let ups = [first.spawn(&["up", "redis"]), second.spawn(&["up", "redis"])].map(finish);
    for up in ups {
        up.ok();
    }
    let project = |checkout: &Checkout| {
        let text = fs::read(checkout.root.join(".xtask/effect/instance.json")).unwrap();
        let identity: Value = serde_json::from_slice(&text).unwrap();
        identity["project"].as_str().unwrap().to_owned()
    };
    let mut projects = [project(&first), project(&second)];
    assert_ne!(projects[0], projects[1]);
    projects.sort();
    assert!(projects[1].starts_with("effect-"), "{projects:?}");
    first.run(&["redis-cli", "SET", "mine", "1"]).ok();
    assert_eq!(second.run(&["redis-cli", "GET", "mine"]).ok().out.trim(), "(nil)");
    first.run(&["down"]).ok();
    assert_eq!(state(&second, "redis"), "ready");
}

#[test]
fn containers_of_a_checkout_that_is_gone_are_found_and_removed() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    let gone = Checkout::on(Engine::Docker).unwrap();
    let mut environment = gone.environment.clone();
    environment.insert("XTASK_STATE_DIR".into(), checkout.environment["XTASK_STATE_DIR"].clone());
    let mut up = gone.command(&["up", "redis"]);
    up.envs(&environment);
    ran(up).ok();
    fs::remove_dir_all(gone.root.join(".xtask")).unwrap();
    checkout.run(&["doctor"]).exits(3).says("checkout-gone");
    checkout.run(&["doctor", "--fix"]).says("removed 1 containers");
    assert_eq!(gone.container("redis"), "");
}

#[test]
fn a_stale_compose_file_is_written_anew() {
    let Some(checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.set("PUBSUB_PROJECT_ID=of-this-machine");
    checkout.run(&["up", "redis"]).ok().silent_about("anew");
    checkout.replace("config/effect.toml", "purpose = \"user profiles and credentials\"", "purpose = \"users\"");
    checkout.run(&["up", "redis"]).ok().says("wrote docker/effect/compose.yaml anew").says("unchanged");
    let text = fs::read_to_string(checkout.root.join("docker/effect/compose.yaml")).unwrap();
    assert!(text.contains("# users\n") && !text.contains("of-this-machine"));
}

#[test]
fn doctor_tells_of_an_image_that_holds_another_version() {
    let Some(mut checkout) = Checkout::on(Engine::Docker) else { return };
    checkout.run(&["up", "learning"]).ok();
    // A stand-in for Redis may be older than its tag.
    checkout.run(&["doctor"]).silent_about("learning: the image holds");
    // A tag that has moved: it says 18.6 and holds 18.5.
    let image = checkout.environment["POSTGRES_IMAGE"].clone();
    let moved = format!("{}-moved:18.6-alpine3.24", checkout.project());
    let container = docker(&["create", &image]).trim().to_owned();
    docker(&["commit", "--change", "ENV PG_VERSION=18.5-1", &container, &moved]);
    docker(&["rm", &container]);
    checkout.environment.insert("POSTGRES_IMAGE".into(), moved.clone());
    let ran = checkout.run(&["doctor"]);
    docker(&["image", "rm", &moved]);
    ran.exits(3).says("image-drift").says("learning: the image holds 18.5, and 18.6 is pinned");
}
