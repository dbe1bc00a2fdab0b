//! Several upstreams: which one a request goes to, and which of its addresses; what Host and path become on the way; and whose
//! word each is told by. Failing ones are in [`crate::upstream_failures`].

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use serde_json::{Value, json};

use crate::gateway::{ASSERTION_KEY, Gateway, KEY, ORIGIN, doorward, halo, in_seconds, jwt, until};
use crate::http::{self, Answer, Connection};
use crate::upstream::Upstream;
use crate::verification::captured;
use crate::verifiers::{Verifier, assert_bound, changes, covered};

/// [`halo`] with these lines in place of `[upstream]`'s address.
pub fn config(upstream: &str, more: &str, tenant: &str) -> String {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    // One thread: the framework's pool may miss a kept connection that another thread is about to let go.
    let text = halo(nowhere, tenant).replace("threads = 2", "threads = 1").replace(&format!("address = \"{nowhere}\""), upstream);
    text.replace("[assertion]", &format!("{more}\n[assertion]"))
}

/// `addresses = [...]`.
pub fn addresses(all: &[SocketAddr]) -> String {
    let quoted: Vec<_> = all.iter().map(|address| format!("\"{address}\"")).collect();
    format!("addresses = [{}]", quoted.join(", "))
}

/// A backend whose connections are used once.
pub fn fresh() -> Upstream {
    Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// Asks as a visitor.
#[track_caller]
pub fn ask(gateway: &Gateway, target: &str, more: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {KEY}");
    let mut headers = vec![("Authorization", bearer.as_str()), ("Origin", ORIGIN)];
    headers.extend_from_slice(more);
    gateway.ask("GET", target, &headers, "")
}

#[track_caller]
pub fn asked(gateway: &Gateway, target: &str) {
    let answer = ask(gateway, target, &[]);
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.log());
}

/// Visitors' requests that went through.
pub const FORWARDED: &str = r#"doorward_requests_total{level="anonymous",outcome="forwarded",reason="",tenant="acme"}"#;

