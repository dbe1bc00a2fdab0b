//! A request goes in with a token and comes out with a signed identity; what must stop, stops.

use serde_json::json;

use crate::gateway::{Gateway, KEY, ORIGIN, halo, in_seconds, jwt, jwt_with};
use crate::upstream::Upstream;

fn bearer() -> String {
    format!("Bearer {KEY}")
}

#[test]
fn a_verified_user_reaches_the_upstream_with_a_signed_identity() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let token = jwt(&json!({ "user_id": "user_123", "email": "a@example.com", "exp": in_seconds(300) }));
    let body = json!({ "message": "hi", "user_token": token, "user_id": "user_123" }).to_string();
    let headers = [("Authorization", bearer()), ("Origin", ORIGIN.to_owned()), ("Content-Type", "application/json".to_owned())];
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = gateway.ask("POST", "/api/sdk/chat?x=1", &headers, &body);
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"ok\":true}"), "{answer:?}\n{}", gateway.log());
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/api/sdk/chat?x=1"));
    assert_eq!(seen.body, body.as_bytes(), "the held body is replayed byte for byte");
    assert_eq!(seen.one("x-identity-level"), "verified");
    assert_eq!(seen.one("x-identity-subject"), "user_123");
    assert_eq!(seen.one("x-identity-tenant"), "acme");
    assert!(seen.all("authorization").is_empty(), "the client's credential stops here");
    assert!(seen.one("signature-input").contains("content-digest"), "a held body's digest is signed");
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN);
    assert_eq!(answer.one("cache-control"), "private");
    let record = gateway.audit(answer.one("x-request-id"));
    assert_eq!(
        (record["outcome"].as_str(), record["subject"].as_str(), record["secret"].as_str()),
        (Some("forwarded"), Some("user_123"), Some("s1"))
    );
    assert!(!gateway.audit_text().contains(&token), "no token in the audit");
}

#[test]
fn a_forged_token_is_denied_with_its_reason() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let token = jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "user_123", "exp": in_seconds(300) }));
    let body = json!({ "user_token": token }).to_string();
    let answer = gateway.ask("POST", "/api/sdk/chat", &[("Authorization", &bearer()), ("Origin", ORIGIN)], &body);
    assert_eq!((answer.status, answer.reason()), (403, "token_signature_invalid"), "Halo's clients act on 403");
    assert_eq!(answer.json()["reason"], "token_signature_invalid");
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN, "the page can read why");
    assert_eq!(answer.one("cache-control"), "no-store");
    assert!(upstream.seen().is_empty());
    gateway.counted(r#"doorward_requests_total{level="",outcome="denied",reason="token_signature_invalid",tenant="acme"}"#, 1.0);
}
