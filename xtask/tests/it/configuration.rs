//! Manifests, `.env` files and the process environment: every fault at once, and nothing leaks from one stack to another.

use std::fs;

use crate::support::Checkout;

#[test]
fn shipped_files_are_valid_and_generated_ones_are_current() {
    let checkout = Checkout::new();
    for name in [".env.example", ".env.nanika.example"] {
        fs::copy(crate::support::repository().join(name), checkout.root.join(name)).unwrap();
    }
    checkout.run(&["render", "--check"]).ok();
    checkout.replace("config/stack.schema.json", "\"$comment\"", "\"$other\"");
    checkout.run(&["render", "--check"]).exits(3).says("- ").says("$other").says("cargo xtask render");
    checkout.run(&["render"]).ok();
    checkout.run(&["render", "--check"]).ok();
    for name in ["effect", "nanika"] {
        let text = fs::read_to_string(checkout.root.join(format!("config/{name}.toml"))).unwrap();
        assert_eq!(text.lines().next(), Some("#:schema ./stack.schema.json"));
    }
}

#[test]
fn all_faults_of_a_manifest_are_told_at_once_with_their_lines() {
    let checkout = Checkout::new();
    let manifest = "config/effect.toml";
    checkout.replace(manifest, "port = 5433", "port = 70000");
    checkout.replace(manifest, "port = 5434", "port = 80");
    checkout.replace(manifest, "port = 5436", "prot = 5436");
    checkout.replace(manifest, "port = 5437", "port = \"x\"");
    checkout.replace(manifest, "image = \"redis-8\"", "image = \"redis-9\"");
    checkout.replace(manifest, "profile = \"tools\"", "profile = \"tool\"");
    checkout.replace(manifest, "[databases.ai", "[databases.AI_x");
    checkout.replace(manifest, "volume = \"postgres_saga_data\"", "volume = \"postgres_user_data\"");
    checkout.replace(manifest, "major = 18", "major = \"18\"");
    checkout.replace(manifest, "purpose = \"the central event store", "aim = \"the central event store");
    let ran = checkout.run(&["up"]).exits(2);
    for expected in [
        "databases.learning.port",
        "70000",
        "from 1024 to 65535",
        "only root may listen",
        "databases.progress.prot",
        "the unknown key `prot`",
        "databases.algorithm.port",
        "`\"x\"`",
        "redis.image",
        "\"redis-8\"",
        "tools.pgadmin.profile",
        "`tool`",
        "\"tools\"",
        "databases.AI_x",
        "write     ai-x",
        "databases.saga.volume",
        "postgres.major",
        "a whole number",
        "databases.event-store.purpose",
        "15 faults",
        "config/effect.toml:",
    ] {
        assert!(ran.err.contains(expected), "no {expected:?} in\n{}", ran.err);
    }
    let line = fs::read_to_string(checkout.root.join(manifest)).unwrap();
    let line = line.lines().position(|line| line == "port = 70000").unwrap() + 1;
    assert!(ran.err.contains(&format!("config/effect.toml:{line}  databases.learning.port")), "{}", ran.err);
    assert!(checkout.servers().is_empty());
}

#[test]
fn broken_toml_and_broken_bytes_name_the_line() {
    let checkout = Checkout::new();
    checkout.append("config/effect.toml", "\n[broken\nx = = 1\n");
    checkout.run(&["status"]).exits(2).says("(syntax)").says("config/effect.toml:");

    let checkout = Checkout::new();
    fs::write(checkout.root.join(".env"), b"REDIS_PORT=1\nX=\xff\n").unwrap();
    checkout.run(&["status"]).exits(2).says(".env:2").says("not UTF-8");

    let checkout = Checkout::new();
    fs::remove_file(checkout.root.join(".env")).unwrap();
    fs::create_dir(checkout.root.join(".env")).unwrap();
    checkout.run(&["status"]).exits(2).says("a folder");
}

