//! What stays inside: credentials in no log, metric, answer or upstream header; errors that tell a code and nothing of the
//! gateway; answers that no cache serves to somebody else; labels and connections that no client can make.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::gateway::{ASSERTION_KEY, Gateway, KEY, ORIGIN, SECRET, halo, in_seconds, jwt, jwt_with};
use crate::http::{self, Answer, Connection};
use crate::upstream::Upstream;

const SESSION_KEY: &str = "session_key_0123456789abcdef0123";

fn start(upstream: &Upstream) -> Gateway {
    let (head, tenant) = halo(upstream.address(), "[tenant.sessions]\nin_query = true")
        .split_once("[[tenant]]")
        .map(|(h, t)| (h.to_owned(), t.to_owned()))
        .unwrap();
    let session = "[session]\nkeys = [{ id = \"n1\", file = \"session.key\" }]";
    Gateway::start_with(&format!("{head}{session}\n[[tenant]]{tenant}"), &[("session.key", SESSION_KEY)])
}

fn good() -> String {
    jwt(&json!({ "user_id": "user_123", "email": "ada@example.com", "exp": in_seconds(600) }))
}

/// The page's headers and these.
fn page<'h>(more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    [("Origin", ORIGIN), ("X-Embed-Key", KEY)].into_iter().chain(more.iter().copied()).collect()
}

fn mint(gateway: &Gateway) -> String {
    let body = json!({ "embed_key": KEY, "identity_token": good() }).to_string();
    let answer = gateway.ask("POST", "/v1/embed/session-tokens", &[("Origin", ORIGIN)], body);
    answer.json()["token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// `threats` 16: whatever was shown, good or bad, in every place where it may or may not stand.
#[test]
fn no_credential_reaches_a_log_a_metric_an_answer_or_the_upstreams_headers() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream);
    let session = mint(&gateway);
    let tokens = [
        good(),
        jwt(&json!({ "user_id": "user_123", "exp": 1_700_000_000 })),
        jwt(&json!({ "user_id": "undefined", "exp": in_seconds(600) })),
        jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "user_123", "exp": in_seconds(600) })),
        "5f1d".repeat(16),
        "v2.eyJ1c2VyX2lkIjoidXNlcl8xMjMifQ.51e421726cf99a3157e5e83b8d9c129f777fd2c4cb0f3a2577105f8c9f1ed614".to_owned(),
        "not_a_token_at_all_but_still_a_secret".to_owned(),
        format!("{}x", session),
        session.clone(),
    ];
    let mut answers: Vec<Answer> = Vec::new();
    for token in &tokens {
        let bearer = format!("Bearer {token}");
        let offered = format!("doorward.v1, doorward.token.{token}");
        let query = format!("/a?session_token={token}");
        let body = json!({ "user_token": token, "user_id": "user_123" }).to_string();
        let minting = json!({ "embed_key": KEY, "identity_token": token }).to_string();
        answers.push(gateway.ask("GET", "/a", &page(&[("Authorization", &bearer)]), ""));
        answers.push(gateway.ask("GET", "/a", &page(&[("X-User-Token", token)]), ""));
        answers.push(gateway.ask("GET", "/a", &page(&[("Sec-WebSocket-Protocol", &offered)]), ""));
        answers.push(gateway.ask("GET", &query, &page(&[("Accept", "text/event-stream")]), ""));
        answers.push(gateway.ask("GET", "/a", &page(&[("Authorization", &bearer), ("X-User-Token", "another")]), ""));
        answers.push(gateway.ask("POST", "/api/sdk/chat", &page(&[]), body));
        let mut minted = gateway.ask("POST", "/v1/embed/session-tokens", &page(&[]), minting);
        if minted.status == 200 {
            minted.body.clear(); // the one answer whose point is a token
        }
        answers.push(minted);
    }
    let outcomes = |wanted: u16| answers.iter().filter(|a| a.status == wanted).count();
    assert!(
        outcomes(200) > 5 && outcomes(403) > 5 && outcomes(400) > 5,
        "both ways: {:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
    gateway.audit(answers.last().unwrap().one("x-request-id")); // the records before it are written

    let told: Vec<(&str, String)> = vec![
        ("the log", gateway.log()),
        ("the audit records", gateway.audit_text()),
        ("the metrics", gateway.admin("/metrics").text()),
        ("the status page", gateway.admin("/status").text()),
        ("an answer", answers.iter().map(|a| format!("{:?}\n{}\n", a.headers, a.text())).collect()),
        ("the upstream's headers", upstream.seen().iter().map(|s| format!("{:?}\n", s.headers)).collect()),
    ];
    let material = [SECRET, ASSERTION_KEY, SESSION_KEY].map(str::to_owned);
    for secret in tokens.iter().chain(&material) {
        // A signature alone is enough to rebuild a token whose rest can be guessed.
        let last = secret.rsplit('.').next().unwrap();
        for (where_, text) in &told {
            assert!(!text.contains(secret.as_str()) && !text.contains(last), "{secret} stands in {where_}");
        }
    }
    let sent_with_queries = upstream.seen().iter().map(|s| s.target.clone()).collect::<String>();
    assert!(!sent_with_queries.contains(&session), "a session in the query is removed");
}

