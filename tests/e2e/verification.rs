//! What the upstream really got, judged by verifiers that nobody here wrote: every flipped byte, another method, path or
//! query, a missing covered header fails.

use doorward::secret::KeyBytes;
use serde_json::json;

use crate::gateway::{ASSERTION_KEY, Gateway, KEY, ORIGIN, halo, in_seconds, jwt};
use crate::upstream::{Seen, Upstream};
use crate::verifiers::{Captured, Verifier, assert_bound, changes, covered};

pub fn captured(seen: &Seen, key_id: &str, algorithm: &str) -> Captured {
    Captured {
        method: seen.method.clone(),
        target: seen.target.clone(),
        host: seen.one("host").to_owned(),
        headers: seen.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect(),
        body_b64: String::new(),
        key_id: key_id.to_owned(),
        key_b64: None,
        jwks: None,
        algorithm: algorithm.to_owned(),
    }
    .with_body(&seen.body)
}

/// Sends one verified and one anonymous request through the gateway and returns what the upstream got.
fn through(gateway: &Gateway, upstream: &Upstream) -> Vec<Seen> {
    let bearer = format!("Bearer {KEY}");
    let headers = [("Authorization", bearer.as_str()), ("Origin", ORIGIN), ("X-Identity-Subject", "mallory")];
    let token = jwt(&json!({ "user_id": "user_123", "name": "Ada", "exp": in_seconds(300) }));
    let body = json!({ "user_token": token, "message": "hi" }).to_string();
    assert_eq!(gateway.ask("POST", "/api/sdk/chat?stream=1&q=%20", &headers, &body).status, 200);
    assert_eq!(gateway.ask("GET", "/plain?a=1", &headers, "").status, 200);
    upstream.seen()
}

#[test]
fn http_message_signatures_hold_for_third_party_verifiers_and_break_with_any_change() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), "").replace("audience = \"agent\"", "audience = \"agent\"\nlifetime = \"60s\""));
    for seen in through(&gateway, &upstream) {
        let request = captured(&seen, "a1", "HS256").with_secret(ASSERTION_KEY.as_bytes());
        let mut changed = changes(&request, &covered(&request));
        if seen.body.is_empty() {
            assert!(seen.all("content-digest").is_empty());
        } else {
            changed.push(("another body".to_owned(), request.clone().with_body(b"{\"message\":\"bye\"}")));
        }
        assert!(changed.len() > 100, "every covered byte is tried: {}", changed.len());
        assert_bound(&Verifier::SIGNATURES, &request, &changed);
        // A header that nobody signed is no verifier's business but our examples'.
        let mut added = request.clone();
        added.headers.push(("x-identity-aal".to_owned(), "mfa".to_owned()));
        assert_bound(&Verifier::EXAMPLES, &request, &[("an added identity header".to_owned(), added)]);
    }
}

#[test]
fn jwt_assertions_hold_for_third_party_verifiers_and_break_with_any_change() {
    let keys = [
        ("HS256", ASSERTION_KEY.to_owned(), "assertion.key"),
        ("ES256", include_str!("../verifiers/p256.pem").to_owned(), "p256.pem"),
        ("EdDSA", include_str!("../verifiers/ed25519.pem").to_owned(), "ed25519.pem"),
    ];
    for (algorithm, material, file) in keys {
        let upstream = Upstream::plain();
        let config = halo(upstream.address(), "")
            .replace("schemes = [\"http-message-signatures\"]", "schemes = [\"jwt\"]\nlifetime = \"60s\"")
            .replace("file = \"assertion.key\"", &format!("file = \"{file}\", algorithm = \"{algorithm}\""));
        let gateway = Gateway::start_with(&config, &[(file, &material)]);
        for seen in through(&gateway, &upstream) {
            assert!(seen.headers.iter().all(|(n, _)| {
                let name = n.to_ascii_lowercase();
                !name.starts_with("x-identity-") || matches!(name.as_str(), "x-identity-assertion" | "x-identity-request-id")
            }));
            let mut request = captured(&seen, "a1", algorithm);
            if algorithm == "HS256" {
                request = request.with_secret(ASSERTION_KEY.as_bytes());
            } else {
                let published = gateway.admin("/jwks.json").json();
                assert_eq!(published["keys"].as_array().map(Vec::len), Some(1));
                request.jwks = Some(published);
            }
            let names = ["x-identity-assertion".to_owned(), "x-identity-request-id".to_owned()];
            assert_bound(&Verifier::JWTS, &request, &changes(&request, &names));
        }
    }
}

/// The reference verifier that the demo's agent uses sees the same, and refuses what a captured request could be turned into.
#[test]
fn the_reference_verifier_takes_what_came_and_refuses_what_was_added() {
    use doorward::clock;
    use doorward::demo::verify::{Received, Verifier as Reference};
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let verifier = Reference::new("a1", &KeyBytes::new(ASSERTION_KEY.as_bytes()), "agent").unwrap();
    for seen in through(&gateway, &upstream) {
        let mut headers = http::HeaderMap::new();
        for (name, value) in &seen.headers {
            headers.append(http::HeaderName::try_from(name.as_str()).unwrap(), value.parse().unwrap());
        }
        let (path, query) = seen.target.split_once('?').unwrap();
        let judge = |headers: &http::HeaderMap| {
            let received = Received { method: &seen.method, path, query: Some(query), headers, body: &seen.body };
            verifier.verify(&received, clock::read().unwrap()).map(|v| v.subject)
        };
        let expected = if seen.body.is_empty() { None } else { Some("user_123".to_owned()) };
        assert_eq!(judge(&headers).ok(), Some(expected));
        let mut added = headers.clone();
        added.insert("x-identity-aal", "mfa".parse().unwrap());
        assert!(judge(&added).is_err());
    }
}