#[test]
fn faults_of_env_files_are_told_with_the_right_name() {
    let checkout = Checkout::new();
    fs::write(
        checkout.root.join(".env"),
        "POSTGRES_LERNING_PORT=15433\nPOSTGRES_USER_PORT=99999\nREDIS_PORT=5432\nPOSTGRES_USER=Bad-Name\nnonsense\nMINE=1\n",
    )
    .unwrap();
    let ran = checkout.run(&["up"]).exits(2);
    for expected in [
        ".env:1  POSTGRES_LERNING_PORT",
        "did you mean `POSTGRES_LEARNING_PORT`?",
        "write     POSTGRES_LEARNING_PORT=15433",
        ".env:2  POSTGRES_USER_PORT",
        "`99999`",
        ".env:3  REDIS_PORT",
        "which `event-store` has as well",
        ".env:4  POSTGRES_USER",
        ".env:5  (a line)",
    ] {
        assert!(ran.err.contains(expected), "no {expected:?} in\n{}", ran.err);
    }
    assert!(!ran.err.contains("MINE"));
    fs::write(checkout.root.join(".env"), "POSTGRES_PORT=15432\n").unwrap();
    checkout.run(&["status"]).exits(2).says("variables of nanika in .env.nanika");
}

#[test]
fn environment_goes_before_env_file_goes_before_manifest() {
    let mut checkout = Checkout::new();
    fs::write(checkout.root.join(".env"), "POSTGRES_LEARNING_PORT=21433 # 変更\nREDIS_PORT=\n").unwrap();
    let url = |checkout: &Checkout, name: &str| checkout.run(&["env", name, "--format", "json"]).ok().json();
    assert_eq!(url(&checkout, "learning")["PGPORT"], "21433");
    assert_eq!(url(&checkout, "user")["PGPORT"], "5435");
    assert_eq!(url(&checkout, "redis")["REDIS_URL"], "redis://127.0.0.1:6379", "an empty value counts as none");
    checkout.environment.insert("POSTGRES_LEARNING_PORT".into(), "22433".into());
    assert_eq!(url(&checkout, "learning")["PGPORT"], "22433");
    checkout.environment.insert("POSTGRES_LEARNING_PORT".into(), "x".into());
    checkout.run(&["env"]).exits(2).says("environment  POSTGRES_LEARNING_PORT");
}

#[test]
fn neither_stack_leaks_into_the_other() {
    let mut checkout = Checkout::new();
    fs::write(checkout.root.join(".env"), "POSTGRES_USER=effect_dev\nPOSTGRES_PASSWORD=one\nREDIS_PORT=21001\n")
        .unwrap();
    fs::write(checkout.root.join(".env.nanika"), "POSTGRES_PASSWORD=two\nPOSTGRES_DB=other_game\n").unwrap();
    let url = |checkout: &Checkout, stack: &str, name: &str| {
        checkout.run(&["env", name, "--stack", stack, "--format", "json"]).ok().json()["DATABASE_URL"].clone()
    };
    assert_eq!(url(&checkout, "effect", "learning"), "postgresql://effect_dev:one@127.0.0.1:5433/learning_db");
    let nanika = "postgresql://nanika_user:two@127.0.0.1:5432/other_game?schema=public";
    assert_eq!(url(&checkout, "nanika", "game"), nanika);
    // direnv loads `.env` into the shell: what it says there is still the default stack's.
    checkout.environment.insert("POSTGRES_USER".into(), "effect_dev".into());
    checkout.environment.insert("REDIS_PORT".into(), "21001".into());
    assert_eq!(url(&checkout, "nanika", "game"), nanika);
    let redis = checkout.run(&["env", "redis", "--stack", "nanika"]).ok();
    assert_eq!(redis.out, "REDIS_URL=redis://127.0.0.1:6379\n");
    // What a person sets for this run says something else than `.env`, and counts.
    checkout.environment.insert("POSTGRES_USER".into(), "somebody".into());
    assert_eq!(url(&checkout, "nanika", "game"), "postgresql://somebody:two@127.0.0.1:5432/other_game?schema=public");
}

#[test]
fn wrong_names_suggest_the_right_one_and_list_all() {
    let checkout = Checkout::new();
    checkout.run(&["up", "lerning"]).exits(2).says("did you mean `learning`?").says("event-store, learning");
    checkout.run(&["psql", "evnt-store"]).exits(2).says("did you mean `event-store`?");
    checkout.run(&["env", "learning-servce"]).exits(2).says("did you mean `learning-service`?");
    checkout.run(&["status", "--stack", "nanica"]).exits(2).says("did you mean `nanika`?");
    checkout.run(&["logs", "kafka", "zookeeper"]).exits(2).says("`kafka`, `zookeeper`").silent_about("did you mean");
    checkout.run(&["up", "--engine", "dokcer"]).exits(2).says("docker");
    checkout.run(&["up", "pgadmin"]).exits(2).says("runs in a container");
    checkout.run(&["upp"]).exits(2).says("up");
}

