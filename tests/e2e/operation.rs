//! What an operator relies on: metrics, probes, status, drain, exit codes, and logging that never stops traffic.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::gateway::{self, ASSERTION_KEY, Gateway, KEY, ORIGIN, SECRET, halo, until};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

fn anonymous() -> Vec<u8> {
    http::request("GET", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"")
}

#[test]
fn probes_metrics_and_status_answer_on_the_admin_listener() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    assert_eq!(gateway.admin("/livez").status, 200);
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert_eq!(gateway.admin("/jwks.json").json(), serde_json::json!({ "keys": [] }), "a shared secret is never published");
    assert_eq!(http::send(gateway.address, anonymous()).status, 200);
    let status = gateway.admin("/status").json();
    assert_eq!((&status["generation"], &status["tenants"][0]["mode"]), (&1.into(), &"enforce".into()));
    until("the count", || (gateway.admin("/status").json()["tenants"][0]["forwarded"] == 1).then_some(()));
    gateway.counted("doorward_requests_in_flight", 0.0);
    assert_eq!(gateway.metric(r#"doorward_secret_uses_total{secret="s1",tenant="acme"}"#), 0.0);
    let text = gateway.admin("/metrics").text();
    assert!(!text.contains(SECRET) && !text.contains(ASSERTION_KEY));
}

/// The caller of a request that was stopped, as recorded: level, subject, secret.
fn denied(gateway: &Gateway, answer: &http::Answer, reason: &str) -> (String, String, String) {
    assert_eq!(answer.reason(), reason, "{answer:?}");
    let record = gateway.audit(answer.one("x-request-id"));
    assert_eq!((record["outcome"].as_str(), record["reason"].as_str()), (Some("denied"), Some(reason)), "{record}");
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    (text("caller_level"), text("subject"), text("secret"))
}

#[test]
fn a_denial_after_authentication_says_who_was_denied() {
    let upstream = Upstream::plain();
    let routes = r#"claims.step_up = [{ claim = "amr", values = ["mfa"] }]
[[tenant.route]]
path = "/approvals"
require = "stepped_up"
[[tenant.route]]
path = "/admin"
require = "verified"
require_claims = { role = ["admin"] }
"#;
    let gateway = Gateway::start(&halo(upstream.address(), routes));
    let token = |claims: serde_json::Value| gateway::jwt(&claims);
    let now = gateway::in_seconds(0);
    let ann = token(serde_json::json!({ "user_id": "ann", "exp": now + 300 }));
    let stepped_up = token(serde_json::json!({ "user_id": "ann", "exp": now + 300, "amr": "mfa", "auth_time": now }));
    let ask = |path: &str, more: &[(&str, &str)]| {
        let bearer = format!("Bearer {KEY}");
        let headers: Vec<_> = [("Authorization", bearer.as_str()), ("Origin", ORIGIN)].iter().chain(more).copied().collect();
        gateway.ask("GET", path, &headers, b"")
    };
    let caller = |level: &str, subject: &str, secret: &str| (level.to_owned(), subject.to_owned(), secret.to_owned());
    let by = |token| ("X-User-Token", token);
    let answer = ask("/approvals", &[by(ann.as_str())]);
    assert_eq!(denied(&gateway, &answer, "step_up_required"), caller("verified", "ann", "s1"));
    let answer = ask("/admin", &[by(ann.as_str())]);
    assert_eq!(denied(&gateway, &answer, "claim_not_allowed"), caller("verified", "ann", "s1"));
    let answer = ask("/admin", &[by(stepped_up.as_str())]);
    assert_eq!(denied(&gateway, &answer, "claim_not_allowed"), caller("stepped_up", "ann", "s1"));
    let answer = ask("/a", &[by(ann.as_str()), ("X-User-Id", "bob")]);
    assert_eq!(denied(&gateway, &answer, "subject_mismatch"), caller("verified", "ann", "s1"), "whom the token names");
    let answer = ask("/a", &[("X-User-Id", "bob")]);
    assert_eq!(denied(&gateway, &answer, "token_missing"), caller("anonymous", "", ""), "an id alone is nobody's");
    let answer = ask("/a", &[by("forged")]);
    assert_eq!(denied(&gateway, &answer, "token_malformed"), caller("anonymous", "", ""));
    assert!(!gateway.audit_text().contains(&ann) && !gateway.audit_text().contains("\"role\""));
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    http::send(gateway.address, anonymous());
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian: prometheus); make test installs it");
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), &gateway.admin("/metrics").body).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn a_real_prometheus_scrapes_it() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    http::send(gateway.address, anonymous());
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: doorward\n  static_configs: [{{ targets: ['{}'] }}]\n",
        gateway.admin
    );
    std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
    // Prometheus cannot tell which port it chose for 0, so a free one is found first.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address={port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus (Debian: prometheus); make test installs it");
    let query =
        "/api/v1/query?query=doorward_requests_total%7Boutcome%3D%22forwarded%22%2Clevel%3D%22anonymous%22%2Ctenant%3D%22acme%22%7D";
    let ask = || {
        std::net::TcpStream::connect(port).ok()?;
        let answer = http::send(port, http::request("GET", query, &[("Connection", "close")], b""));
        let result: serde_json::Value = serde_json::from_slice(&answer.body).ok()?; // text while it starts
        let value = result["data"]["result"][0]["value"][1].as_str()?.to_owned();
        (value == "1").then_some(())
    };
    let scraped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("the scrape", ask)));
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    scraped.unwrap();
}