/// How the addresses of an upstream are doing: address to standing.
pub fn standings(gateway: &Gateway, upstream: &str) -> Vec<(String, String)> {
    let status = gateway.admin("/status").json();
    let found = status["upstreams"].as_array().unwrap().iter().find(|u| u["name"] == upstream).cloned();
    let addresses = found.unwrap_or_else(|| panic!("no upstream {upstream} in {status}"))["addresses"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    addresses.as_array().unwrap().iter().map(|a| (text(&a["address"]), text(&a["standing"]))).collect()
}

#[test]
fn addresses_take_turns() {
    let (a, b) = (fresh(), fresh());
    let gateway = Gateway::start(&config(&addresses(&[a.address(), b.address()]), "", ""));
    (0..10).for_each(|_| asked(&gateway, "/a"));
    assert_eq!((a.seen().len(), b.seen().len()), (5, 5));
}

#[test]
fn requests_go_where_the_fewest_are() {
    let released = Arc::new(AtomicBool::new(false));
    let backend = || {
        let released = Arc::clone(&released);
        Upstream::start(move |seen, stream| {
            if seen.target == "/slow" {
                until("the release", || released.load(Ordering::SeqCst).then_some(()));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        })
    };
    let both = [backend(), backend()];
    let upstream = format!("{}\nbalance = \"least_connections\"", addresses(&[both[0].address(), both[1].address()]));
    let gateway = Gateway::start(&config(&upstream, "", ""));
    let mut slow = Connection::open(gateway.address);
    slow.send(&http::request("GET", "/slow", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"")).unwrap();
    let busy = until("the slow request", || both.iter().position(|backend| !backend.seen().is_empty()));
    (0..6).for_each(|_| asked(&gateway, "/a"));
    released.store(true, Ordering::SeqCst);
    assert_eq!(slow.answer("GET").unwrap().status, 200);
    assert_eq!((both[busy].seen().len(), both[1 - busy].seen().len()), (1, 6));
}

/// Which of these backends got the request that `ask` makes.
fn who(backends: &[Upstream], ask: impl Fn()) -> usize {
    backends.iter().for_each(Upstream::forget);
    ask();
    backends.iter().position(|backend| !backend.seen().is_empty()).expect("a backend that was asked")
}

#[test]
fn a_conversation_stays_where_it_is() {
    let backends = [fresh(), fresh(), fresh()];
    let all: Vec<_> = backends.iter().map(Upstream::address).collect();
    let hashed =
        "balance = \"consistent_hash\"\nhash_on = [\"header:X-Conversation-Id\", \"query:conversation\", \"path:/conversations/*/*\"]";
    let gateway = Gateway::start(&config(&format!("{}\n{hashed}", addresses(&all)), "", ""));
    let by_header = |id: usize| {
        let id = format!("c-{id}");
        who(&backends, || assert_eq!(ask(&gateway, "/a", &[("X-Conversation-Id", &id)]).status, 200))
    };
    let before: Vec<_> = (0..48).map(by_header).collect();
    assert_eq!(before.iter().collect::<HashSet<_>>().len(), 3, "48 conversations use all three: {before:?}");
    assert_eq!((0..48).map(by_header).collect::<Vec<_>>(), before);
    for (id, at) in before.iter().enumerate().take(6) {
        let path = format!("/conversations/c-{id}");
        assert_eq!(who(&backends, || asked(&gateway, &path)), *at, "the same id, in the path");
        assert_eq!(who(&backends, || asked(&gateway, &format!("/a?conversation=c-{id}"))), *at, "in the query");
        let twice = format!("/a?conversation=c-{id}&conversation=c-{id}");
        let fallback = who(&backends, || asked(&gateway, &twice));
        assert_eq!(who(&backends, || asked(&gateway, "/b")), fallback, "twice names none: the client's address does");
    }
    // Verified users without a conversation are their own.
    let user = |name: &str| {
        let token = jwt(&json!({ "user_id": name, "exp": in_seconds(300) }));
        who(&backends, || assert_eq!(ask(&gateway, "/a", &[("X-User-Token", &token)]).status, 200))
    };
    let users: Vec<_> = (0..24).map(|n| user(&format!("user-{n}"))).collect();
    assert!(users.iter().collect::<HashSet<_>>().len() > 1, "{users:?}");
    assert_eq!((0..24).map(|n| user(&format!("user-{n}"))).collect::<Vec<_>>(), users);
    // Without the third, its conversations move and no other: a reload takes it out.
    let text = std::fs::read_to_string(gateway.path("doorward.toml")).unwrap();
    gateway.write("doorward.toml", &text.replace(&addresses(&all), &addresses(&all[..2])));
    gateway.generation(2);
    for (id, at) in before.iter().enumerate() {
        let now = by_header(id);
        assert!(now == *at || (*at == 2 && now < 2), "c-{id} was at {at} and is at {now}");
    }
}

#[test]
fn a_name_is_all_its_addresses() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = v4.local_addr().unwrap().port();
    drop(v4); // the upstream takes its place
    let upstream = Upstream::at(("127.0.0.1", port));
    let name = format!("localhost:{port}");
    let gateway = Gateway::start(&config(&format!("address = \"{name}\""), "", ""));
    let mut resolved: Vec<_> = name.to_socket_addrs().unwrap().map(|address| address.to_string()).collect();
    resolved.sort_unstable();
    resolved.dedup();
    let mut shown: Vec<_> = standings(&gateway, "default").into_iter().map(|(address, _)| address).collect();
    shown.sort_unstable();
    assert_eq!(shown, resolved);
    // Where it has an IPv6 address too, nobody listens there: the request is tried at the other.
    (0..4).for_each(|_| asked(&gateway, "/a"));
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn a_name_that_does_not_resolve_is_no_reason_not_to_start() {
    let gateway = Gateway::start(&config("address = \"nowhere.invalid:80\"", "", ""));
    let answer = ask(&gateway, "/a", &[]);
    assert_eq!((answer.status, answer.reason()), (502, "upstream_unreachable"));
    assert!(standings(&gateway, "default").is_empty());
}

#[test]
fn a_unix_socket_is_an_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut stream, tell) = (stream, tell.clone());
            std::thread::spawn(move || {
                let mut read = [0; 4096];
                while let Ok(n) = stream.read(&mut read) {
                    if n == 0 || tell.send(String::from_utf8_lossy(&read[..n]).into_owned()).is_err() {
                        return;
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            });
        }
    });
    for written in [format!("unix = \"{}\"", path.display()), format!("addresses = [\"unix:{}\"]", path.display())] {
        let gateway = Gateway::start(&config(&format!("{written}\nhost = \"upstream\""), "", ""));
        for _ in 0..2 {
            asked(&gateway, "/a");
            let seen = told.recv_timeout(http::PATIENCE).unwrap();
            assert!(seen.starts_with("GET /a HTTP/1.1\r\n") && seen.to_lowercase().contains("\r\nhost: localhost\r\n"), "{seen}");
        }
        assert_eq!(standings(&gateway, "default"), [(format!("unix:{}", path.display()), "available".to_owned())]);
    }
}

