//! What people see stays as it is until somebody means to change it: `EXPECTORATE=overwrite cargo test` writes it anew.

use std::path::Path;

use expectorate::assert_contents;

use crate::support::Checkout;

const VERBS: [&str; 21] = [
    "up",
    "down",
    "stop",
    "restart",
    "status",
    "logs",
    "ports",
    "doctor",
    "env",
    "run",
    "psql",
    "redis-cli",
    "migrate",
    "seed",
    "check",
    "backup",
    "restore",
    "upgrade",
    "toolbox",
    "render",
    "completions",
];

fn expected(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/output").join(format!("{name}.txt"))
}

#[test]
fn every_help_is_as_expected_and_has_an_example() {
    let checkout = Checkout::new();
    let all = checkout.run(&["--help"]).ok().out;
    assert_contents(expected("help"), &all);
    for verb in VERBS {
        let help = checkout.run(&[verb, "--help"]).ok().out;
        assert!(help.contains("Example"), "`{verb} --help` has no example");
        assert!(all.contains(&format!("\n  {verb} ")), "`--help` does not list `{verb}`");
        assert_contents(expected(&format!("help-{verb}")), &help);
    }
    let below: [(&str, &[&str]); 2] = [
        ("migrate", &["run", "status", "plan", "revert", "new", "check", "repair"]),
        ("backup", &["list", "show", "verify", "prune", "schedule"]),
    ];
    for (verb, words) in below {
        for word in words {
            let help = checkout.run(&[verb, word, "--help"]).ok().out;
            assert!(help.contains("Example"), "`{verb} {word} --help` has no example");
            assert_contents(expected(&format!("help-{verb}-{word}")), &help);
        }
    }
}

#[test]
fn errors_and_tables_are_as_expected() {
    let checkout = Checkout::new();
    for file in [".env", ".env.nanika"] {
        std::fs::remove_file(checkout.root.join(file)).unwrap();
    }
    let redacted = |text: String| text.replace(&checkout.root.display().to_string(), "[checkout]");
    assert_contents(expected("status-before-up"), &redacted(checkout.run(&["status"]).exits(3).out));
    assert_contents(expected("env-learning-service"), &checkout.run(&["env", "learning-service"]).ok().out);
    assert_contents(expected("env-api-gateway"), &checkout.run(&["env", "api-gateway"]).ok().out);
    assert_contents(expected("env-effect"), &checkout.run(&["env"]).ok().out);
    assert_contents(expected("env-nanika"), &checkout.run(&["env", "game-server", "--stack", "nanika"]).ok().out);
    checkout.replace("config/effect.toml", "port = 5433", "port = 99");
    checkout.replace("config/effect.toml", "major = 18", "major = \"18\"");
    checkout.replace("config/effect.toml", "[databases.saga]", "[databases.saga]\ncolour = 1");
    assert_contents(expected("configuration-faults"), &redacted(checkout.run(&["status"]).exits(2).err));
}

#[test]
fn completions_know_the_names_of_databases() {
    let checkout = Checkout::new();
    let complete = |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let arguments: Vec<&str> =
            ["completions", "bash", "--", &index].into_iter().chain(words.iter().copied()).collect();
        let out = checkout.run(&arguments).ok().out;
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["xtask", "psql", "le"]), ["learning"]);
    assert!(complete(&["xtask", "up", ""]).contains(&"redis".to_owned()));
    assert_eq!(complete(&["xtask", "--stack", "nanika", "psql", ""])[0], "game");
    assert!(complete(&["xtask", "run", "alg"]).contains(&"algorithm-service".to_owned()));
    assert!(complete(&["xtask", "st"]).contains(&"status".to_owned()));
    for shell in ["bash", "zsh", "fish"] {
        checkout.run(&["completions", shell]).ok().says("cargo xtask completions");
    }
    // The script as a shell runs it, with a `cargo` that is the helper.
    let programs = crate::support::programs(
        &checkout,
        &[("cargo", &format!("shift; exec '{}' \"$@\"", env!("CARGO_BIN_EXE_xtask")))],
    );
    let script = "source <(cargo xtask completions bash); COMP_WORDS=(cargo xtask psql voc); COMP_CWORD=3; __cargo_xtask_complete; echo \"${COMPREPLY[@]}\"";
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", script]).current_dir(&checkout.root);
    shell.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()));
    assert_eq!(crate::support::ran(shell).out.trim(), "vocabulary");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let checkout = Checkout::new();
    let script = format!("'{}' ports | head -1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_xtask"));
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &script]).current_dir(&checkout.root);
    let ran = crate::support::ran(shell);
    assert!(ran.out.trim().ends_with('0'), "{ran:?}");
    assert_eq!(ran.err, "");
}