/// `threats` 34: log fields are escaped; a subject cannot write a record of its own.
#[test]
fn one_request_is_one_record_whatever_it_says() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream);
    let subject = "ada\n{\"outcome\":\"forwarded\",\"subject\":\"root\"}\r\u{1b}[2K\u{2028}";
    let token = jwt(&json!({ "user_id": subject, "exp": in_seconds(600) }));
    let answer = gateway.ask("GET", "/a", &page(&[("X-User-Token", &token)]), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(gateway.audit(answer.one("x-request-id"))["subject"], subject);
    let records = gateway.audit_text();
    assert_eq!(records.lines().count(), 1, "{records}");
    assert!(!records.contains('\u{1b}'));
}

/// `threats` 34: the members of a problem are these, and none of them is about the gateway.
#[test]
fn errors_tell_a_code_and_nothing_of_the_gateway() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream);
    let forged = jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "user_123", "exp": in_seconds(600) }));
    let bearer = "Bearer eyJ0eXAiOiJkb29yd2FyZC1zZXNzaW9uK2p3dCIsImFsZyI6IkhTMjU2Iiwia2lkIjoibjEifQ.e30.AAAA";
    let denials = [
        gateway.ask("GET", "/a", &page(&[("X-User-Token", &forged)]), ""),
        gateway.ask("GET", "/a", &page(&[("Authorization", bearer)]), ""),
        gateway.ask("GET", "/a", &page(&[("X-User-Id", "user_123")]), ""),
        gateway.ask("GET", "/a", &[("Origin", ORIGIN)], ""),
        gateway.ask("GET", "/a", &[("Origin", "https://evil.example"), ("X-Embed-Key", KEY)], ""),
        gateway.ask("GET", "/a/../b", &page(&[]), ""),
        gateway.ask("TRACE", "/a", &page(&[]), ""),
        gateway.ask("POST", "/api/sdk/chat", &page(&[]), "{"),
        http::send(gateway.address, "GET / HTTP/1.1\r\n\r\n"),
    ];
    let fingerprint = gateway.admin("/status").json()["tenants"][0]["secrets"][0]["fingerprint"].as_str().unwrap().to_owned();
    for answer in &denials {
        assert!(answer.status >= 400, "{answer:?}");
        let body = answer.json();
        let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["reason", "request_id", "status", "title"], "{answer:?}");
        assert!(answer.all("server").is_empty() && answer.all("x-powered-by").is_empty(), "{answer:?}");
        let all = format!("{:?} {}", answer.headers, answer.text()).to_ascii_lowercase();
        let request_id = body["request_id"].as_str().unwrap();
        let told = all.replace(request_id, "");
        for inside in [env!("CARGO_PKG_VERSION"), "pingora", &fingerprint, "\"s1\"", "\"a1\"", "\"n1\"", ".rs", "panicked", ".key"] {
            assert!(!told.contains(inside), "{inside} in {told}");
        }
        assert_eq!(answer.one("cache-control"), "no-store", "`threats` 42: {answer:?}");
    }
}