#[test]
fn host_is_what_the_policy_says() {
    let upstream = fresh();
    let address = upstream.address();
    for (policy, host, forwarded) in [
        ("", "gateway.test".to_owned(), None),
        ("host = \"preserve\"", "gateway.test".to_owned(), None),
        ("host = \"upstream\"", address.to_string(), Some("gateway.test")),
        ("host = \"agent.internal:8080\"", "agent.internal:8080".to_owned(), Some("gateway.test")),
    ] {
        let gateway = Gateway::start(&config(&format!("address = \"{address}\"\n{policy}"), "", ""));
        assert_eq!(ask(&gateway, "/a", &[("X-Forwarded-Host", "evil.example")]).status, 200);
        let seen = upstream.last();
        assert_eq!((seen.one("host"), seen.all("x-forwarded-host").first().copied()), (host.as_str(), forwarded), "{policy}");
    }
}

/// What is below `[upstreams.NAME]` and its assertion.
fn named(name: &str, address: SocketAddr, key: &str, more: &str) -> String {
    format!(
        "[upstreams.{name}]\naddress = \"{address}\"\n{more}\n[upstreams.{name}.assertion]\naudience = \"{name}\"\nlifetime = \"60s\"\nkeys = [{{ id = \"{key}\", file = \"{key}.key\" }}]\n"
    )
}

const BATCH_KEY: &str = "batch_key_0123456789abcdef0123456";
const OTHER_KEY: &str = "other_key_0123456789abcdef0123456";

#[test]
fn the_rewritten_path_is_judged_before_and_signed_after() {
    let upstream = fresh();
    let lines = format!("address = \"{}\"\nstrip_prefix = \"/agent\"\nadd_prefix = \"/v1/x\"", upstream.address());
    let route = "[[tenant.route]]\npath = \"/agent/admin/*\"\nrequire = \"verified\"";
    let text = config(&lines, "", route).replace("audience = \"agent\"", "audience = \"agent\"\nlifetime = \"60s\"");
    let gateway = Gateway::start(&text);
    for (path, sent) in
        [("/agent/b%7Ec?q=%20", "/v1/x/b~c?q=%20"), ("/agent", "/v1/x"), ("/agent/", "/v1/x/"), ("/agent/%C3%A9", "/v1/x/%C3%A9")]
    {
        asked(&gateway, path);
        let seen = upstream.last();
        assert_eq!(seen.target, sent);
        let request = captured(&seen, "a1", "HS256").with_secret(ASSERTION_KEY.as_bytes());
        let mut changed = changes(&request, &covered(&request));
        let mut unchanged = request.clone();
        path.clone_into(&mut unchanged.target);
        changed.push(("the path that the client sent".to_owned(), unchanged));
        assert_bound(&Verifier::SIGNATURES, &request, &changed);
    }
    upstream.forget();
    for (path, status, reason) in [
        ("/", 404, "path_not_served"),
        ("/agents/b", 404, "path_not_served"),
        ("/Agent/b", 404, "path_not_served"),
        ("/agent/admin/x", 401, "token_missing"),
        ("/agent/../b", 400, "request_path_ambiguous"),
        ("/agent/%2e%2e/b", 400, "request_path_ambiguous"),
        ("/agent//b", 400, "request_path_ambiguous"),
    ] {
        let answer = ask(&gateway, path, &[]);
        let status = if reason == "token_missing" { 403 } else { status }; // Halo's
        assert_eq!((answer.status, answer.reason()), (status, reason), "{path}");
        assert_eq!(answer.all("access-control-allow-origin"), [ORIGIN], "the page can read why");
    }
    assert!(upstream.seen().is_empty(), "none of them reached the backend");
}

