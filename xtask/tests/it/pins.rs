//! What is pinned: the flake's lock, images and versions; and that a slip in any of them does not go unseen.

use std::fs;

use serde_json::Value;

use crate::support::{Checkout, repository};

fn lock() -> Value {
    serde_json::from_str(&fs::read_to_string(repository().join("flake.lock")).unwrap()).unwrap()
}

/// Nobody here can ask whether the hash is right; that the lock is one, and the flake's, can be seen.
#[test]
fn the_lock_of_the_flake_is_whole() {
    let lock = lock();
    assert_eq!(lock["version"], 7);
    let nodes = lock["nodes"].as_object().unwrap();
    let root = lock["root"].as_str().unwrap();
    let mut reached = vec![root.to_owned()];
    let mut next = 0;
    while let Some(name) = reached.get(next).cloned() {
        next += 1;
        let node = nodes.get(&name).unwrap_or_else(|| panic!("no node `{name}`"));
        for input in node["inputs"].as_object().into_iter().flatten() {
            let target = input.1.as_str().expect("an input that is a path through others").to_owned();
            if !reached.contains(&target) {
                reached.push(target);
            }
        }
    }
    assert_eq!(reached.len(), nodes.len(), "a node that nothing leads to");
    assert_eq!(reached, ["root", "nixpkgs"], "one input");

    let (locked, original) = (&nodes["nixpkgs"]["locked"], &nodes["nixpkgs"]["original"]);
    let rev = locked["rev"].as_str().unwrap();
    assert!(rev.len() == 40 && rev.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{rev}");
    let hash = locked["narHash"].as_str().unwrap().strip_prefix("sha256-").unwrap();
    assert!(hash.len() == 44 && hash.ends_with('='), "{hash}");
    // Between the first flakes and ten years from now.
    assert!((1_500_000_000..2_100_000_000).contains(&locked["lastModified"].as_u64().unwrap()));
    for key in ["type", "owner", "repo"] {
        assert_eq!(locked[key], original[key], "{key}");
    }
    let url = format!(
        "{}:{}/{}/{}",
        original["type"].as_str().unwrap(),
        original["owner"].as_str().unwrap(),
        original["repo"].as_str().unwrap(),
        original["ref"].as_str().unwrap()
    );
    let flake = fs::read_to_string(repository().join("flake.nix")).unwrap();
    assert!(flake.contains(&format!("inputs.nixpkgs.url = \"{url}\";")), "flake.nix does not name {url}");
    assert!(flake.lines().count() < 150);
}

/// Values live in TOML: a port, a tag or a digest in Nix would be a second truth.
#[test]
fn no_value_of_a_manifest_stands_in_nix() {
    let mut nix = fs::read_to_string(repository().join("flake.nix")).unwrap();
    for entry in fs::read_dir(repository().join(".nix")).unwrap() {
        nix.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let images: toml::Table = fs::read_to_string(repository().join("config/images.toml")).unwrap().parse().unwrap();
    for (key, image) in &images {
        for field in ["name", "tag", "digest"] {
            let value = image[field].as_str().unwrap();
            assert!(!nix.contains(value), "{field} of {key} stands in Nix: {value}");
        }
    }
    let manifest = fs::read_to_string(repository().join("config/effect.toml")).unwrap();
    let ports = manifest.lines().filter_map(|line| line.strip_prefix("port = ")?.parse::<u16>().ok());
    // Inside a container, the servers' own ports are no choice of the manifest's.
    for port in ports.filter(|port| ![5432, 6379].contains(port)) {
        assert!(!nix.contains(&port.to_string()), "port {port} stands in Nix");
    }
}

/// The keys of the images: one that nothing uses could otherwise be misspelt for ever.
#[test]
fn every_image_is_known_by_its_key() {
    let images: toml::Table = fs::read_to_string(repository().join("config/images.toml")).unwrap().parse().unwrap();
    let keys: Vec<&str> = images.keys().map(String::as_str).collect();
    let expected = "alertmanager alloy google-cloud-cli grafana jaeger loki pgadmin postgres-15 postgres-18 postgres-exporter \
        prometheus redis-7 redis-8 redis-exporter redisinsight";
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys.join(" "), expected);
}

/// A slip in a pinned name, port or key is found by validation (2) or by the check of generated files (3).
#[test]
fn a_slip_in_a_manifest_or_pin_is_found() {
    let slips = [
        ("config/effect.toml", "port = 5433", "port = 5533"),
        ("config/effect.toml", "port = 5434", "port = 5433"),
        ("config/effect.toml", "image = \"postgres-18\"", "image = \"postgres-81\""),
        ("config/effect.toml", "major = 18", "major = 15"),
        ("config/effect.toml", "[redis]\nmajor = 8", "[redis]\nmajor = 9"),
        ("config/effect.toml", "config = \"docker/redis/effect.conf\"", "config = \"docker/redis/efect.conf\""),
        ("config/effect.toml", "cpu-limit = 0.5", "cpu-limit = nan"),
        ("config/effect.toml", "min-connections = 5", "min-connections = 50"),
        ("config/effect.toml", "[pubsub.topics]", "[pubsub.topcis]"),
        ("config/effect.toml", "volume = \"postgres_ai_data\"", "volume = \"postgres_saga_data\""),
        ("config/effect.toml", "variable = \"GRAFANA_PORT\"", "variable = \"GRAFNA_PORT\""),
        ("config/effect.toml", "\"user.users.id\"", "\"usr.users.id\""),
        ("config/nanika.toml", "subnet = \"172.20.0.0/16\"", "subnet = \"172.20.0.0/33\""),
        ("config/images.toml", "tag = \"18.6-alpine3.24\"", "tag = \"18.7-alpine3.24\""),
        ("config/images.toml", "tag = \"18.6-alpine3.24\"", "tag = \"17.6-alpine3.24\""),
        ("config/images.toml", "digest = \"sha256:d3e1", "digest = \"sha256:d3e"),
        ("config/images.toml", "variable = \"REDIS_IMAGE\"", "variable = \"REDS_IMAGE\""),
        ("config/images.toml", "[jaeger]", "[jeager]"),
        ("docker/postgres/effect.conf", "max_connections", "max_conections"),
        ("docker/effect/compose.yaml", "start_period: 60s", "start_period: 0s"),
        (".env.example", "REDIS_PORT=6379", "REDIS_PORT=6380"),
        ("config/stack.schema.json", "\"databases\"", "\"datbases\""),
    ];
    let checkout = Checkout::new();
    for stack in ["", ".nanika"] {
        fs::remove_file(checkout.root.join(format!(".env{stack}"))).unwrap();
        let example = format!(".env{stack}.example");
        fs::copy(repository().join(&example), checkout.root.join(&example)).unwrap();
    }
    checkout.run(&["render", "--check"]).ok();
    for (file, from, to) in slips {
        let before = fs::read_to_string(checkout.root.join(file)).unwrap();
        checkout.replace(file, from, to);
        let ran = checkout.run(&["render", "--check"]);
        assert!(matches!(ran.code, Some(2 | 3)), "{file}: `{from}` → `{to}` went unseen: {ran:?}");
        fs::write(checkout.root.join(file), before).unwrap();
    }
    checkout.run(&["render", "--check"]).ok();
}

#[test]
fn doctor_tells_where_pins_and_flake_disagree() {
    let checkout = Checkout::new();
    checkout.run(&["doctor"]).silent_about("flake-lock").says("outside the flake's shell");
    for file in ["flake.nix", "flake.lock"] {
        fs::copy(repository().join(file), checkout.root.join(file)).unwrap();
    }
    checkout.run(&["doctor"]).says("github:NixOS/nixpkgs/");
    checkout.replace("flake.nix", "nixos-26.05", "nixos-26.11");
    checkout.run(&["doctor"]).exits(3).says("flake-lock").says("which flake.nix does not name");
    let mut command = checkout.command(&["doctor"]);
    command.env("XTASK_SHELL", "gcp");
    crate::support::ran(command).says("inside the flake's shell `gcp`");
    checkout.run(&["up", "learning", "redis"]).ok();
    checkout.replace("config/images.toml", "tag = \"18.6-alpine3.24\"", "tag = \"18.7-alpine3.24\"");
    checkout.run(&["doctor"]).says("learning: 18.6 runs, and 18.7 is pinned").says("the toolbox has PostgreSQL 18.6");
}

#[test]
fn doctor_tells_where_manifests_toolchain_and_cargo_lock_disagree() {
    let checkout = Checkout::new();
    checkout.run(&["doctor"]).silent_about("cargo-lock");
    for folder in ["xtask/src", "xtask/archive/src", "xtask/sql/src"] {
        fs::create_dir_all(checkout.root.join(folder)).unwrap();
    }
    for file in ["Cargo.toml", "Cargo.lock", "xtask/Cargo.toml", "xtask/archive/Cargo.toml", "xtask/sql/Cargo.toml"] {
        fs::copy(repository().join(file), checkout.root.join(file)).unwrap();
    }
    checkout.run(&["doctor"]).says("info     cargo-lock: Cargo.lock pins").silent_about("toolchain-");

    checkout.replace("xtask/Cargo.toml", "rust-version = \"1.95\"", "rust-version = \"9.5\"");
    checkout.run(&["doctor"]).exits(3).says("toolchain-old").says("and xtask/Cargo.toml asks for 9.5");
    checkout.replace("xtask/Cargo.toml", "rust-version = \"9.5\"", "rust-version = \"1.95\"");
    let mut command = checkout.command(&["doctor"]);
    command.env("XTASK_SHELL", "default").env("XTASK_SHELL_RUSTC", "1.2.3");
    crate::support::ran(command).exits(3).says("toolchain-drift").says("the flake's shell brings 1.2.3");

    let lock = fs::read_to_string(checkout.root.join("Cargo.lock")).unwrap();
    let clap = lock.split("\n\n").find(|package| package.contains("name = \"clap\"")).unwrap();
    let version = clap.lines().find(|line| line.starts_with("version")).unwrap();
    let slips = [
        (clap.to_owned(), String::new(), "`xtask` needs `clap`, which it does not have"),
        (clap.to_owned(), clap.replace(version, "version = \"3.0.0\""), "asks for `clap 4.6`, and it has 3.0.0"),
        (" \"clap\",\n".to_owned(), String::new(), "asks for `clap 4.6`, and it has none for it"),
        ("name = \"xtask\"".to_owned(), "name = \"ytask\"".to_owned(), "it has no `xtask`"),
    ];
    for (from, to, said) in slips {
        assert!(lock.contains(&from), "{from}");
        fs::write(checkout.root.join("Cargo.lock"), lock.replace(&from, &to)).unwrap();
        checkout.run(&["doctor"]).exits(3).says("cargo-lock-stale").says(said).says("cargo update --workspace");
    }
    fs::write(checkout.root.join("Cargo.lock"), lock.replace("\nversion = 4\n", "\nversion = 5\n")).unwrap();
    checkout.run(&["doctor"]).exits(3).says("cargo-lock-new");
    fs::write(checkout.root.join("Cargo.lock"), "<<<<<<< ours\n").unwrap();
    checkout.run(&["doctor"]).exits(3).says("cargo-lock-unreadable");
    fs::remove_file(checkout.root.join("Cargo.lock")).unwrap();
    checkout.run(&["doctor"]).exits(3).says("cargo-lock-missing");
    fs::write(checkout.root.join("xtask/Cargo.toml"), "[package\n").unwrap();
    checkout.run(&["doctor"]).exits(3).says("cargo-manifest: xtask/Cargo.toml");
}