#[test]
fn passwords_survive_urls_and_shells() {
    let checkout = Checkout::new();
    fs::write(checkout.root.join(".env"), "POSTGRES_PASSWORD='p@ss/w:rd %\"$x'\n").unwrap();
    let ran = checkout.run(&["env", "learning"]).ok();
    assert!(
        ran.out.contains("DATABASE_URL=postgresql://effect:p%40ss%2Fw%3Ard%20%25%22%24x@127.0.0.1:5433/learning_db")
    );
    let script = format!(
        "eval \"$({} env learning --format shell 2>/dev/null)\"; printf %s \"$PGPASSWORD\"",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut shell = checkout.command(&[]);
    let environment: Vec<_> =
        shell.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    shell = std::process::Command::new("bash");
    shell.args(["-c", &script]).envs(environment).current_dir(&checkout.root);
    assert_eq!(crate::support::ran(shell).out, "p@ss/w:rd %\"$x");
}

#[test]
fn no_error_shows_a_secret() {
    let checkout = Checkout::new();
    checkout.set("POSTGRES_PASWORD=sup3rsecret");
    checkout.run(&["status"]).exits(2).says("POSTGRES_PASSWORD=…").silent_about("sup3rsecret");
    checkout.replace(".env", "POSTGRES_PASWORD=sup3rsecret", "POSTGRES_PASSWORD=\"first\nsup3rsecret\"");
    checkout.run(&["status"]).exits(2).silent_about("sup3rsecret");
    let checkout = Checkout::new();
    checkout.replace("config/effect.toml", "password = \"effect_password\"", "password = [\"sup3rsecret\"]");
    checkout.run(&["status"]).exits(2).says("postgres.password").silent_about("sup3rsecret");
    checkout.replace("config/effect.toml", "password = [\"sup3rsecret\"]", "password = \"sup3rsecret");
    checkout.run(&["status"]).exits(2).says("(syntax)").silent_about("sup3rsecret");
}

#[test]
fn names_that_somebody_else_keeps_are_refused_before_anything_is_made() {
    let checkout = Checkout::new();
    checkout.append(".env.nanika", "POSTGRES_DB=template0\nPOSTGRES_USER=public\n");
    checkout.run(&["up", "--stack", "nanika"]).exits(2).says("`template0`").says("`public`").says("none of template0");
    checkout.replace("config/effect.toml", "[databases.saga]", "[databases.lock]");
    checkout.run(&["status"]).exits(2).says("the helper keeps run, removed, lock, instance for itself");
    checkout.run(&["up", "--timeout-secs", "18446744073709551615"]).exits(2);
}

#[test]
fn a_new_database_needs_only_its_table() {
    let checkout = Checkout::new();
    checkout.append(
        "config/effect.toml",
        "\n[databases.notification]\ndatabase = \"notification_db\"\nport = 5440\npurpose = \"messages to users\"\n\
         volume = \"postgres_notification_data\"\n",
    );
    let ran = checkout.run(&["up", "--dry-run", "notification"]).ok();
    assert!(ran.out.contains("127.0.0.1:5440"), "{}", ran.out);
    checkout.run(&["render"]).ok();
    let example = fs::read_to_string(checkout.root.join(".env.example")).unwrap();
    assert!(example.contains("POSTGRES_NOTIFICATION_PORT=5440"));
}

#[test]
fn a_repository_with_one_manifest_has_that_stack_by_default() {
    let checkout = Checkout::new();
    fs::remove_file(checkout.root.join("config/effect.toml")).unwrap();
    fs::write(checkout.root.join(".env"), "POSTGRES_PORT=23432\n").unwrap();
    let ran = checkout.run(&["env", "game"]).ok();
    assert!(ran.out.contains("PGPORT=23432"), "{}", ran.out);
}
