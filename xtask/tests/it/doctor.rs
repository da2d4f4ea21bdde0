//! `doctor`: everything at once, with stable codes, and mended only what is provably ours.

use crate::support::{Checkout, is_running, remove_under_servers};

fn codes(checkout: &Checkout) -> Vec<String> {
    let ran = checkout.run(&["doctor", "--json"]);
    let findings = ran.json()["findings"].clone();
    findings.as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_fresh_machine_has_only_things_to_know() {
    let checkout = Checkout::new();
    let ran = checkout.run(&["doctor"]);
    for code in ["toolchain:", "engines:", "memory", "disk"] {
        assert!(ran.out.contains(code), "{}", ran.out);
    }
    let json = checkout.run(&["doctor", "--json"]).json();
    for finding in json["findings"].as_array().unwrap() {
        assert!(["info", "warning", "error"].contains(&finding["level"].as_str().unwrap()), "{finding}");
    }
}

#[test]
fn a_wrong_configuration_is_a_finding_among_others() {
    let checkout = Checkout::new();
    checkout.set("POSTGRES_LERNING_PORT=1");
    checkout.set("REDIS_PORT=70000");
    let ran = checkout.run(&["doctor"]).exits(3);
    assert!(ran.out.contains("did you mean `POSTGRES_LEARNING_PORT`?") && ran.out.contains("70000"), "{}", ran.out);
    assert!(ran.out.contains("toolchain:"), "{}", ran.out);
}

#[test]
fn default_passwords_in_production_are_an_error() {
    let checkout = Checkout::new();
    assert!(!codes(&checkout).contains(&"default-password".to_owned()));
    checkout.set("ENVIRONMENT=production");
    let ran = checkout.run(&["doctor"]).exits(3);
    assert!(ran.out.contains("default-password: ENVIRONMENT=production, and `POSTGRES_PASSWORD`"), "{}", ran.out);
    checkout.set("POSTGRES_PASSWORD=not-the-default");
    assert!(!checkout.run(&["doctor"]).out.contains("`POSTGRES_PASSWORD`"));
    checkout.append(".env.nanika", "NODE_ENV=production\n");
    checkout.run(&["doctor", "--stack", "nanika"]).exits(3).says("`SESSION_SECRET` is the default");
}

#[test]
fn stale_records_are_cleared_and_taken_ports_are_named() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "redis"]).ok();
    let pid = checkout.pid("redis");
    crate::support::signal(pid, "KILL");
    crate::support::wait_until("it is gone", || !is_running(pid));
    let ran = checkout.run(&["doctor", "--fix"]);
    assert!(ran.out.contains("record-stale: cleared the record of `redis`"), "{}", ran.out);
    assert!(checkout.record("redis").is_none());
    assert!(checkout.record("learning").is_some(), "a running server's record stays");
    let _holder = std::net::TcpListener::bind(("127.0.0.1", checkout.port("POSTGRES_AI_PORT"))).unwrap();
    checkout.run(&["doctor"]).exits(3).says("port-taken").says("ports --fix");
}

#[test]
fn servers_of_a_checkout_that_is_gone_are_found_and_stopped() {
    let first = Checkout::new();
    let mut second = Checkout::named("gone");
    second.environment.clone_from(&first.environment);
    second.run(&["up", "learning", "redis"]).ok();
    let pids = second.recorded();
    remove_under_servers(&second.root);
    let ran = first.run(&["doctor"]).exits(3);
    assert!(ran.out.contains("checkout-gone: 2 servers of effect still run for"), "{}", ran.out);
    assert!(pids.iter().all(|pid| is_running(*pid)), "looking stops nothing");
    first.run(&["doctor", "--fix"]).says("stopped 2 servers");
    assert!(pids.iter().all(|pid| !is_running(*pid)));
    assert!(!codes(&first).contains(&"checkout-gone".to_owned()));
}
