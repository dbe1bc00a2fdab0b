//! Criterion figures of the two things that happen to every request: deciding and signing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a bench that cannot start has nothing to measure
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use doorward::admission::{self, Admitted, Body, Decision, Rules};
use doorward::assertion::{Signer, Target};
use doorward::clock::UnixTime;
use doorward::config::{self, Loaded};
use doorward::limits::meter::Meter;
use doorward::request::RequestHead;
use doorward::revocations::Revocations;
use doorward::token::mint;
use http::request::Parts;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "test_secret_0123456789abcdef0123";
const KEY: &str = "pk_bench_0123456789abcdef";
const NOW: UnixTime = UnixTime::from_secs(1_760_000_000);

fn load(schemes: &str) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
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
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("doorward.toml", &config);
    write("assertion.key", "assertion_key_0123456789abcdef01");
    write("hmac.key", "hmac_secret_0123456789abcdef0123");
    write("jwt.key", SECRET);
    config::load(&directory.path().join("doorward.toml"), 1, &|_, _| Arc::default()).unwrap_or_else(|p| panic!("{}", p.rendered.join("\n")))
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

fn decide(parts: &Parts, loaded: &Loaded, revocations: &Revocations) -> Admitted {
    let head = RequestHead::parse(parts).unwrap();
    let snapshot = &loaded.snapshot;
    let meter = &Meter::unlimited();
    let rules = Rules {
        tenants: &snapshot.tenants,
        revocations,
        sessions: &snapshot.sessions,
        meter,
        request_id: "0123456789abcdef0123456789abcdef",
    };
    match admission::decide(&head, Body::NotRead, rules, NOW) {
        Decision::Forward(admitted) => admitted,
        other => panic!("{other:?}"),
    }
}

fn benches(c: &mut Criterion) {
    doorward::install_crypto();
    let revocations = Revocations::default();
    let claims = serde_json::json!({
        "sub": "user_123", "email": "ada@example.com", "name": "Ada Lovelace", "plan": "pro", "iat": 1_759_999_900, "exp": 1_760_000_300
    });
    let jwt = format!("Bearer {}", mint::jwt(SECRET.as_bytes(), jsonwebtoken::Algorithm::HS256, None, &claims).unwrap());
    let hmac = mint::hmac(b"hmac_secret_0123456789abcdef0123", "user_123");
    let callers = [
        ("anonymous", request(&[])),
        ("hmac", request(&[("x-user-id", "user_123"), ("x-user-token", &hmac)])),
        ("jwt_hs256", request(&[("authorization", &jwt)])),
    ];
    let signature = load("\"http-message-signatures\"");
    let assertion = load("\"jwt\"");
    let target =
        Target { method: "POST", path: "/v1/chat", query: Some("stream=1"), body: None, request_id: "0123456789abcdef0123456789abcdef" };

    let mut group = c.benchmark_group("decide");
    for (name, parts) in &callers {
        group.bench_function(*name, |b| b.iter(|| decide(black_box(parts), &signature, &revocations)));
    }
    group.finish();

    let mut group = c.benchmark_group("sign");
    for (scheme, loaded) in [("http_message_signatures", &signature), ("jwt", &assertion)] {
        for (name, parts) in &callers {
            let admitted = decide(parts, loaded, &revocations);
            let signer = signer_of(loaded);
            group.bench_function(format!("{scheme}/{name}"), |b| {
                b.iter(|| signer.sign(black_box(&admitted), &target, NOW).unwrap());
            });
        }
    }
    group.finish();

    c.bench_function("decide_and_sign/jwt_hs256", |b| {
        b.iter(|| {
            let admitted = decide(black_box(&callers[2].1), &signature, &revocations);
            signer_of(&signature).sign(&admitted, &target, NOW).unwrap()
        });
    });
}

fn signer_of(loaded: &Loaded) -> &Signer {
    &loaded.snapshot.upstreams.all().next().unwrap().signer
}

criterion_group!(admission_benches, benches);
criterion_main!(admission_benches);
