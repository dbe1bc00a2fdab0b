//! Hot reload: every way to write a file, whole or not at all, and no request judged by a secret that was not live.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::gateway::{Gateway, ORIGIN, SECRET, halo, in_seconds, jwt_with, until};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

const EMBED_KEY: &str = "pk_reload_0123456789";

/// One tenant without a preset: key and token in headers, so that requests have no body.
fn plain(upstream: std::net::SocketAddr, more: &str) -> String {
    let halo = halo(upstream, "");
    let (head, _) = halo.split_once("[[tenant]]").unwrap();
    format!(
        "{more}\n{head}[[tenant]]\nid = \"acme\"\npreset = \"none\"\nembed_keys = [\"{EMBED_KEY}\"]\norigins = [\"{ORIGIN}\"]\n\
         secrets = [{{ id = \"s1\", file = \"identity.key\", format = \"jwt\" }}]\n"
    )
}

fn request(token: &str) -> Vec<u8> {
    http::request("GET", "/a", &[("X-Embed-Key", EMBED_KEY), ("Origin", ORIGIN), ("Authorization", &format!("Bearer {token}"))], b"")
}

fn token(secret: &str) -> String {
    jwt_with(secret, &json!({ "sub": "user_123", "exp": in_seconds(600) }))
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    http::send(gateway.address, request(token)).status
}

#[test]
fn a_secret_written_in_place_or_renamed_replaces_the_old_one() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&plain(upstream.address(), ""));
    assert_eq!(status(&gateway, &token(SECRET)), 200);
    gateway.write("identity.key", "second_secret_0123456789abcdef01");
    until("the old secret to stop working", || (status(&gateway, &token(SECRET)) == 401).then_some(()));
    assert_eq!(status(&gateway, &token("second_secret_0123456789abcdef01")), 200);
    gateway.write("next.key", "third_secret_0123456789abcdef012");
    std::fs::rename(gateway.path("next.key"), gateway.path("identity.key")).unwrap();
    until("the renamed secret to work", || (status(&gateway, &token("third_secret_0123456789abcdef012")) == 200).then_some(()));
    assert_eq!(gateway.metric(r#"doorward_reloads_total{result="refused"}"#), 0.0);
    let log = gateway.log();
    let keys = log.lines().filter(|line| line.contains(r#"key in use tenant="acme" id="s1" what="jwt HS256" fingerprint="#));
    let fingerprints: std::collections::BTreeSet<_> = keys.filter_map(|line| line.rsplit('=').next()).collect();
    assert_eq!(fingerprints.len(), 3, "the log names each key by its fingerprint:\n{log}");
    assert!(!log.contains(SECRET), "and never by itself");
}

/// System calls of the gateway that read, until now.
fn reads(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", gateway.pid())).unwrap();
    text.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

#[test]
fn an_idle_gateway_reads_no_files() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&plain(upstream.address(), ""));
    until("a second in which hardly anything is read", || {
        let before = reads(&gateway);
        std::thread::park_timeout(Duration::from_secs(1));
        (reads(&gateway) - before < 100).then_some(())
    });
}

#[test]
fn a_kubernetes_symlink_swap_is_seen() {
    let upstream = Upstream::plain();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, secret) in [("..v1", SECRET), ("..v2", "second_secret_0123456789abcdef01")] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("identity.key"), secret).unwrap();
    }
    std::os::unix::fs::symlink("..v1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/identity.key", at("identity.key")).unwrap();
    let config = plain(upstream.address(), "").replace("\"identity.key\"", &format!("{:?}", at("identity.key")));
    let gateway = Gateway::start(&config);
    assert_eq!(status(&gateway, &token(SECRET)), 200);
    std::os::unix::fs::symlink("..v2", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    until("the swapped secret to work", || (status(&gateway, &token("second_secret_0123456789abcdef01")) == 200).then_some(()));
    assert_eq!(status(&gateway, &token(SECRET)), 401);
}

