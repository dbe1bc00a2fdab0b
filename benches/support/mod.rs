//! What the benchmarks of single steps share: a configuration of so many tenants, callers, and the steps as the server takes
//! them.

#![allow(dead_code)] // each benchmark takes a part of it

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use doorward::admission::{self, Admitted, Body, Decision, Rules};
use doorward::assertion::{Signer, Target};
use doorward::clock::UnixTime;
use doorward::config::{self, Loaded};
use doorward::limits::meter::Meter;
use doorward::request::RequestHead;
use doorward::revocations::Revocations;
use doorward::token::mint;
use http::request::Parts;

const SECRET: &str = "test_secret_0123456789abcdef0123";
const HMAC: &str = "hmac_secret_0123456789abcdef0123";
const KEY: &str = "pk_bench_0123456789abcdef";
/// When the benchmarks' requests come.
pub const NOW: UnixTime = UnixTime::from_secs(1_760_000_000);

/// Its schemes.
pub const SIGNATURES: &str = "\"http-message-signatures\"";
/// The other.
pub const JWT: &str = "\"jwt\"";

/// A configuration on the disk.
pub struct Site(tempfile::TempDir);

impl Site {
    /// A gateway with this many tenants. Each has an embed key, an origin and a secret file of its own; the first is the callers'.
    pub fn new(schemes: &str, tenants: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let mut config = format!(
            r#"
            [server]
            listen = "127.0.0.1:0"
            admin = "127.0.0.1:0"
            [upstream]
            address = "127.0.0.1:3000"
            [assertion]
            schemes = [{schemes}]
            audience = "agent"
            keys = [{{ id = "a1", file = "assertion.key" }}]
            [[tenant]]
            id = "acme"
            preset = "none"
            embed_keys = ["{KEY}"]
            origins = ["https://app.example.com"]
            secrets = [{{ id = "s1", file = "hmac.key", format = "hmac" }}, {{ id = "s2", file = "jwt.key", format = "jwt" }}]
            "#
        );
        for number in 1..tenants {
            write(&format!("{number}.key"), &format!("secret_of_tenant_{number:016}"));
            write!(
                config,
                r#"
                [[tenant]]
                id = "tenant-{number}"
                preset = "none"
                embed_keys = ["pk_tenant_{number:016}"]
                origins = ["https://app{number}.example.com"]
                secrets = [{{ id = "s1", file = "{number}.key", format = "jwt" }}]
                "#
            )
            .unwrap();
        }
        write("doorward.toml", &config);
        write("assertion.key", "assertion_key_0123456789abcdef01");
        write("hmac.key", HMAC);
        write("jwt.key", SECRET);
        Self(directory)
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.0.path().join("doorward.toml")
    }

    /// Reads it, as a start does.
    pub fn load(&self) -> Loaded {
        config::load(&self.file(), 1, &|_, _| Arc::default()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Reads it, as a reload does.
    pub fn reload(&self, before: &Loaded) -> Loaded {
        let again = config::reload(&self.file(), 2, &|_, _| Arc::default(), &before.snapshot.tenants);
        again.unwrap_or_else(|problems| panic!("{problems}"))
    }
}

/// Requests of three callers, by their credentials.
pub fn callers() -> [(&'static str, Parts); 3] {
    let claims = serde_json::json!({
        "sub": "user_123", "email": "ada@example.com", "name": "Ada Lovelace", "plan": "pro", "iat": 1_759_999_900, "exp": 1_760_000_300
    });
    let jwt = format!("Bearer {}", mint::jwt(SECRET.as_bytes(), jsonwebtoken::Algorithm::HS256, None, &claims).unwrap());
    let hmac = mint::hmac(HMAC.as_bytes(), "user_123");
    [
        ("anonymous", request(&[])),
        ("hmac", request(&[("x-user-id", "user_123"), ("x-user-token", &hmac)])),
        ("jwt_hs256", request(&[("authorization", &jwt)])),
    ]
}

fn request(headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder()
        .method("POST")
        .uri("/v1/chat?stream=1")
        .header("host", "gateway.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36")
        .header("accept", "text/event-stream")
        .header("accept-language", "en-GB,en;q=0.9")
        .header("content-type", "application/json")
        .header("content-length", "70")
        .header("origin", "https://app.example.com")
        .header("x-embed-key", KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// Reads the head and decides.
pub fn decide(parts: &Parts, loaded: &Loaded) -> Admitted {
    let head = RequestHead::parse(parts).unwrap();
    let (snapshot, revocations, meter) = (&loaded.snapshot, Revocations::default(), Meter::unlimited());
    let (tenants, sessions, request_id) = (&snapshot.tenants, &snapshot.sessions, "0123456789abcdef0123456789abcdef");
    let rules = Rules { tenants, revocations: &revocations, sessions, meter: &meter, request_id };
    match admission::decide(&head, Body::NotRead, rules, NOW) {
        Decision::Forward(admitted) => admitted,
        other => panic!("{other:?}"),
    }
}

/// What is signed.
pub const TARGET: Target<'static> =
    Target { method: "POST", path: "/v1/chat", query: Some("stream=1"), body: None, request_id: "0123456789abcdef0123456789abcdef" };

/// Who signs.
pub fn signer(loaded: &Loaded) -> &Signer {
    &loaded.snapshot.upstreams.all().next().unwrap().signer
}

/// Makes the audit record of an admitted request.
pub fn record(parts: &Parts, loaded: &Loaded, admitted: &Admitted, line: &mut Vec<u8>) {
    use doorward::observe::audit::Record;
    use doorward::observe::metrics::Outcome;
    line.clear();
    let record = Record {
        at: NOW,
        request_id: TARGET.request_id,
        generation: 1,
        tenant: Some(admitted.tenant()),
        rules: loaded.snapshot.tenants.prints_of(&admitted.tenant().id),
        origin: admitted.origin(),
        client: Some(std::net::IpAddr::from([127, 0, 0, 1])),
        client_certificate: None,
        forward_auth: None,
        method: parts.method.as_str(),
        path: parts.uri.path(),
        upgrade: false,
        status: Some(200),
        outcome: Outcome::Forwarded(admitted.caller().level()),
        denied: None,
        upstream: Some("default"),
        admitted: Some(admitted),
        caller: None,
        trace: None,
        subject: &loaded.snapshot.settings.audit_subject,
        latency: std::time::Duration::from_micros(1234),
    };
    record.write_to(line).unwrap();
}
