//! CORS belongs to the gateway, on every answer that it writes or passes.

use crate::gateway::{Gateway, KEY, ORIGIN, halo};
use crate::upstream::Upstream;

#[test]
fn a_preflight_is_answered_without_the_upstream() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let wanted = [("Origin", ORIGIN), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")];
    let answer = gateway.ask("OPTIONS", "/api/sdk/chat", &wanted, "");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN);
    assert!(answer.one("access-control-allow-headers").split(", ").any(|h| h == "authorization"));
    assert!(answer.one("access-control-allow-methods").contains("POST"));
    assert!(answer.one("vary").contains("Origin"));
    assert!(answer.all("access-control-allow-credentials").is_empty(), "no cookies here");
    let stranger = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")];
    let answer = gateway.ask("OPTIONS", "/api/sdk/chat", &stranger, "");
    assert_eq!((answer.status, answer.reason()), (403, "origin_not_allowed"));
    assert!(answer.all("access-control-allow-origin").is_empty());
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_bare_options_is_an_ordinary_request() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let bearer = format!("Bearer {KEY}");
    assert_eq!(gateway.ask("OPTIONS", "/a", &[("Authorization", &bearer), ("Origin", ORIGIN)], "").status, 200);
    assert_eq!(upstream.last().method, "OPTIONS");
}

#[test]
fn the_upstream_cannot_widen_cors_or_speak_in_our_names() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nX-Identity-Subject: mallory\r\n\
         X-Doorward-Reason: none\r\nVary: Accept\r\nCache-Control: public, max-age=60\r\nX-Session-Id: s\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let bearer = format!("Bearer {KEY}");
    let answer = gateway.ask("GET", "/a", &[("Authorization", &bearer), ("Origin", ORIGIN)], "");
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN);
    assert!(answer.all("access-control-allow-credentials").is_empty());
    assert!(answer.all("x-identity-subject").is_empty());
    assert!(answer.all("x-doorward-reason").is_empty());
    assert_eq!(answer.all("vary"), ["Accept", "Origin"]);
    assert_eq!(answer.one("cache-control"), "public, max-age=60", "an anonymous answer stays cacheable");
    let exposed = answer.one("access-control-expose-headers");
    assert!(
        ["x-request-id", "x-doorward-reason", "www-authenticate", "retry-after", "x-session-id"].iter().all(|h| exposed.contains(h)),
        "{exposed}"
    );
}

#[test]
fn denials_are_readable_by_the_page_that_may_know() {
    let upstream = Upstream::plain();
    let other = "[[tenant]]\nid = \"beta\"\npreset = \"halo\"\nembed_keys = [\"ab_live_beta_0123456789\"]\norigins = [\"https://beta.example.com\"]\n\
                 secrets = [{ id = \"s1\", file = \"beta.key\" }]";
    let gateway = Gateway::start_with(&halo(upstream.address(), other), &[("beta.key", "beta_secret_0123456789abcdef0123")]);
    // Before the tenant is known: any tenant's page.
    let answer = gateway.ask("GET", "/a", &[("Origin", "https://beta.example.com")], "");
    assert_eq!((answer.reason(), answer.one("access-control-allow-origin")), ("embed_key_missing", "https://beta.example.com"));
    // Afterwards: this tenant's only.
    let bearer = format!("Bearer {KEY}");
    let answer = gateway.ask("GET", "/a", &[("Authorization", &bearer), ("Origin", "https://beta.example.com")], "");
    assert_eq!(answer.reason(), "origin_not_allowed");
    assert!(answer.all("access-control-allow-origin").is_empty());
    assert_eq!(answer.one("vary"), "Origin");
}
