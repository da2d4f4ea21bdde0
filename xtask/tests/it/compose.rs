//! The Compose files: what Compose makes of them, and what they must never say.

use std::process::Command;

use serde_json::Value;

use crate::support::{Checkout, local_images, ran, skip_docker};

/// The file as Compose reads it; nothing where there is no Compose.
fn resolved(checkout: &Checkout, stack: &str, settings: &[(&str, &str)]) -> Option<Value> {
    let compose = Command::new("docker").args(["compose", "version", "--short"]).output();
    let version = compose.ok().filter(|output| output.status.success())?;
    let version = String::from_utf8_lossy(&version.stdout).trim().trim_start_matches('v').to_owned();
    // Compose v1 was another program, with another language.
    (version.split('.').next()? != "1").then_some(())?;
    let mut command = Command::new("docker");
    command.args([
        "compose",
        "--profile",
        "*",
        "--file",
        &format!("docker/{stack}/compose.yaml"),
        "config",
        "--format",
        "json",
    ]);
    command.current_dir(&checkout.root).envs(settings.iter().copied());
    for name in ["POSTGRES_USER", "POSTGRES_PASSWORD", "COMPOSE_PROJECT_NAME"] {
        if !settings.iter().any(|(set, _)| *set == name) {
            command.env_remove(name);
        }
    }
    Some(ran(command).ok().json())
}

#[test]
fn compose_reads_what_the_manifest_says() {
    let checkout = Checkout::new();
    let Some(effect) =
        resolved(&checkout, "effect", &[("POSTGRES_LEARNING_PORT", "15433"), ("POSTGRES_PASSWORD", "o'ther")])
    else {
        return skip_docker();
    };
    assert_eq!(effect["name"], "effect");
    let services = effect["services"].as_object().unwrap();
    assert_eq!(services.len(), 15);
    let learning = &services["postgres-learning"];
    assert_eq!(learning["ports"][0]["published"], "15433");
    assert_eq!(learning["ports"][0]["host_ip"], "127.0.0.1");
    assert_eq!(learning["environment"]["POSTGRES_PASSWORD"], "o'ther");
    assert_eq!(learning["environment"]["POSTGRES_DB"], "learning_db");
    assert_eq!(learning["stop_signal"], "SIGINT");
    assert_eq!(learning["deploy"]["resources"]["limits"]["memory"], "536870912");
    assert_eq!(learning["volumes"][0]["target"], "/var/lib/postgresql");
    let configuration = learning["volumes"][1]["source"].as_str().unwrap();
    assert_eq!(std::fs::canonicalize(configuration).unwrap(), checkout.root.join("docker/postgres/effect.conf"));
    assert_eq!(learning["volumes"][1]["read_only"], true);
    assert_eq!(services["grafana"]["profiles"][0], "monitoring");
    assert_eq!(effect["volumes"].as_object().unwrap().len(), 9);

    let nanika = resolved(&checkout, "nanika", &[]).unwrap();
    assert_eq!(nanika["services"]["postgres"]["volumes"][0]["target"], "/var/lib/postgresql/data");
    assert_eq!(nanika["networks"]["nanika-network"]["ipam"]["config"][0]["subnet"], "172.20.0.0/16");
}

#[test]
fn compose_files_keep_to_what_was_learnt_the_hard_way() {
    let checkout = Checkout::new();
    for stack in ["effect", "nanika"] {
        let text = std::fs::read_to_string(checkout.root.join(format!("docker/{stack}/compose.yaml"))).unwrap();
        assert!(text.lines().next().unwrap().ends_with("do not edit."));
        for forbidden in ["version:", "container_name", "latest", "/var/run/docker.sock"] {
            assert!(!text.contains(forbidden), "{stack}: {forbidden}");
        }
        for line in text.lines().map(str::trim) {
            if let Some(image) = line.strip_prefix("image: ") {
                assert!(image.contains(":-") && image.contains("@sha256:"), "{stack}: {image}");
            }
            if line.starts_with("- \"") {
                assert!(line.starts_with("- \"127.0.0.1:${"), "{stack}: {line}");
            }
        }
        // Docker ignores a start interval without a start period.
        assert_eq!(text.matches("start_interval:").count(), text.matches("start_period:").count());
        assert!(text.matches("start_interval:").count() >= 2);
    }
    // What `.env` says on one machine never gets into the committed file.
    checkout.set("POSTGRES_PASSWORD=of-this-machine");
    checkout.set("POSTGRES_IMAGE=elsewhere/postgres:18");
    let printed = checkout.run(&["render", "compose", "--print"]).ok().silent_about("of-this-machine");
    assert!(
        !printed.out.contains("elsewhere/postgres") && !printed.out.contains(&checkout.setting(".env", "REDIS_PORT"))
    );
}

/// A project of Compose for one test; dropping it removes containers and volumes.
struct Project<'a> {
    checkout: &'a Checkout,
    name: String,
    settings: Vec<(String, String)>,
}

impl Project<'_> {
    fn compose(&self, arguments: &[&str]) -> crate::support::Ran {
        let mut command = Command::new("docker");
        command.args([
            "compose",
            "--project-name",
            &self.name,
            "--env-file",
            ".env",
            "--file",
            "docker/effect/compose.yaml",
        ]);
        command.args(arguments).current_dir(&self.checkout.root).envs(self.settings.iter().cloned());
        ran(command)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let down = self.compose(&["down", "--volumes", "--timeout", "5"]);
        if down.code != Some(0) {
            eprintln!("{}", down.err);
        }
    }
}

#[test]
fn plain_compose_brings_services_up_with_the_stacks_own_configuration() {
    let checkout = Checkout::new();
    let images = local_images(&[("postgres-18", "POSTGRES_IMAGE"), ("redis-8", "REDIS_IMAGE")]);
    let (Some(settings), Some(_)) = (images, resolved(&checkout, "effect", &[])) else {
        return skip_docker();
    };
    let project = Project { checkout: &checkout, name: format!("xtask-test-{}", std::process::id()), settings };
    project.compose(&["up", "--detach", "--wait", "postgres-learning", "redis"]).ok();
    let sql = |statement: &str| {
        let words =
            ["exec", "--no-TTY", "--env", "PGPASSWORD=effect_password", "postgres-learning", "psql", "-h", "127.0.0.1"];
        let words: Vec<&str> = words.into_iter().chain(["-U", "effect", "learning_db", "-XAtc", statement]).collect();
        project.compose(&words).ok().out.trim().to_owned()
    };
    let file = std::fs::read_to_string(checkout.root.join("docker/postgres/effect.conf")).unwrap();
    for line in file.lines().filter_map(|line| line.split('#').next()) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = match (name.trim(), value.trim().trim_matches('\'')) {
            ("log_min_duration_statement", "1000") => "1s",
            ("wal_compression", "on") => "pglz",
            (_, value) => value,
        };
        assert_eq!(sql(&format!("SHOW {name}")), value, "{name}");
    }
    assert_eq!(sql("SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'learning_db'"), "b|C.UTF-8");

    // Who holds the ports now is named as the container it is.
    let refused = checkout.run(&["up", "learning", "redis"]).exits(1).says("2 of 2 ports are taken");
    assert!(refused.err.contains(&format!("container {}-postgres-learning-1", project.name)), "{}", refused.err);

    // Data outlive the containers.
    sql("CREATE TABLE kept AS SELECT 7 AS id");
    project.compose(&["down"]).ok();
    project.compose(&["up", "--detach", "--wait", "postgres-learning"]).ok();
    assert_eq!(sql("SELECT id FROM kept"), "7");
}
