//! What the parser lets through and we refuse, each beside its harmless twin (`threats` 24 to 27).

use crate::gateway::{Gateway, KEY, ORIGIN, halo};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

/// A request whose every line is given, with key and origin that are fine.
fn raw(line: &str, headers: &str, rest: &str) -> Vec<u8> {
    format!("{line}\r\n{headers}X-Embed: 1\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\n\r\n{rest}").into_bytes()
}

#[test]
fn harmless_requests_pass() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for (line, headers, rest) in [
        ("GET /a HTTP/1.1", "Host: h\r\n", ""),
        ("GET http://h/a HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h:8080\r\n", ""),
        ("GET /a HTTP/1.1", "Host: [::1]:8080\r\n", ""),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: 2\r\n", "hi"),
        ("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("GET /a HTTP/1.1", "Host: h\r\nConnection: keep-alive\r\n", ""),
        ("GET /%7Ea/%C3%A9 HTTP/1.1", "Host: h\r\n", ""),
        ("OPTIONS * HTTP/1.1", "Host: h\r\n", ""),
    ] {
        let answer = http::send(gateway.address, raw(line, headers, rest));
        assert_eq!(answer.status, 200, "{line} {headers}: {answer:?}");
    }
}

#[test]
fn requests_with_two_readings_are_refused_before_the_upstream_hears_of_them() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for (line, headers, rest) in [
        ("GET /a HTTP/1.1", "", ""),
        ("GET /a HTTP/1.1", "Host: h\r\nHost: h\r\n", ""),
        ("GET /a HTTP/1.1", "Host:\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h, g\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h/path\r\n", ""),
        ("GET /a HTTP/1.1", "Host: user@h\r\n", ""),
        ("GET http://other/a HTTP/1.1", "Host: h\r\n", ""),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n", "hi"),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: 2, 2\r\n", "hi"),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: +2\r\n", "hi"),
        ("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: gzip, chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("GET /a HTTP/1.1", "Host: h\nX-Y: bare line feed\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h\r\nX-Y: a\r\n folded\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h\r\nX_Identity_Subject: mallory\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h\r\nConnection: X-Identity-Subject\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h\r\nConnection: close, Authorization\r\n", ""),
        ("GET /a#b HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a/../b HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a/%2e%2e/b HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a%2fb HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a//b HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a%252e HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a;b HTTP/1.1", "Host: h\r\n", ""),
        ("TRACE /a HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a HTTP/1.1", "Host: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n", ""),
    ] {
        let answer = http::send(gateway.address, raw(line, headers, rest));
        assert_eq!(answer.status, 400, "{line} {headers}: {answer:?}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_path_that_is_judged_is_the_path_that_is_sent() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    assert_eq!(http::send(gateway.address, raw("GET /%61pi/%7ex?q=%61 HTTP/1.1", "Host: h\r\n", "")).status, 200);
    assert_eq!(upstream.last().target, "/api/~x?q=%61");
    assert_eq!(http::send(gateway.address, raw("GET http://h/abs HTTP/1.1", "Host: h\r\n", "")).status, 200);
    assert_eq!(upstream.last().target, "/abs");
}

#[test]
fn reserved_headers_never_come_from_a_client() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let spoofed = "Host: h\r\nX-Identity-Subject: mallory\r\nx-identity-LEVEL: verified\r\nX-IDENTITY-Claims: e30\r\nX-Doorward-Anything: 1\r\n\
        Signature: doorward=:AAAA:\r\nSignature-Input: mallory=()\r\nX-Auth-Request-User: mallory\r\nRemote-User: mallory\r\nX-HTTP-Method-Override: DELETE\r\n\
        X-Original-URL: /admin\r\nX-IdentitySubject: mallory\r\nX-Forwarded-For: 1.2.3.4\r\n";
    assert_eq!(http::send(gateway.address, raw("GET /a HTTP/1.1", spoofed, "")).status, 200);
    let seen = upstream.last();
    assert_eq!(seen.one("x-identity-level"), "anonymous");
    assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
    assert!(!format!("{seen:?}").contains("mallory"), "{seen:?}");
    for name in
        ["x-identity-subject", "x-identity-claims", "x-doorward-anything", "x-http-method-override", "x-original-url", "x-identitysubject"]
    {
        assert!(seen.all(name).is_empty(), "{name}");
    }
}

#[test]
fn a_trailer_field_is_not_a_header() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let rest = "2\r\nhi\r\n0\r\nX-Identity-Subject: mallory\r\n\r\n";
    let answer = http::send(gateway.address, raw("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked\r\n", rest));
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    assert!(upstream.seen().iter().all(|seen| !format!("{seen:?}").contains("mallory")));
}

#[test]
fn after_a_denial_the_next_request_on_the_connection_is_judged_on_its_own() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let mut connection = Connection::open(gateway.address);
    let denied = format!(
        "POST /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nOrigin: https://evil.example\r\nContent-Length: 2\r\n\r\nhi"
    );
    connection.send(denied.as_bytes()).unwrap();
    assert_eq!(connection.answer("POST").unwrap().status, 403);
    connection.send(&raw("GET /next HTTP/1.1", "Host: h\r\n", "")).unwrap();
    assert_eq!(connection.answer("GET").unwrap().status, 200);
    assert_eq!(upstream.last().target, "/next");
    assert_eq!(upstream.seen().len(), 1);
}