#[test]
fn a_broken_or_missing_file_leaves_the_last_good_configuration_in_force() {
    let upstream = Upstream::plain();
    let config = plain(upstream.address(), "");
    let gateway = Gateway::start(&config);
    let refused = || gateway.metric(r#"doorward_reloads_total{result="refused"}"#);
    gateway.write("doorward.toml", "[server\n");
    until("the refusal", || (refused() >= 1.0).then_some(()));
    assert_eq!(status(&gateway, &token(SECRET)), 200);
    assert!(gateway.log().contains("doorward.toml:1"), "the log says where:\n{}", gateway.log());
    let before = refused();
    std::fs::remove_file(gateway.path("doorward.toml")).unwrap();
    until("the second refusal", || (refused() > before).then_some(()));
    assert_eq!(status(&gateway, &token(SECRET)), 200);
    assert_eq!(gateway.metric("doorward_config_generation"), 1.0);
    gateway.write("doorward.toml", &config.replace("mode = ", "# mode = "));
    gateway.generation(2);
    assert_eq!(status(&gateway, &token(SECRET)), 200);
}

#[test]
fn a_broken_tenant_file_keeps_its_tenant_while_the_others_change() {
    let upstream = Upstream::plain();
    let (head, _) = halo(upstream.address(), "").split_once("[[tenant]]").map(|(h, t)| (h.to_owned(), t.to_owned())).unwrap();
    let keys = [EMBED_KEY, "pk_other_0123456789ab"];
    let tenant = |which: usize, secret: &str| {
        let (id, key) = (["acme", "other"][which], keys[which]);
        format!(
            "id = \"{id}\"\nembed_keys = [\"{key}\"]\norigins = [\"{ORIGIN}\"]\nsecrets = [{{ id = \"s1\", file = \"{secret}\", format = \"jwt\" }}]\n"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("acme.toml", &tenant(0, "identity.key"));
    write("other.toml", &tenant(1, "other.key"));
    let (second, third) = ("second_secret_0123456789abcdef01", "third_secret_0123456789abcdef012");
    let gateway = Gateway::start_with(&format!("tenants = {:?}\n{head}", directory.path()), &[("other.key", second), ("third.key", third)]);
    let status = |which: usize, secret: &str| {
        let headers = [("X-Embed-Key", keys[which]), ("Origin", ORIGIN), ("Authorization", &format!("Bearer {}", token(secret)))];
        gateway.ask("GET", "/a", &headers, "").status
    };
    assert_eq!((status(0, SECRET), status(1, second), status(1, third)), (200, 200, 401));
    let counted = |result: &str| gateway.metric(&format!("doorward_reloads_total{{result=\"{result}\"}}"));
    assert_eq!((counted("applied"), counted("partial"), counted("refused")), (0.0, 0.0, 0.0), "every series exists from the start");

    write("acme.toml", "id = \"acme\"\nmode = \"strict\"\n");
    until("the file's refusal", || (counted("partial") >= 1.0).then_some(()));
    write("other.toml", &tenant(1, "third.key"));
    until("the other's change", || (status(1, third) == 200).then_some(()));
    assert_eq!((status(0, SECRET), status(1, second)), (200, 401), "the broken one's tenant stays as it was");
    assert_eq!((counted("applied"), counted("refused")), (0.0, 0.0));
    let log = gateway.log();
    assert!(
        log.contains("acme.toml refused, tenant acme stays as it was") && log.contains("acme.toml:2:8"),
        "the log says which and why:\n{log}"
    );
    assert_eq!(gateway.admin("/status").json()["reloads"]["refused"], 0);

    write("acme.toml", &tenant(0, "other.key"));
    until("the repair", || (status(0, second) == 200).then_some(()));
    assert_eq!((status(0, SECRET), counted("applied")), (401, 1.0));
    std::fs::remove_file(directory.path().join("other.toml")).unwrap();
    until("the deleted one's end", || (status(1, third) != 200).then_some(()));
    let headers = [("X-Embed-Key", keys[1]), ("Origin", ORIGIN)];
    assert_eq!(gateway.ask("GET", "/a", &headers, "").reason(), "embed_key_unknown");
    assert_eq!(status(0, second), 200);
}

#[test]
fn sighup_reloads_without_a_change() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&plain(upstream.address(), ""));
    gateway.signal("HUP");
    gateway.generation(2);
    assert_eq!(gateway.metric(r#"doorward_reloads_total{result="applied"}"#), 1.0);
}

#[test]
fn revocations_apply_while_the_rest_of_the_configuration_is_refused() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start_with(&plain(upstream.address(), "revocations = \"revoked.txt\""), &[("revoked.txt", "# nobody yet\n")]);
    assert_eq!(status(&gateway, &token(SECRET)), 200);
    gateway.write("doorward.toml", "broken");
    until("the refusal", || (gateway.metric(r#"doorward_reloads_total{result="refused"}"#) >= 1.0).then_some(()));
    let fingerprint = gateway.admin("/status").json()["tenants"][0]["secrets"][0]["fingerprint"].as_str().unwrap().to_owned();
    gateway.write("revoked.txt", &format!("secret {fingerprint}\n"));
    let written = Instant::now();
    until("the revocation", || (status(&gateway, &token(SECRET)) == 401).then_some(()));
    let took = written.elapsed();
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(http::send(gateway.address, request(&token(SECRET))).reason(), "token_revoked");
}

#[test]
fn a_request_in_flight_keeps_its_configuration() {
    let gate = std::sync::Arc::new(AtomicBool::new(false));
    let opened = std::sync::Arc::clone(&gate);
    let upstream = Upstream::start(move |_, stream| {
        while !opened.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let gateway = Gateway::start(&plain(upstream.address(), ""));
    let mut connection = Connection::open(gateway.address);
    connection.send(&request(&token(SECRET))).unwrap();
    until("the upstream to have it", || upstream.seen().first().cloned());
    gateway.write("identity.key", "second_secret_0123456789abcdef01");
    gateway.generation(2);
    gate.store(true, Ordering::SeqCst);
    let answer = connection.answer("GET").unwrap();
    assert_eq!(answer.status, 200);
    let record = gateway.audit(answer.one("x-request-id"));
    assert_eq!(record["generation"], 1);
}

/// Waits until this secret is the one in force. The generation would not do: one change may be seen as two.
#[track_caller]
fn in_force(gateway: &Gateway, secret: &str) {
    let fingerprint = doorward::secret::KeyBytes::new(secret.as_bytes()).fingerprint().to_string();
    until("the secret to be in force", || {
        (gateway.admin("/status").json()["tenants"][0]["secrets"][0]["fingerprint"] == fingerprint.as_str()).then_some(())
    });
}

/// When each secret was about to be written, and when it was certainly in force.
#[derive(Clone, Copy)]
struct Life {
    written: Instant,
    in_force: Option<Instant>,
}

/// Swaps under load; the oracle allows only decisions by secrets that were live between send and receive.
/// `RELOAD_SWAPS` and `RELOAD_BROKEN` set the numbers; the full form is 1,000 and 200.
#[test]
fn no_decision_is_made_by_a_secret_that_was_not_live() {
    #[allow(clippy::disallowed_methods)] // test parameters are no secrets
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (swaps, broken) = (number("RELOAD_SWAPS", 40), number("RELOAD_BROKEN", 8));
    let upstream = Upstream::plain();
    let config = plain(upstream.address(), "");
    let gateway = Gateway::start(&config);
    let secret = |n: usize| if n == 0 { SECRET.to_owned() } else { format!("secret_number_{n:06}_0123456789abcdef") };
    let tokens: Vec<_> = (0..=swaps).map(|n| request(&token(&secret(n)))).collect();
    let started = Instant::now();
    let lives = Mutex::new(vec![Life { written: started, in_force: Some(started) }]);
    let done = AtomicBool::new(false);
    let (asked, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for worker in 0..50_usize {
            let (lives, done, tokens, asked, accepted, gateway) = (&lives, &done, &tokens, &asked, &accepted, &gateway);
            scope.spawn(move || {
                let mut connection = Connection::open(gateway.address);
                let mut turn = worker;
                while !done.load(Ordering::Relaxed) {
                    turn += 1;
                    let newest = lives.lock().unwrap().len() - 1;
                    let which = newest.saturating_sub(turn % 3); // the newest, and two that should be gone
                    let sent = Instant::now();
                    connection.send(&tokens[which]).unwrap();
                    let answer = connection.answer("GET").expect("an answer");
                    let received = Instant::now();
                    if answer.one("connection") == "close" {
                        connection = Connection::open(gateway.address); // it served its share of requests
                    }
                    let lives = lives.lock().unwrap().clone();
                    let (this, next) = (lives[which], lives.get(which + 1).copied());
                    // Not live for sure: this one's write had not begun, or the next was in force before the request was sent.
                    let surely_dead = received < this.written || next.and_then(|n| n.in_force).is_some_and(|t| t < sent);
                    let surely_live = this.in_force.is_some_and(|t| t < sent) && next.is_none_or(|n| n.written > received);
                    match answer.status {
                        200 => assert!(!surely_dead, "secret {which} was accepted after it was replaced"),
                        401 => assert!(!surely_live, "secret {which} was refused while it was live: {}", answer.reason()),
                        other => panic!("{other}: {answer:?}"),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    accepted.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
                }
            });
        }
        for n in 1..=swaps {
            if n * broken / swaps > (n - 1) * broken / swaps {
                let refused = gateway.metric(r#"doorward_reloads_total{result="refused"}"#);
                gateway.write("doorward.toml", &config[..config.len() / 2]);
                until("the refusal", || (gateway.metric(r#"doorward_reloads_total{result="refused"}"#) > refused).then_some(()));
                gateway.write("doorward.toml", &config);
                in_force(&gateway, &secret(n - 1));
            }
            lives.lock().unwrap().push(Life { written: Instant::now(), in_force: None });
            gateway.write("next.key", &secret(n));
            std::fs::rename(gateway.path("next.key"), gateway.path("identity.key")).unwrap();
            in_force(&gateway, &secret(n));
            lives.lock().unwrap()[n].in_force = Some(Instant::now());
        }
        done.store(true, Ordering::Relaxed);
    });
    let (asked, accepted) = (asked.into_inner(), accepted.into_inner());
    let rate = asked as f64 / started.elapsed().as_secs_f64();
    eprintln!("{swaps} swaps, {broken} broken files, {asked} requests ({rate:.0}/s), {accepted} accepted, 0 wrong decisions");
    assert!(accepted > 0 && asked > accepted, "both decisions were made");
}
