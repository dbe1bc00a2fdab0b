//! Held bodies: replayed byte for byte at every size around the framework's buffer, or refused whole.

use serde_json::json;

use crate::gateway::{Gateway, KEY, ORIGIN, halo, in_seconds, jwt};
use crate::http;
use crate::upstream::Upstream;

const KIB: usize = 1024;

/// A chat body of exactly this many bytes with a good token in it.
fn chat(size: usize) -> Vec<u8> {
    let token = jwt(&json!({ "user_id": "user_123", "exp": in_seconds(300) }));
    let shell = json!({ "user_token": token, "user_id": "user_123", "message": "" }).to_string();
    let filler: String = (0..size - shell.len()).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    json!({ "user_token": token, "user_id": "user_123", "message": filler }).to_string().into_bytes()
}

fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut bytes = format!(
        "POST /api/sdk/chat HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(piece) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn with_length(body: &[u8]) -> Vec<u8> {
    http::request("POST", "/api/sdk/chat", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], body)
}

#[test]
fn bodies_of_every_size_up_to_the_limit_are_replayed_byte_for_byte() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for size in [512, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB, 128 * KIB + 1, 200_000, KIB * KIB - 1, KIB * KIB] {
        let body = chat(size);
        assert_eq!(body.len(), size);
        let answer = http::send(gateway.address, with_length(&body));
        assert_eq!(answer.status, 200, "{size} bytes: {answer:?}");
        let seen = upstream.last();
        assert!(seen.body == body, "{size} bytes came as {}", seen.body.len());
        assert_eq!(seen.one("x-identity-subject"), "user_123");
        assert!(seen.one("signature-input").contains("content-digest"));
    }
}

#[test]
fn a_body_that_trickles_in_is_replayed_whole() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let body = chat(150_001);
    let mut connection = http::Connection::open(gateway.address);
    for piece in with_length(&body).chunks(7919) {
        connection.send(piece).unwrap();
    }
    assert_eq!(connection.answer("POST").unwrap().status, 200);
    assert!(upstream.last().body == body);
}

#[test]
fn chunked_bodies_are_held_up_to_64_kib() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for (size, piece) in [(512, 5), (64 * KIB, 4096), (64 * KIB, 65536)] {
        let body = chat(size);
        let answer = http::send(gateway.address, chunked(&body, piece));
        assert_eq!(answer.status, 200, "{size} in {piece}: {answer:?}");
        assert!(upstream.last().body == body, "{size} in {piece}");
    }
    let answer = http::send(gateway.address, chunked(&chat(64 * KIB + 1), 4096));
    assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
}

#[test]
fn what_is_larger_than_the_hold_is_refused_in_enforce_without_being_read() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let head = format!(
        "POST /api/sdk/chat HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\nContent-Length: 1048577\r\n\r\n"
    );
    let answer = http::send(gateway.address, head);
    assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn what_is_larger_than_the_hold_is_forwarded_unread_in_monitor() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), "mode = \"monitor\""));
    let body = chat(KIB * KIB + 1);
    let answer = http::send(gateway.address, with_length(&body));
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = upstream.last();
    assert!(seen.body == body);
    assert_eq!(seen.one("x-identity-level"), "anonymous");
    assert!(!seen.one("signature-input").contains("content-digest"), "what was not read is not vouched for");
    let body = chat(100_000);
    let answer = http::send(gateway.address, chunked(&body, 3000));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(upstream.last().body == body, "the part that was read comes first");
    gateway.counted(r#"doorward_would_deny_total{reason="body_too_large",tenant="acme"}"#, 2.0);
}

#[test]
fn a_body_that_does_not_arrive_ends_the_request_at_its_deadline() {
    let upstream = Upstream::plain();
    let config = halo(upstream.address(), "").replace("threads = 2", "threads = 2\nbody_timeout = \"200ms\"");
    let gateway = Gateway::start(&config);
    let head = format!(
        "POST /api/sdk/chat HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\nContent-Length: 100\r\n\r\n{{"
    );
    let answer = http::send(gateway.address, head);
    assert_eq!((answer.status, answer.reason()), (408, "body_timeout"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn key_and_origin_are_decided_before_the_body_is_awaited() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let head = |key: &str, origin: &str| {
        format!("POST /api/sdk/chat HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\nOrigin: {origin}\r\nContent-Length: 100\r\n\r\n")
    };
    assert_eq!(http::send(gateway.address, head("ab_live_unknown_0123456", ORIGIN)).reason(), "embed_key_unknown");
    assert_eq!(http::send(gateway.address, head(KEY, "https://evil.example")).reason(), "origin_not_allowed");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for path in ["/api/sdk/chat", "/other"] {
        let body = chat(2000);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut connection = http::Connection::open(gateway.address);
        connection.send(head.as_bytes()).unwrap();
        assert_eq!(connection.head().map(|h| h.0), Some(100), "{path}");
        connection.send(&body).unwrap();
        assert_eq!(connection.answer("POST").unwrap().status, 200);
        assert!(upstream.last().body == body);
        assert!(upstream.last().all("expect").is_empty());
    }
}