#[test]
fn tenants_and_routes_pick_in_every_mode() {
    let (default, batch, other) = (fresh(), fresh(), fresh());
    let more = format!("{}{}", named("batch", batch.address(), "b1", ""), named("other", other.address(), "o1", ""));
    for mode in ["enforce", "monitor", "off"] {
        let routes = "[[tenant.route]]\npath = \"/batch/*\"\nupstream = \"batch\"\n\
                      [[tenant.route]]\npath = \"/batch/admin/*\"\nrequire = \"verified\"\n\
                      [[tenant.route]]\npath = \"/posts\"\nmethods = [\"POST\"]\nupstream = \"batch\"";
        let second = "[[tenant]]\nid = \"globex\"\npreset = \"halo\"\nupstream = \"other\"\nembed_keys = [\"ab_live_fedcba9876543210\"]\n\
                      origins = [\"https://app.example.com\"]\nsecrets = []\n\
                      [[tenant.route]]\npath = \"/home\"\nupstream = \"default\"";
        let text = config(&format!("address = \"{}\"", default.address()), &more, &format!("mode = \"{mode}\"\n{routes}\n{second}"));
        let gateway = Gateway::start_with(&text, &[("b1.key", BATCH_KEY), ("o1.key", OTHER_KEY)]);
        let went = |key: &str, method: &str, path: &str| {
            [&default, &batch, &other].iter().for_each(|backend| backend.forget());
            let answer = gateway.ask(method, path, &[("Authorization", &format!("Bearer {key}")), ("Origin", ORIGIN)], "");
            let to = [(&default, "default"), (&batch, "batch"), (&other, "other")];
            let to = to.iter().find(|(backend, _)| !backend.seen().is_empty()).map(|(_, name)| *name);
            if answer.status == 200 {
                assert_eq!(gateway.audit(answer.one("x-request-id"))["upstream"].as_str(), to);
            }
            to
        };
        assert_eq!(went(KEY, "GET", "/a"), Some("default"), "{mode}");
        assert_eq!(went(KEY, "GET", "/batch"), Some("batch"));
        assert_eq!(went(KEY, "GET", "/BATCH/x/"), Some("batch"), "matched as policy matches");
        assert_eq!((went(KEY, "GET", "/posts"), went(KEY, "POST", "/posts")), (Some("default"), Some("batch")));
        let admin = if mode == "enforce" { None } else { Some("batch") };
        assert_eq!(went(KEY, "GET", "/batch/admin/x"), admin, "a way hides no rule behind it");
        assert_eq!(
            (went("ab_live_fedcba9876543210", "GET", "/a"), went("ab_live_fedcba9876543210", "GET", "/home")),
            (Some("other"), Some("default"))
        );
    }
}

#[test]
fn each_backend_is_told_by_its_own_key() {
    let (default, batch) = (fresh(), fresh());
    let more = format!("{}[upstreams.batch.headers]\nX-Batch-User = \"subject\"\n", named("batch", batch.address(), "b1", ""));
    let route = "[[tenant.route]]\npath = \"/batch/*\"\nupstream = \"batch\"";
    let text = config(&format!("address = \"{}\"", default.address()), &more, route)
        .replace("audience = \"agent\"", "audience = \"agent\"\nlifetime = \"60s\"");
    let gateway = Gateway::start_with(&text, &[("b1.key", BATCH_KEY)]);
    let token = jwt(&json!({ "user_id": "user_123", "exp": in_seconds(300) }));
    for (path, backend, key, secret, audience) in
        [("/a", &default, "a1", ASSERTION_KEY, "agent"), ("/batch/a", &batch, "b1", BATCH_KEY, "batch")]
    {
        assert_eq!(ask(&gateway, path, &[("X-User-Token", &token), ("X-Batch-User", "mallory")]).status, 200);
        let seen = backend.last();
        assert_eq!((seen.one("x-identity-audience"), seen.one("x-identity-subject")), (audience, "user_123"));
        let mapped = if path == "/a" { vec![] } else { vec!["user_123"] };
        assert_eq!(seen.all("x-batch-user"), mapped, "reserved towards every backend, set for its own");
        let request = captured(&seen, key, "HS256").with_secret(secret.as_bytes());
        let other = if secret == BATCH_KEY { ASSERTION_KEY } else { BATCH_KEY };
        let forged = request.clone().with_secret(other.as_bytes());
        assert_bound(&[Verifier::HmsPython, Verifier::HmsNode], &request, &[("the other backend's secret".to_owned(), forged)]);
    }
}

