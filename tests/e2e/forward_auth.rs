//! Forward-auth with the real programs: each of the four ingresses as shipped, callers who lie about everything that they can
//! lie about, and verifiers that nobody here wrote judging what the backend got.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use ::http::HeaderName;
use doorward::assertion::reserved::{REMOVED, Reserved};
use serde_json::json;

use crate::gateway::{ASSERTION_KEY, Gateway, KEY, ORIGIN, halo, in_seconds, jwt, jwt_with};
use crate::http::{self, Answer, Connection};
use crate::ingress::{Ingress, Program};
use crate::upstream::{Seen, Upstream};
use crate::verifiers::{Captured, Verifier, verify_all};

/// Names that the gateway answers with: what the shipped configurations list.
pub const ANSWERED: [&str; 16] = [
    "x-identity-level",
    "x-identity-tenant",
    "x-identity-audience",
    "x-identity-request-id",
    "x-identity-origin",
    "x-identity-session-id",
    "x-identity-subject",
    "x-identity-claims",
    "x-identity-method",
    "x-identity-stepped-up-at",
    "x-identity-aal",
    "x-identity-claimed-subject",
    "x-identity-assertion",
    "accept-signature",
    "signature-input",
    "signature",
];
/// Other proxies' names for an identity, which the shipped configurations know one by one.
pub const OTHERS: [&str; 6] = [
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-auth-request-access-token",
    "x-auth-request-redirect",
];
pub const MAPPED: &str = "x-user-email";

/// A gateway with a listener for this convention, and one tenant whose `/admin` is for verified users.
pub fn gateway(convention: &str, backend: SocketAddr, listener: &str, tenant: &str, change: impl Fn(String) -> String) -> Gateway {
    let server = format!(
        "trusted_proxies = [\"127.0.0.1\", \"unix\"]\n[[server.listener]]\n{listener}\n[server.listener.forward_auth]\nconvention = \"{convention}\"\n[upstream]"
    );
    let route = "[[tenant.route]]\npath = \"/admin/*\"\nrequire = \"verified\"\n\
         [[tenant.route]]\npath = \"/send/*\"\nmethods = [\"POST\"]\nrequire = \"verified\"\n";
    let config = halo(backend, &format!("{tenant}\n{route}"))
        .replace("[upstream]", &server)
        .replace("preset = \"halo\"", "preset = \"none\"")
        .replace("file = \"identity.key\"", "file = \"identity.key\", format = \"jwt\"")
        .replace("[assertion]", "[upstream.headers]\nX-User-Email = \"claim:email\"\n\n[assertion]");
    let session = "\n[session]\nkeys = [{ id = \"n1\", file = \"session.key\" }]\n";
    Gateway::start_with(&change(config + session), &[("session.key", "session_key_0123456789abcdef0123456789")])
}

pub fn plain_gateway(convention: &str, backend: SocketAddr) -> Gateway {
    gateway(convention, backend, "address = \"127.0.0.1:0\"", "", |config| config)
}

pub fn good_token() -> String {
    jwt(&json!({ "sub": "ada", "email": "ada@example.com", "exp": in_seconds(300) }))
}

/// One gateway, one backend and one ingress between the caller and both.
struct Scene {
    program: Program,
    gateway: Gateway,
    backend: Upstream,
    ingress: Ingress,
}

impl Scene {
    fn new(program: Program) -> Self {
        let backend = Upstream::start(|seen, stream| {
            if seen.all("upgrade").is_empty() {
                return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\nok");
            }
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        });
        let gateway = plain_gateway(program.convention(), backend.address());
        let ingress = Ingress::start(program, &gateway, backend.address());
        Self { program, gateway, backend, ingress }
    }

    /// Asks with these fields beside embed key and origin, from an address that is no proxy's. What the backend got, if anything.
    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> (Answer, Option<Seen>) {
        let always = [("X-Embed-Key", KEY), ("Origin", ORIGIN), ("Accept", "*/*")];
        let connection = [("Connection", "close")];
        let named = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection"));
        let connection = if named { &[][..] } else { &connection[..] };
        self.send(method, http::request(method, target, &[&always[..], fields, connection].concat(), body))
    }

