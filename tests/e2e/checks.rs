//! The forward-auth listener itself, asked as an ingress asks: who may, in which words, what is answered.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use doorward::assertion::reserved::{REMOVED, Reserved};
use serde_json::json;

use crate::forward_auth::{ANSWERED, MAPPED, OTHERS, gateway, good_token, plain_gateway};
use crate::gateway::{ASSERTION_KEY, Gateway, KEY, ORIGIN};
use crate::http::{self, Answer, Connection};
use crate::ingress::{Program, shipped};
use crate::upstream::Upstream;
use crate::verifiers::{Captured, Verifier, verify};

const CONVENTIONS: [&str; 4] = ["nginx", "traefik", "caddy", "envoy"];

/// The fields by which a convention asks about a request; Envoy's are the request line.
fn words<'w>(convention: &str, method: &'w str, target: &'w str) -> Vec<(&'static str, &'w str)> {
    match convention {
        "nginx" => vec![("X-Original-Method", method), ("X-Original-URI", target)],
        "traefik" | "caddy" => vec![
            ("X-Forwarded-Method", method),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "gateway.test"),
            ("X-Forwarded-Uri", target),
        ],
        _ => Vec::new(),
    }
}

/// What an ingress sends to ask about an anonymous request, with more fields.
fn check(convention: &str, method: &str, target: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let line = if convention == "envoy" { (method, target) } else { ("GET", "/") };
    let always = [("X-Embed-Key", KEY), ("Origin", ORIGIN), ("X-Forwarded-For", "203.0.113.9")];
    let fields = [&always[..], &words(convention, method, target), more].concat();
    http::request(line.0, line.1, &fields, b"")
}

fn ask(gateway: &Gateway, request: &[u8]) -> Answer {
    http::send(gateway.last_place(), request)
}

/// The request that the answer makes of an anonymous one, as a backend gets it.
fn made(answer: &Answer, method: &str, target: &str) -> Captured {
    let ours = |name: &str| ANSWERED.contains(&name) || name == MAPPED;
    Captured {
        method: method.to_owned(),
        target: target.to_owned(),
        host: "gateway.test".to_owned(),
        headers: answer.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).filter(|(n, _)| ours(n)).collect(),
        body_b64: String::new(),
        key_id: "a1".to_owned(),
        key_b64: None,
        jwks: None,
        algorithm: "HS256".to_owned(),
    }
    .with_secret(ASSERTION_KEY.as_bytes())
}

#[test]
fn every_reserved_name_is_answered_once_and_covered() {
    let upstream = Upstream::plain();
    for convention in CONVENTIONS {
        let gateway = plain_gateway(convention, upstream.address());
        let bearer = format!("Bearer {}", good_token());
        for (fields, level, empty) in [(&[][..], "anonymous", 10), (&[("Authorization", bearer.as_str())], "verified", 6)] {
            let answer = ask(&gateway, &check(convention, "PUT", "/a%20b?c=%20", fields));
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{convention}: {answer:?}");
            assert_eq!((answer.one("x-identity-level"), answer.one("cache-control")), (level, "no-store"));
            let names: Vec<_> = ANSWERED.iter().copied().chain([MAPPED]).collect();
            assert_eq!(names.iter().filter(|name| answer.one(name).is_empty()).count(), empty, "{convention}: {answer:?}");
            for name in names.iter().filter(|name| !name.starts_with("signature")) {
                assert!(answer.one("signature-input").contains(&format!("\"{name}\"")), "{convention}: {name} is not covered");
            }
            let request = made(&answer, "PUT", "/a%20b?c=%20");
            for verifier in Verifier::SIGNATURES {
                assert_eq!(verify(verifier, &request), Ok(()), "{convention} {verifier:?}");
                for (what, name) in [("a subject", "x-identity-subject"), ("an id", "x-identity-claimed-subject"), ("a name", MAPPED)] {
                    let mut changed = request.clone();
                    changed.headers.iter_mut().filter(|(n, _)| n == name).for_each(|(_, value)| *value = "victim".to_owned());
                    assert!(verify(verifier, &changed).is_err(), "{convention} {verifier:?} takes {what}");
                }
            }
        }
    }
    assert_eq!(upstream.connections(), 0, "nothing is forwarded");
}

/// With the `jwt` scheme alone nothing covers the empty ones, and the assertion is about the original request.
#[test]
fn the_jwt_scheme_answers_every_name_too() {
    let upstream = Upstream::plain();
    let gateway = gateway("caddy", upstream.address(), "address = \"127.0.0.1:0\"", "", |config| {
        config.replace("schemes = [\"http-message-signatures\"]", "schemes = [\"jwt\"]")
    });
    let answer = ask(&gateway, &check("caddy", "PUT", "/a?b", &[]));
    let request = made(&answer, "PUT", "/a?b");
    assert_eq!(request.headers.len(), ANSWERED.len() + 1, "{answer:?}");
    for verifier in Verifier::JWTS {
        assert_eq!(verify(verifier, &request), Ok(()), "{verifier:?}");
        assert!(verify(verifier, &Captured { target: "/a?c".to_owned(), ..request.clone() }).is_err());
    }
}