#[test]
fn all_public_keys_are_published_once() {
    let (default, batch) = (fresh(), fresh());
    let more = format!(
        "[upstreams.same]\naddress = \"{}\"\nadd_prefix = \"/v2\"\n{}",
        default.address(),
        named("batch", batch.address(), "b1", "")
            .replace("file = \"b1.key\"", "file = \"p256.pem\", algorithm = \"ES256\"")
            .replace("audience = \"batch\"", "audience = \"agent\"\nschemes = [\"jwt\"]")
    );
    let text = config(
        &format!("address = \"{}\"", default.address()),
        &more,
        "[[tenant.route]]\npath = \"/b\"\nupstream = \"batch\"\n[[tenant.route]]\npath = \"/s\"\nupstream = \"same\"",
    )
    .replace("schemes = [\"http-message-signatures\"]", "schemes = [\"jwt\"]")
    .replace("file = \"assertion.key\"", "file = \"ed.pem\", algorithm = \"EdDSA\"");
    let files = [("p256.pem", include_str!("../verifiers/p256.pem")), ("ed.pem", include_str!("../verifiers/ed25519.pem"))];
    let gateway = Gateway::start_with(&text, &files);
    let published = gateway.admin("/jwks.json").json();
    let mut kids: Vec<_> = published["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    kids.sort();
    assert_eq!(kids, ["a1", "b1"]);
    for (path, backend, key, algorithm) in [("/s", &default, "a1", "EdDSA"), ("/b", &batch, "b1", "ES256")] {
        asked(&gateway, path);
        let mut request = captured(&backend.last(), key, algorithm);
        request.jwks = Some(published.clone());
        assert_bound(&Verifier::JWTS, &request, &changes(&request, &["x-identity-assertion".to_owned()]));
    }
    assert_eq!(default.last().target, "/v2/s");
}

#[test]
fn a_reload_changes_addresses_and_keeps_what_it_can() {
    let (a, b) = (fresh(), fresh());
    let released = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&released);
    let held = Upstream::start(move |_, stream| {
        until("the release", || open.load(Ordering::SeqCst).then_some(()));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    });
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ejection = "[upstream.ejection]\nfailures = 1\nperiod = \"1h\"\nlongest = \"1h\"";
    let text = |all: &[SocketAddr]| config(&format!("{}\n{ejection}", addresses(all)), "", "");
    let gateway = Gateway::start(&text(&[held.address(), gone]));
    let mut waiting = Connection::open(gateway.address);
    let request = http::request("GET", "/held", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"");
    waiting.send(&request).unwrap();
    until("the held request", || (!held.seen().is_empty()).then_some(()));
    gateway.write("doorward.toml", &text(&[a.address(), b.address(), gone]));
    gateway.generation(2);
    (0..9).for_each(|_| asked(&gateway, "/a"));
    assert_eq!(held.seen().len(), 1, "what is gone gets nothing new");
    assert_eq!(a.seen().len() + b.seen().len(), 9);
    let ejected =
        |gateway: &Gateway| standings(gateway, "default").into_iter().filter(|(_, s)| s == "ejected").map(|(a, _)| a).collect::<Vec<_>>();
    assert_eq!(ejected(&gateway), [gone.to_string()]);
    released.store(true, Ordering::SeqCst);
    assert_eq!(waiting.answer("GET").unwrap().status, 200, "and what is there goes on");
    gateway.write("doorward.toml", &text(&[b.address(), gone]));
    gateway.generation(3);
    assert_eq!(ejected(&gateway), [gone.to_string()], "how an address is doing outlives a reload");
    assert_eq!(gateway.metric("doorward_upstream_ejections_total{upstream=\"default\"}"), 1.0);
}

#[test]
fn check_says_what_goes_where() {
    let directory = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([10, 0, 0, 1], 3000));
    let more = named(
        "batch",
        address,
        "b1",
        "[upstreams.batch.health]\npath = \"/healthz\"\n[upstreams.batch.tls]\nserver_name = \"agents.internal\"",
    );
    let text = config(
        "addresses = [\"10.0.0.2:1\", \"10.0.0.3:1\"]\nbalance = \"least_connections\"",
        &more,
        "[[tenant.route]]\npath = \"/batch/*\"\nupstream = \"batch\"",
    );
    let files = [
        ("doorward.toml", text.as_str()),
        ("identity.key", crate::gateway::SECRET),
        ("assertion.key", ASSERTION_KEY),
        ("b1.key", BATCH_KEY),
    ];
    files.iter().for_each(|(name, text)| std::fs::write(directory.path().join(name), text).unwrap());
    let said = doorward(&["check", "-c", "doorward.toml"], directory.path());
    let said = String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap();
    for line in [
        "upstream 10.0.0.2:1 10.0.0.3:1 (least_connections)\n",
        "upstream batch  10.0.0.1:3000 (TLS as agents.internal, checked)\n",
        "routes 0, upstream default batch\n",
        "assertion HS256 for upstream batch",
        "ok: 1 tenant, 0 warnings",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
}