    /// The same with these bytes.
    fn send(&self, method: &str, request: impl AsRef<[u8]>) -> (Answer, Option<Seen>) {
        let request = request.as_ref();
        self.backend.forget();
        let mut stream = Connection::open_from(Ipv4Addr::new(127, 0, 0, 2), self.ingress.address);
        stream.send(request).expect("send");
        let answer = stream.answer(method).unwrap_or_else(|| {
            panic!("{:?}: no answer to {}\n{}", self.program, String::from_utf8_lossy(request), self.ingress.log());
        });
        let seen = self.backend.seen();
        assert!(seen.len() < 2, "{:?} sent it twice", self.program);
        (answer, seen.into_iter().next())
    }

    fn captured(&self, seen: &Seen) -> Captured {
        Captured {
            method: seen.method.clone(),
            target: seen.target.clone(),
            host: seen.one("host").to_owned(),
            headers: seen.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect(),
            body_b64: String::new(),
            key_id: "a1".to_owned(),
            key_b64: None,
            jwks: None,
            algorithm: "HS256".to_owned(),
        }
        .with_body(&seen.body)
        .with_secret(ASSERTION_KEY.as_bytes())
    }

    /// Fails unless everybody verifies every request.
    fn verify(&self, requests: &[Seen]) {
        let captured: Vec<_> = requests.iter().map(|seen| self.captured(seen)).collect();
        for verifier in Verifier::SIGNATURES {
            for (answer, request) in verify_all(verifier, &captured).into_iter().zip(requests) {
                assert_eq!(answer, Ok(()), "{:?}, {verifier:?}: {request:?}", self.program);
            }
        }
    }
}

/// What the backend reads of who is talking.
fn told<'s>(seen: &'s Seen, name: &str) -> &'s str {
    seen.one(name)
}

/// Header names of a request that are reserved, in any spelling, less those that the gateway set.
fn strangers(seen: &Seen) -> Vec<String> {
    let mapped = HeaderName::from_static(MAPPED);
    let reserved = Reserved::new([&mapped]);
    let ours: Vec<&str> = ANSWERED.iter().copied().chain([MAPPED]).collect();
    let alien = |name: &&String| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        reserved.contains(&name) && !ours.contains(&name.as_str())
    };
    seen.headers.iter().map(|(name, _)| name).filter(alien).cloned().collect()
}

fn anonymous_and_true(scene: &Scene, what: &str, seen: &Seen) {
    assert_eq!(strangers(seen), Vec::<String>::new(), "{:?} {what}: {seen:?}", scene.program);
    assert_eq!(told(seen, "x-identity-level"), "anonymous", "{:?} {what}", scene.program);
    for name in ["x-identity-subject", "x-identity-claims", "x-identity-claimed-subject", "x-identity-assertion", MAPPED] {
        assert_eq!(told(seen, name), "", "{:?} {what} {name}", scene.program);
    }
    assert!(!format!("{seen:?}").contains("victim"), "{:?} {what}: {seen:?}", scene.program);
}