#[test]
fn the_probes_listener_shows_probes_and_metrics_only() {
    let upstream = Upstream::plain();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = halo(upstream.address(), "").replace("threads = 2", &format!("threads = 2\nprobes = \"{free}\""));
    let _gateway = Gateway::start(&config);
    let ask = |target: &str| http::send(free, http::request("GET", target, &[("Connection", "close")], b"")).status;
    assert_eq!([ask("/livez"), ask("/readyz"), ask("/metrics"), ask("/status"), ask("/jwks.json")], [200, 200, 200, 404, 404]);
}

#[test]
fn sigterm_drains_what_is_in_flight_and_exits_0() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |_, stream| {
        while !opened.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let config = halo(upstream.address(), "").replace("drain_delay = \"0s\"", "drain_delay = \"300ms\"");
    let mut gateway = Gateway::start(&config);
    let mut connection = Connection::open(gateway.address);
    connection.send(&anonymous()).unwrap();
    until("the upstream to have it", || upstream.seen().first().cloned());
    gateway.signal("TERM");
    until("readiness to fall", || (gateway.admin("/readyz").status == 503).then_some(()));
    until("the listener to close", || std::net::TcpStream::connect(gateway.address).is_err().then_some(()));
    gate.store(true, Ordering::SeqCst);
    assert_eq!(connection.answer("GET").expect("the answer in flight").status, 200);
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_request_that_outlives_the_grace_does_not_keep_the_process() {
    let upstream = Upstream::start(|_, _| {
        std::thread::park_timeout(http::PATIENCE);
        Err(std::io::Error::other("never"))
    });
    let config = halo(upstream.address(), "").replace("threads = 2", "threads = 2\ngrace = \"200ms\"");
    let mut gateway = Gateway::start(&config);
    let mut connection = Connection::open(gateway.address);
    connection.send(&anonymous()).unwrap();
    until("the upstream to have it", || upstream.seen().first().cloned());
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn an_address_in_use_ends_the_process_with_a_clear_error() {
    let upstream = Upstream::plain();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = halo(upstream.address(), "").replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{address}\""));
    for (name, text) in [("doorward.toml", config.as_str()), ("identity.key", SECRET), ("assertion.key", ASSERTION_KEY)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let run = gateway::doorward(&["run", "-c", "doorward.toml"], directory.path());
    assert_eq!(run.status.code(), Some(1));
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(error.contains(&format!("cannot listen on {address} (server.listen)")), "{error}");
}

#[test]
fn a_bad_configuration_ends_the_process_with_2_and_every_problem() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("doorward.toml"), "[server]\nlisten = 1\nadmn = \"127.0.0.1:0\"\n").unwrap();
    let run = gateway::doorward(&["run", "-c", "doorward.toml"], directory.path());
    assert_eq!(run.status.code(), Some(2));
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(error.contains("doorward.toml:2") && error.contains("doorward.toml:3") && error.contains("admin"), "{error}");
}

#[test]
fn a_broken_log_pipe_never_stops_traffic() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    // The same binary once more with its pipes closed behind its back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = halo(upstream.address(), "").replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{port}\""));
    gateway.write("deaf.toml", &config);
    let mut deaf = Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(["run", "-c"])
        .arg(gateway.path("deaf.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((deaf.stdout.take(), deaf.stderr.take()));
    let served = std::panic::catch_unwind(|| {
        until("it to listen", || std::net::TcpStream::connect(port).ok());
        for _ in 0..300 {
            assert_eq!(http::send(port, anonymous()).status, 200);
        }
    });
    let alive = deaf.try_wait().unwrap().is_none();
    deaf.kill().unwrap();
    deaf.wait().unwrap();
    served.unwrap();
    assert!(alive);
}