#[test]
fn only_trusted_proxies_may_ask() {
    let upstream = Upstream::plain();
    let gateway = gateway("nginx", upstream.address(), "unix = \"check.sock\"", "", |config| {
        let more = "[[server.listener]]\naddress = \"127.0.0.1:0\"\nforward_auth = { convention = \"nginx\" }\n\n[upstream]\n";
        config.replacen("[upstream]\n", more, 1)
    });
    let request = check("nginx", "GET", "/chat", &[("Connection", "close")]);
    assert_eq!(ask(&gateway, &request).status, 200);
    let mut stranger = Connection::open_from(Ipv4Addr::new(127, 0, 0, 2), gateway.last_place());
    stranger.send(&request).unwrap();
    let answer = stranger.answer("GET").unwrap();
    assert_eq!((answer.status, answer.reason()), (403, "forward_auth_untrusted"));
    assert_eq!(answer.all("x-identity-level"), Vec::<&str>::new());
    let mut socket = UnixStream::connect(gateway.path("check.sock")).unwrap();
    socket.write_all(&request).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.to_ascii_lowercase().contains("x-identity-level: anonymous"), "{text}");
}

#[test]
fn its_own_words_are_there_once_and_others_are_not_read() {
    let upstream = Upstream::plain();
    for convention in CONVENTIONS {
        let gateway = plain_gateway(convention, upstream.address());
        let own = words(convention, "POST", "/admin/users");
        // Others say that it is a harmless request; the convention's own words count.
        for other in CONVENTIONS.iter().filter(|other| words(other, "GET", "/chat").iter().all(|(n, _)| own.iter().all(|(o, _)| o != n))) {
            let answer = ask(&gateway, &check(convention, "POST", "/admin/users", &words(other, "GET", "/chat")));
            assert_eq!((answer.status, answer.reason()), (401, "token_missing"), "{convention} beside {other}: {answer:?}");
        }
        for (name, value) in &own {
            let status = if convention == "nginx" { 403 } else { 400 };
            let text = String::from_utf8(check(convention, "POST", "/admin/users", &[])).unwrap();
            let line = format!("{name}: {value}\r\n");
            for request in [text.replace(&line, ""), text.replace(&line, &line.repeat(2)), text.replace(&line, &format!("{name}: \r\n"))] {
                let answer = ask(&gateway, request.as_bytes());
                assert_eq!((answer.status, answer.reason()), (status, "forward_auth_malformed"), "{convention}: {request}");
            }
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_bodies_of_what_is_asked_about_are_not_waited_for() {
    let upstream = Upstream::plain();
    for convention in CONVENTIONS {
        let gateway = plain_gateway(convention, upstream.address());
        for framing in [("Content-Length", "100000"), ("Transfer-Encoding", "chunked")] {
            let answer = ask(&gateway, &check(convention, "POST", "/chat", &[framing, ("Content-Type", "application/json")]));
            assert_eq!(answer.status, 200, "{convention} {framing:?}: {answer:?}");
        }
    }
}

/// `auth_request` knows 401 and 403; the others pass on any refusal.
#[test]
fn refusals_have_statuses_that_the_ingress_can_pass_on() {
    let upstream = Upstream::plain();
    let limit = "limit = [{ per = \"client\", requests = 1, period = \"1h\", path = \"/often\" }]";
    for convention in CONVENTIONS {
        let gateway = gateway(convention, upstream.address(), "address = \"127.0.0.1:0\"", limit, |config| config);
        let ask = |target: &str, fields: &[(&str, &str)]| ask(&gateway, &check(convention, "GET", target, fields));
        let shown = |status: u16| if convention == "nginx" && status != 401 { 403 } else { status };
        for (target, fields, status, reason) in [
            ("/admin/x", &[][..], 401, "token_missing"),
            ("/chat", &[("Authorization", "Bearer a.b.c")], 401, "token_malformed"),
            ("/chat", &[("X-Embed-Key", KEY)], 400, "request_header_refused"),
            ("/%61dmin/x", &[], 400, "request_path_ambiguous"),
            ("/chat", &[("X-Identity-Level", "verified")], 400, "forward_auth_reserved"),
            ("/doorward.js", &[], 403, "forward_auth_unanswerable"),
        ] {
            let answer = ask(target, fields);
            assert_eq!((answer.status, answer.reason()), (shown(status), reason), "{convention} {target}: {answer:?}");
            assert_eq!(answer.json()["status"], shown(status), "{convention}");
            assert_eq!(answer.all("signature"), Vec::<&str>::new());
        }
        assert!(ask("/admin/x", &[]).one("www-authenticate").starts_with("Bearer"), "{convention}");
        // The bucket is the client's that the ingress names, and another client has its own.
        assert_eq!(ask("/often", &[]).status, 200);
        let refused = ask("/often", &[]);
        assert_eq!((refused.status, refused.reason()), (shown(429), "rate_limited"), "{convention}");
        assert!(refused.one("retry-after").parse::<u64>().unwrap() > 1000, "{convention}");
        let text = String::from_utf8(check(convention, "GET", "/often", &[])).unwrap().replace("203.0.113.9", "203.0.113.10");
        assert_eq!(http::send(gateway.last_place(), text).status, 200, "{convention}");
    }
}

#[test]
fn records_and_counts_are_about_the_request_that_was_asked_about() {
    let upstream = Upstream::plain();
    let gateway = plain_gateway("traefik", upstream.address());
    let bearer = format!("Bearer {}", good_token());
    let answer = ask(&gateway, &check("traefik", "POST", "/admin/users?secret=1", &[("Authorization", &bearer)]));
    let record = gateway.audit(answer.one("x-request-id"));
    for (name, value) in [
        ("method", "POST"),
        ("path", "/admin/users"),
        ("client", "203.0.113.9"),
        ("forward_auth", "traefik"),
        ("outcome", "forwarded"),
        ("caller_level", "verified"),
        ("subject", "ada"),
        ("origin", ORIGIN),
    ] {
        assert_eq!(record[name], value, "{record}");
    }
    assert_eq!(record["status"], 200);
    gateway.counted("doorward_requests_total{level=\"verified\",outcome=\"forwarded\",reason=\"\",tenant=\"acme\"}", 1.0);
    // An ordinary listener's records do not say so.
    let answer = gateway.ask("GET", "/chat", &[("X-Embed-Key", KEY), ("Origin", ORIGIN)], b"");
    assert_eq!(gateway.audit(answer.one("x-request-id"))["forward_auth"], json!(null));
}

/// The shipped lists against what is reserved: a name that one of them forgets would be refused, or keep the client's value.
#[test]
fn shipped_configurations_name_every_reserved_header() {
    let upstream = Upstream::plain();
    let gateway = plain_gateway("nginx", upstream.address());
    let loaded = doorward::config::load(&gateway.path("doorward.toml"), 1, &|_, _| Default::default()).unwrap();
    let mut answered: Vec<_> =
        loaded.snapshot.upstreams.all().next().unwrap().signer.names().map(|name| name.as_str()).filter(|name| *name != MAPPED).collect();
    let mut listed = ANSWERED.to_vec();
    answered.sort_unstable();
    listed.sort_unstable();
    assert_eq!(answered, listed);
    let reserved = Reserved::new([]);
    let deleted: Vec<&str> = ANSWERED.iter().chain(&REMOVED).chain(&OTHERS).copied().collect();
    assert!(deleted.iter().all(|name| reserved.contains(&name.parse().unwrap())));
    for program in [Program::Nginx, Program::Traefik, Program::Caddy, Program::Envoy] {
        let text = program.files().iter().map(|file| shipped(file)).collect::<String>().to_ascii_lowercase();
        let count = |what: String| text.lines().filter(|line| line.trim() == what).count();
        for name in &deleted {
            let by_pattern = name.starts_with("x-identity-") || name.starts_with("x-auth-request-");
            let found = match program {
                Program::Nginx => count(format!("proxy_set_header {name} \"\";")),
                Program::Traefik => count(format!("{name}: \"\"")),
                Program::Caddy if by_pattern => {
                    count("request_header -x-identity-*".to_owned()) & count("request_header -x-auth-request-*".to_owned())
                }
                Program::Caddy => count(format!("request_header -{name}")),
                Program::Envoy if by_pattern => 1, // one pattern; that it matches is shown with the program
                Program::Envoy => count(format!("- remove: {name}")),
            };
            // nginx writes down what it asks with and what it sends on.
            let wanted = if program == Program::Nginx && !ANSWERED.contains(name) { 2 } else { 1 };
            assert_eq!(found, wanted, "{program:?} deletes {name}");
        }
        for name in ANSWERED {
            let variable = name.trim_start_matches("x-identity-").replace('-', "_");
            let found = match program {
                Program::Nginx => {
                    count(format!("proxy_set_header {name} \" $doorward_{variable}\";"))
                        & count(format!("auth_request_set $doorward_{variable} $upstream_http_{};", name.replace('-', "_")))
                }
                Program::Traefik => count(format!("- {name}")),
                Program::Caddy => count(format!("request_header {name} {{rp.header.{name}}}")),
                Program::Envoy => count(format!("- exact: {name}")),
            };
            assert_eq!(found, 1, "{program:?} copies {name}");
        }
    }
}