/// Every reserved name in its own spelling, doubled, and nominated: deleted, and the request passes as the stranger's it is.
/// In every other spelling: the same, or refused.
fn lies_about_identity(scene: &Scene) {
    let names: Vec<&str> = ANSWERED.iter().chain(&REMOVED).chain(&OTHERS).copied().chain([MAPPED]).collect();
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut passed = Vec::new();
    let mut keep = |what: &str, seen: Seen| {
        anonymous_and_true(scene, what, &seen);
        passed.push(seen);
    };
    for name in &names {
        let upper = name.to_ascii_uppercase();
        for fields in [vec![(upper.as_str(), "victim")], vec![(*name, "victim"), (upper.as_str(), "victim-2")]] {
            let (answer, seen) = scene.ask("GET", "/chat?a=1", &fields, b"");
            assert_eq!(answer.status, 200, "{:?} {fields:?}: {answer:?}", scene.program);
            keep(&format!("{fields:?}"), seen.expect("the backend's copy"));
        }
    }
    for name in &names {
        let (snake, dotted, bare) = (name.replace('-', "_"), name.replace('-', "."), name.replace('-', ""));
        let (doubled, prefixed) = (name.replace('-', "--"), format!("{name}-"));
        for spelling in [&snake, &dotted, &bare, &doubled, &prefixed] {
            let (answer, seen) = scene.ask("GET", "/chat", &[(spelling.as_str(), "victim")], b"");
            match seen {
                Some(seen) => keep(spelling, seen),
                None => assert!((400..500).contains(&answer.status), "{:?} {spelling}: {answer:?}", scene.program),
            }
        }
        for nominated in [format!("close, {name}"), format!("{name}, keep-alive, Signature")] {
            let (answer, seen) = scene.ask("GET", "/chat", &[("Connection", &nominated), (name, "victim")], b"");
            match seen {
                Some(seen) => keep(&nominated, seen),
                None => assert!((400..500).contains(&answer.status), "{:?} {nominated}: {answer:?}", scene.program),
            }
        }
    }
    for (name, value) in [("X-Identity-Anything", "victim"), ("XIdentitySubject", "victim"), ("X-Doorward-Level", "victim")] {
        let (answer, seen) = scene.ask("GET", "/chat", &[(name, value)], b"");
        match seen {
            Some(seen) => keep(name, seen),
            None => assert_eq!(answer.reason(), "forward_auth_reserved", "{:?} {name}: {answer:?}", scene.program),
        }
    }
    assert!(passed.len() >= names.len() * 2, "{}", passed.len());
    scene.verify(&passed);
}

