//! The profiles `tools` and `monitoring`. Their images come from a registry; here one small server stands in for all five, on
//! the ports that they have, so that starting, waiting and looking are real.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::{Checkout, Engine, docker, ran, skip, wait_until};

const IMAGES: [&str; 5] = ["PGADMIN_IMAGE", "REDISINSIGHT_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE", "JAEGER_IMAGE"];

/// Answers 503 at first, as a tool does that still reads its data. Grafana's password tells it to fail.
const SERVER: &str = r#"
use std::io::{Read, Write};
fn main() {
    let order = std::env::var("GF_SECURITY_ADMIN_PASSWORD").unwrap_or_default();
    if order == "end" {
        eprintln!("the database is locked");
        std::process::exit(7);
    }
    let serve = move |port: u16, broken: bool| {
        let listener = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { continue };
            let _request = stream.read(&mut [0; 4096]);
            let status = if broken { "500 Broken" } else if number < 3 { "503 Starting" } else { "302 Found" };
            let _sent = write!(stream, "HTTP/1.1 {status}\r\nlocation: /login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    };
    let broken = order == "fail";
    let ports = [80, 5540, 9090, 3000, 16686, 14268];
    let servers: Vec<_> = ports.iter().map(|port| { let port = *port; std::thread::spawn(move || serve(port, broken)) }).collect();
    for server in servers { let _ended = server.join(); }
}
"#;

/// An image of the server alone; its name. It goes with the value.
struct StandIn(String);

impl StandIn {
    fn build(checkout: &Checkout) -> Option<StandIn> {
        let folder = checkout.beside("stand-in");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("server.rs"), SERVER).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-C", "target-feature=+crt-static", "server.rs"]).current_dir(&folder);
        if ran(rustc).code != Some(0) {
            skip("this toolchain makes no static program, which the image would be");
            return None;
        }
        let name = format!("{}-tool:1", checkout.project());
        let mut tar = Command::new("tar");
        let mut tar = tar.args(["-c", "server"]).current_dir(&folder).stdout(Stdio::piped()).spawn().unwrap();
        let mut import = Command::new("docker");
        // It has no handler, and a first process without one takes no other signal.
        import.args(["import", "--change", "STOPSIGNAL SIGKILL", "--change", "ENTRYPOINT [\"/server\"]", "-", &name]);
        import.stdin(tar.stdout.take().unwrap());
        ran(import).ok();
        assert!(tar.wait().unwrap().success());
        Some(StandIn(name))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _still_used = Command::new("docker").args(["image", "rm", "--force", &self.0]).output();
    }
}

fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn profiles_bring_their_tools_and_say_what_stands_in_the_way() {
    let Some(mut checkout) = Checkout::on(Engine::Docker) else { return };
    let missing = checkout.run(&["up", "redis", "--profile", "tools", "--offline"]).exits(1);
    let missing = missing.says("2 images missing, nothing was started").says("offline").says("--engine native");
    missing.says("docker.io/dpage/pgadmin4:9.18@sha256:").says(", for pgadmin").says(", for redisinsight");
    assert_eq!(checkout.container("redis"), "", "nothing was started");

    let Some(stand_in) = StandIn::build(&checkout) else { return };
    for variable in IMAGES {
        checkout.environment.insert(variable.into(), stand_in.0.clone());
    }
    let up = checkout.run(&["up", "redis", "--profile", "tools"]).ok();
    up.says("3 services ready").says("pgadmin").says("redisinsight");
    assert_eq!(checkout.container("grafana"), "", "another profile's");
    checkout.run(&["up", "redis", "--profile", "tools", "--profile", "monitoring"]).ok().says("6 services ready");
    for variable in ["PGADMIN_PORT", "REDISINSIGHT_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "JAEGER_UI_PORT"] {
        assert_eq!(get(checkout.port(variable)), "HTTP/1.1 302 Found", "{variable}");
    }
    let all = ["up", "redis", "--profile", "tools", "--profile", "monitoring"];
    checkout.run(&all).ok().says("6 services, unchanged");
    let status = checkout.run(&["status", "--json"]).json();
    let ready = status["services"].as_array().unwrap().iter().filter(|service| service["state"] == "ready");
    let ready: Vec<&str> = ready.map(|service| service["name"].as_str().unwrap()).collect();
    assert_eq!(ready, ["redis", "pgadmin", "redisinsight", "prometheus", "grafana", "jaeger"]);

    // A tool that was killed is seen, and started again; one that is stopped keeps the others running.
    docker(&["kill", &checkout.container("jaeger")]);
    checkout.run(&["status"]).exits(3).says("died");
    checkout.run(&all).ok().says("6 services ready");
    checkout.run(&["stop", "prometheus"]).ok().says("1 service stopped");
    checkout.run(&["restart", "pgadmin"]).ok().says("1 service ready");

    checkout.environment.insert("GF_SECURITY_ADMIN_PASSWORD".into(), "fail".into());
    // The first time, all of it may be gone before Compose has made the container anew.
    wait_until("its answer is told", || {
        let up = checkout.run(&["up", "grafana", "--timeout-secs", "8"]).exits(1);
        up.err.contains("`GET /` was answered 500")
    });
    checkout.environment.insert("GF_SECURITY_ADMIN_PASSWORD".into(), "end".into());
    let ended = checkout.run(&["up", "grafana"]).exits(1).says("`grafana` ended while it started: exit code 7");
    ended.says("the database is locked").says("cargo xtask logs grafana");
    checkout.environment.remove("GF_SECURITY_ADMIN_PASSWORD");
    checkout.run(&["up", "grafana"]).ok().says("1 service ready");
    checkout.run(&["down", "--volumes", "--yes"]).ok();
    assert_eq!(checkout.container("grafana"), "");
}