/// `threats` 42, and RFC 9111 §5.2: an answer to somebody is nobody else's.
#[test]
fn an_identified_answer_is_never_for_a_shared_cache() {
    let token = good();
    let upstream = Upstream::plain();
    let visitor = {
        let gateway = start(&upstream);
        let answer = gateway.ask("POST", "/v1/embed/session-tokens", &[("Origin", ORIGIN)], json!({ "embed_key": KEY }).to_string());
        assert_eq!(answer.one("cache-control"), "no-store", "a mint");
        format!("Bearer {}", answer.json()["token"].as_str().unwrap())
    };
    for (by_upstream, identified) in [
        (None, "private"),
        (Some("public"), "private"),
        (Some("public, max-age=60"), "private, max-age=60"),
        (Some("max-age=60, PUBLIC"), "private, max-age=60"),
        (Some("max-age=60"), "private, max-age=60"),
        (Some("s-maxage=60, max-age=5"), "private, max-age=5"),
        (Some("private=\"set-cookie\", max-age=60"), "private, private=\"set-cookie\", max-age=60"),
        (Some("private, max-age=5"), "private, max-age=5"),
        (Some("no-store"), "no-store"),
    ] {
        let field = by_upstream.map(|value| format!("Cache-Control: {value}\r\n")).unwrap_or_default();
        let upstream = Upstream::answering(format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n"));
        let gateway = start(&upstream);
        let of =
            |headers: &[(&str, &str)]| gateway.ask("GET", "/a", &page(headers), "").all("cache-control").first().map(|v| (*v).to_owned());
        assert_eq!(of(&[("X-User-Token", &token)]).as_deref(), Some(identified), "{by_upstream:?}");
        assert_eq!(of(&[("Authorization", &visitor)]).as_deref(), Some(identified), "{by_upstream:?}: a session tells visitors apart");
        assert_eq!(of(&[]).as_deref(), by_upstream, "anonymous answers stay the upstream's");
    }
}

/// `threats` 31: no client makes a series.
#[test]
fn metrics_do_not_grow_with_what_clients_send() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream);
    let series = || gateway.admin("/metrics").text().lines().filter(|l| !l.starts_with('#')).count();
    let ask = |n: usize| {
        let (key, origin, path) = (format!("ab_live_{n:016}"), format!("https://h{n}.example"), format!("/p{n}?q{n}={n}"));
        let token = format!("tenant-{n}");
        gateway.ask(
            ["GET", "POST", "PUT", "X-ODD"][n % 4],
            &path,
            &[("Origin", &origin), ("X-Embed-Key", &key), ("X-User-Token", &token)],
            "",
        );
        let (id, by) = (format!("user_{n}"), format!("agent/{n}"));
        gateway.ask("GET", &path, &page(&[("X-User-Id", &id), ("User-Agent", &by)]), "");
    };
    ask(0);
    let before = series();
    (1..100).for_each(ask);
    gateway.counted(r#"doorward_requests_total{level="",outcome="denied",reason="embed_key_unknown",tenant="unknown"}"#, 100.0);
    assert_eq!(series(), before);
}

/// `threats` 9 and 35: where a token's key would be is not looked at, so nothing is fetched.
#[test]
fn a_token_makes_no_connection() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream);
    let bait = TcpListener::bind("127.0.0.1:0").unwrap();
    bait.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", bait.local_addr().unwrap());
    doorward::install_crypto();
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    for signed_by in [SECRET, "another_secret_0123456789abcdef01"] {
        let mut header = jsonwebtoken::Header::default();
        (header.jku, header.x5u) = (Some(url.clone()), Some(url.clone()));
        let key = if signed_by == SECRET { key.clone() } else { jsonwebtoken::EncodingKey::from_secret(signed_by.as_bytes()) };
        let claims = json!({ "user_id": "user_123", "iss": url, "exp": in_seconds(600) });
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        let answer = gateway.ask("GET", "/a", &page(&[("X-User-Token", &token)]), "");
        gateway.audit(answer.one("x-request-id"));
    }
    assert_eq!(bait.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody called");
}

/// `threats` 28: no listener speaks HTTP/2, with prior knowledge or by upgrade.
#[test]
fn nobody_speaks_http2() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream);
    for address in [gateway.address, gateway.admin] {
        let mut connection = Connection::open(address);
        // RFC 9113 §3.4: the preface and an empty SETTINGS frame.
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let answer = connection.answer("PRI");
        assert!(answer.as_ref().is_none_or(|a| a.status >= 400), "{answer:?}");
    }
    assert!(upstream.seen().is_empty());
    let answer = gateway.ask("GET", "/a", &page(&[]), "");
    assert_eq!(answer.status, 200, "the twin");
    assert_eq!(answer.json(), Value::from_iter([("ok", true)]));
}