/// What the request is about is the ingress' own word, whatever the client calls it.
fn lies_about_the_request(scene: &Scene) {
    let lies = [
        ("X-Original-URI", "/chat"),
        ("X-Original-Method", "GET"),
        ("X-Original-URL", "http://gateway.test/chat"),
        ("X-Forwarded-Uri", "/chat"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Prefix", "/chat"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "other.test"),
        ("X-Envoy-Original-Path", "/chat"),
        ("X-HTTP-Method-Override", "GET"),
    ];
    let doubled: Vec<_> = lies.iter().chain(&lies).copied().collect();
    let singles: Vec<Vec<_>> = lies.iter().map(|lie| vec![*lie]).collect();
    for fields in singles.iter().chain([&lies.to_vec(), &doubled]) {
        let (answer, seen) = scene.ask("POST", "/admin/users", fields, b"{}");
        assert!(seen.is_none(), "{:?} {fields:?}: {answer:?}", scene.program);
        assert_eq!((answer.status, answer.reason()), (401, "token_missing"), "{:?} {fields:?}: {answer:?}", scene.program);
    }
    // Nor is who asks: limits and records go by the address that the ingress saw.
    let (_, seen) = scene.ask("GET", "/chat", &[("X-Forwarded-For", "203.0.113.9"), ("X-Real-IP", "203.0.113.9")], b"");
    let record = scene.gateway.audit(told(&seen.expect("the backend's copy"), "x-identity-request-id"));
    assert_eq!(record["client"], "127.0.0.2", "{:?}: {record}", scene.program);
    assert_eq!(record["forward_auth"], scene.program.convention());
    // A path with two readings, or one that would have to be changed, is either refused or signed as the backend gets it.
    let mut passed = Vec::new();
    for target in [
        "/chat/../admin/x",
        "//admin/x",
        "/%61dmin/x",
        "/admin%2fx",
        "/chat/%2e%2e/admin/x",
        "/chat;x/y",
        "/chat%5c..",
        "/ADMIN/x",
        "/chat#/admin/x",
        "/chat#/../admin/x",
        "http://gateway.test/admin/x",
        "http://other.test/admin/x",
        "/_doorward",
        "/v1/embed/config/../../../admin/x",
    ] {
        if let (_, Some(seen)) = scene.ask("GET", target, &[], b"") {
            let path = seen.target.to_ascii_lowercase();
            assert!(!path.contains("admin"), "{:?} {target}: {seen:?}", scene.program);
            passed.push(seen);
        }
    }
    scene.verify(&passed);
}

fn tokens(scene: &Scene) {
    let forged = format!("Bearer {}", jwt_with("another_secret_0123456789abcdef01", &json!({ "sub": "ada", "exp": in_seconds(300) })));
    for target in ["/chat", "/admin/users"] {
        let (answer, seen) = scene.ask("POST", target, &[("Authorization", &forged), ("X-Identity-Subject", "ada")], b"{}");
        assert!(seen.is_none(), "{:?}", scene.program);
        assert_eq!((answer.status, answer.reason()), (401, "token_signature_invalid"), "{:?}: {answer:?}", scene.program);
        assert!(answer.one("www-authenticate").contains("invalid_token"), "{:?}", scene.program);
        assert_eq!(answer.all("x-identity-level"), Vec::<&str>::new(), "{:?}", scene.program);
    }
    let good = format!("Bearer {}", good_token());
    let mut passed = Vec::new();
    for (method, target, body) in [
        ("GET", "/chat", ""),
        ("POST", "/admin/users?a=%20b&c", "{\"user_id\":\"victim\"}"),
        ("PUT", "/caf%C3%A9/a%20b?", "x"),
        ("DELETE", "/admin/1?q=%2F..%2f;x", ""),
        ("HEAD", "/chat", ""),
    ] {
        let lies = [("Authorization", good.as_str()), ("X-Identity-Subject", "victim"), ("X-User-Email", "victim@example.com")];
        let (answer, seen) = scene.ask(method, target, &lies, body.as_bytes());
        assert_eq!(answer.status, 200, "{:?} {method} {target}: {answer:?}", scene.program);
        let seen = seen.expect("the backend's copy");
        assert_eq!((seen.method.as_str(), seen.body.as_slice()), (method, body.as_bytes()), "{:?}", scene.program);
        for (name, value) in [
            ("x-identity-level", "verified"),
            ("x-identity-subject", "ada"),
            ("x-identity-tenant", "acme"),
            ("x-identity-origin", ORIGIN),
            ("x-identity-method", "jwt"),
            ("x-identity-claimed-subject", ""),
            (MAPPED, "ada@example.com"),
        ] {
            assert_eq!(told(&seen, name), value, "{:?} {name}", scene.program);
        }
        for name in ["authorization", "x-embed-key"] {
            assert_eq!(seen.all(name), Vec::<&str>::new(), "{:?} passes {name} on", scene.program);
        }
        let record = scene.gateway.audit(told(&seen, "x-identity-request-id"));
        assert_eq!((&record["method"], &record["subject"]), (&json!(method), &json!("ada")), "{:?}", scene.program);
        assert_eq!(record["path"].as_str(), target.split('?').next(), "{:?}", scene.program);
        // The page reads answers by the gateway's leave, not by the backend's.
        if scene.program != Program::Envoy || method != "HEAD" {
            assert_eq!(answer.all("access-control-allow-origin"), [ORIGIN], "{:?}: {answer:?}", scene.program);
        }
        passed.push(seen);
    }
    // A body whose length nobody knows yet, from a client that asks before it sends.
    let fields = [("Authorization", good.as_str()), ("X-Embed-Key", KEY), ("Origin", ORIGIN), ("Transfer-Encoding", "chunked")];
    let more = [("Expect", "100-continue"), ("Trailer", "X-Identity-Subject"), ("Connection", "close")];
    let request = [
        http::request("POST", "/chat", &[&fields[..], &more].concat(), b""),
        b"3\r\nabc\r\n0\r\nX-Identity-Subject: victim\r\n\r\n".to_vec(),
    ];
    let (answer, seen) = scene.send("POST", request.concat());
    let seen = seen.unwrap_or_else(|| panic!("{:?}: {answer:?}", scene.program));
    assert_eq!((answer.status, seen.body.as_slice(), told(&seen, "x-identity-subject")), (200, &b"abc"[..], "ada"), "{:?}", scene.program);
    passed.push(seen);
    scene.verify(&passed);
}

fn what_a_check_cannot_answer(scene: &Scene) {
    let fields = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-embed-key")];
    let (answer, seen) = scene.ask("OPTIONS", "/admin/x", &fields, b"");
    assert_eq!((answer.status, seen.is_none()), (204, true), "{:?}: {answer:?}", scene.program);
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN, "{:?}", scene.program);
    let (answer, seen) = scene.ask("GET", "/doorward.js", &[], b"");
    assert_eq!((answer.status, seen.is_none()), (200, true), "{:?}", scene.program);
    assert!(answer.one("content-type").starts_with("text/javascript"), "{:?}", scene.program);
    // An ordinary OPTIONS is an ordinary request.
    let (answer, seen) = scene.ask("OPTIONS", "/chat", &[], b"");
    assert_eq!(answer.status, 200, "{:?}: {answer:?}", scene.program);
    scene.verify(&[seen.expect("the backend's copy")]);
}

fn handshakes(scene: &Scene) {
    let fields = [
        ("Connection", "Upgrade, X-Identity-Level"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("X-Identity-Level", "verified"),
    ];
    let ask = |target: &str, fields: &[(&str, &str)]| scene.ask("GET", target, fields, b"");
    let plain: Vec<_> = [("Connection", "Upgrade")].iter().chain(&fields[1..4]).copied().collect();
    let (answer, seen) = ask("/chat/ws", &plain);
    assert_eq!(answer.status, 101, "{:?}: {answer:?}\n{}", scene.program, scene.ingress.log());
    let mut passed = vec![seen.expect("the backend's copy")];
    assert_eq!(told(&passed[0], "upgrade").to_ascii_lowercase(), "websocket", "{:?}", scene.program);
    // A nominated header is the gateway's all the same, or nobody gets anything.
    if let (_, Some(seen)) = ask("/chat/ws", &fields) {
        passed.push(seen);
    }
    passed.iter().for_each(|seen| anonymous_and_true(scene, "handshake", seen));
    scene.verify(&passed);
    // A route that names methods covers every handshake, so nobody may take one for a plain GET.
    for target in ["/admin/ws", "/send/ws"] {
        let (answer, seen) = ask(target, &plain);
        assert!(seen.is_none() && answer.status == 401, "{:?}: {answer:?}", scene.program);
    }
    for (method, odd) in
        [("GET", &plain[..2]), ("GET", &[plain[0], ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]), ("PUT", &plain[..])]
    {
        let (answer, seen) = scene.ask(method, "/send/ws", odd, b"");
        let upgrades = seen.iter().flat_map(|seen| seen.all("upgrade")).count();
        assert_eq!(upgrades, 0, "{:?} {method} {odd:?}: {answer:?}", scene.program);
    }
}

fn all_of_it(program: Program) {
    let scene = Scene::new(program);
    tokens(&scene);
    what_a_check_cannot_answer(&scene);
    lies_about_identity(&scene);
    lies_about_the_request(&scene);
    handshakes(&scene);
    // Nobody to ask: nobody passes.
    scene.gateway.signal("KILL");
    crate::gateway::until("the gateway to be gone", || Some(()).filter(|()| std::net::TcpStream::connect(scene.gateway.address).is_err()));
    let (answer, seen) = scene.ask("GET", "/chat", &[], b"");
    let status = match program {
        Program::Nginx | Program::Traefik => 500,
        Program::Caddy => 502,
        Program::Envoy => 403,
    };
    assert!(seen.is_none() && answer.status == status, "{program:?}: {answer:?}");
}

#[test]
fn nginx() {
    all_of_it(Program::Nginx);
}

#[test]
fn traefik() {
    all_of_it(Program::Traefik);
}

#[test]
fn caddy() {
    all_of_it(Program::Caddy);
}

#[test]
fn envoy() {
    all_of_it(Program::Envoy);
}
