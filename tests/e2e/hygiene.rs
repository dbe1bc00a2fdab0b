//! What the parser lets through and we refuse, each beside its harmless twin (`threats` 24 to 27).

use std::io::{Read as _, Write as _};
use std::time::Instant;

use crate::gateway::{Gateway, KEY, ORIGIN, halo, until};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

/// A request whose every line is given, with key and origin that are fine.
fn raw(line: &str, headers: &str, rest: &str) -> Vec<u8> {
    format!("{line}\r\n{headers}X-Embed: 1\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\n\r\n{rest}").into_bytes()
}

/// Whether the connection ended, rather than the test's patience.
fn is_closed(connection: &mut Connection) -> bool {
    let since = Instant::now();
    connection.more().is_none() && since.elapsed() < http::PATIENCE
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
        ("GET /a?b=%20c HTTP/1.1", "Host: h\r\nX-Y:\ta b\u{e9} \r\nX-Empty:\r\n", ""),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: 0\r\n", ""),
        ("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked\r\n", "2;a=b\r\nhi\r\n0;c\r\n\r\n"),
        ("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked\r\n", "2;a=\" ;\\\"\";b\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ("POST /a HTTP/1.1", "Host: h\r\nTransfer-Encoding: chunked\r\n", "A\r\n0123456789\r\n01\r\n!\r\n000\r\n\r\n"),
    ] {
        let answer = http::send(gateway.address, raw(line, headers, rest));
        assert_eq!(answer.status, 200, "{line} {headers}: {answer:?}");
        // The same, in as many pieces as there are bytes.
        let mut connection = Connection::open(gateway.address);
        raw(line, headers, rest).iter().for_each(|byte| connection.send(&[*byte]).unwrap());
        assert_eq!(connection.answer("").map(|a| a.status), Some(200), "{line} {headers}");
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
        ("GET /a HTTP/1.1", "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n", "hi"),
        ("GET /a b HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a\x01 HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a\"<> b HTTP/1.1", "Host: h\r\n", ""),
        ("GET  /a HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a HTTP/1.1 ", "Host: h\r\n", ""),
        ("\r\n\r\nGET /a HTTP/1.1", "Host: h\r\n", ""),
        ("GET /a HTTP/1.1", "Host : h\r\n", ""),
        ("POST /a HTTP/1.1", "Host: h\r\nContent-Length: 02\r\n", "hi"),
    ] {
        let answer = http::send(gateway.address, raw(line, headers, rest));
        assert_eq!(answer.status, 400, "{line} {headers}: {answer:?}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    assert_eq!(upstream.connections(), 0);
}

const CHUNKED: &str = "Host: h\r\nTransfer-Encoding: chunked\r\n";
const BROKEN: [&str; 15] = [
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "5 ;a=b\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5;\nhello\r\n0\r\n\r\n",
    "5;bad[=x\r\nhello\r\n0\r\n\r\n",
    "5;\0ext\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\r\nhello\r\n0\r\n\r\n",
    "5;a=b\n\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0;\r\n\r\n",
    "5\r\nhello\r\n0\r\n folded: a\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-Y : a\r\n\r\n",
];

#[test]
fn chunked_framing_with_two_readings_is_refused_before_the_upstream_hears_of_it() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for body in BROKEN {
        let mut connection = Connection::open(gateway.address);
        connection.send(&raw("POST /a HTTP/1.1", CHUNKED, body)).unwrap();
        let answer = connection.answer("POST").unwrap();
        assert_eq!((answer.status, answer.reason()), (400, "request_malformed"), "{body:?}");
        assert!(is_closed(&mut connection), "{body:?}: the connection is closed");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn chunked_framing_that_breaks_on_the_way_is_refused_too() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for body in BROKEN {
        let mut connection = Connection::open(gateway.address);
        connection.send(&raw("POST /a HTTP/1.1", &format!("{CHUNKED}Expect: 100-continue\r\n"), "")).unwrap();
        assert_eq!(connection.head().map(|h| h.0), Some(100));
        connection.send(body.as_bytes()).unwrap();
        let answer = connection.answer("POST").unwrap();
        assert_eq!((answer.status, answer.reason()), (400, "request_malformed"), "{body:?}");
        assert_eq!(gateway.audit(answer.one("x-request-id"))["status"], 400, "{body:?}");
        assert!(is_closed(&mut connection), "{body:?}: the connection is closed");
    }
    assert!(upstream.seen().is_empty(), "no whole request: {:?}", upstream.seen());
}

#[test]
fn one_connection_carries_every_framing_in_turn() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let requests = [
        raw("POST /length HTTP/1.1", "Host: h\r\nContent-Length: 2\r\n", "{}"),
        raw("POST /chunked HTTP/1.1", CHUNKED, "2;a=b\r\n{}\r\n0\r\nX-Y: z\r\n\r\n"),
        raw("GET /none HTTP/1.1", "Host: h\r\n", ""),
        raw("\r\nGET /after-an-empty-line HTTP/1.1", "Host: h\r\n", ""),
        raw("POST /denied HTTP/1.1", "Host: h\r\nX-Y_Z: 1\r\nContent-Length: 2\r\n", "hi"),
        raw("GET /last HTTP/1.1", "Host: h\r\n", ""),
    ];
    let statuses = [200, 200, 200, 200, 400, 200];
    let targets = ["/length", "/chunked", "/none", "/after-an-empty-line", "/last"];
    let mut connection = Connection::open(gateway.address);
    for (request, status) in requests.iter().zip(statuses) {
        connection.send(request).unwrap();
        assert_eq!(connection.answer("").unwrap().status, status, "{:?}", String::from_utf8_lossy(request));
    }
    let seen = |from: usize| upstream.seen().get(from..).unwrap().iter().map(|s| s.target.clone()).collect::<Vec<_>>();
    assert_eq!(seen(0), targets);
    // The same in one segment: each is judged on its own, in its turn.
    let mut connection = Connection::open(gateway.address);
    connection.send(&requests.concat()).unwrap();
    assert_eq!(statuses.map(|_| connection.answer("").unwrap().status), statuses);
    assert_eq!(seen(targets.len()), targets);
}

#[test]
fn a_refused_request_ends_the_connection_and_those_before_it_are_answered() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for bad in [
        raw("GET /a b HTTP/1.1", "Host: h\r\n", ""),
        raw("POST /bad HTTP/1.1", CHUNKED, "5;\r\nhello\r\n0\r\n\r\n"),
        raw("POST /bad HTTP/1.1", "Host: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ] {
        let good = raw("GET /good HTTP/1.1", "Host: h\r\n", "");
        let mut connection = Connection::open(gateway.address);
        connection.send(&good).unwrap();
        assert_eq!(connection.answer("GET").unwrap().status, 200);
        connection.send(&[&bad[..], &good].concat()).unwrap();
        assert_eq!(connection.answer("GET").unwrap().status, 400);
        assert!(is_closed(&mut connection));
        let mut connection = Connection::open(gateway.address);
        connection.send(&[&good[..], &bad, &good].concat()).unwrap();
        // A body that breaks while the first request waits for its answer may take that answer with it.
        while let Some(answer) = connection.answer("GET") {
            assert!(matches!(answer.status, 200 | 400), "{answer:?}");
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/good"));
}

#[test]
fn a_request_that_comes_while_another_is_answered_waits_for_its_turn() {
    let (answer, answered) = std::sync::mpsc::channel::<()>();
    let answered = std::sync::Mutex::new(answered);
    let upstream = Upstream::start(move |_, stream| {
        answered.lock().unwrap().recv_timeout(http::PATIENCE).map_err(std::io::Error::other)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let mut connection = Connection::open(gateway.address);
    connection.send(&raw("GET /first HTTP/1.1", "Host: h\r\n", "")).unwrap();
    until("the first request", || (upstream.seen().len() == 1).then_some(()));
    connection.send(&raw("GET /second HTTP/1.1", "Host: h\r\n", "")).unwrap();
    answer.send(()).unwrap();
    assert_eq!(connection.answer("GET").unwrap().status, 200);
    answer.send(()).unwrap();
    assert_eq!(connection.answer("GET").unwrap().status, 200);
    assert_eq!(upstream.last().target, "/second");
}

const HANDSHAKE: &str =
    "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n";

#[test]
fn after_a_handshake_the_bytes_are_another_protocol() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes)? {
                0 => return Err(std::io::Error::other("the end")),
                n => stream.write_all(&bytes[..n])?,
            }
        }
    });
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let mut connection = Connection::open(gateway.address);
    connection.send(&raw("GET /ws HTTP/1.1", HANDSHAKE, "")).unwrap();
    assert_eq!(connection.head().map(|h| h.0), Some(101));
    for message in [&b"\x81\x05hello"[..], b"GET /a b\n\n\0\r\r\n\r\n", b"5;\r\n"] {
        connection.send(message).unwrap();
        assert_eq!(connection.take(message.len()).as_deref(), Some(message));
    }
}

#[test]
fn after_a_refused_handshake_no_request_is_served() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let next = String::from_utf8(raw("GET /next HTTP/1.1", "Host: h\r\n", "")).unwrap();
    for origin in [ORIGIN, "https://evil.example"] {
        let handshake = raw("GET /ws HTTP/1.1", HANDSHAKE, &next);
        let handshake = String::from_utf8(handshake).unwrap().replacen(ORIGIN, origin, 1);
        let mut connection = Connection::open(gateway.address);
        connection.send(handshake.as_bytes()).unwrap();
        assert_eq!(connection.answer("GET").unwrap().status, if origin == ORIGIN { 200 } else { 403 });
        assert!(is_closed(&mut connection), "{origin}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/ws"));
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

#[test]
fn a_connection_is_kept_only_as_the_client_asks() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for (line, headers, kept) in [
        ("GET /a HTTP/1.1", "", true),
        ("GET /a HTTP/1.1", "Connection: close\r\n", false),
        ("GET /a HTTP/1.0", "", false),
        ("GET /a HTTP/1.0", "Connection: keep-alive\r\n", true),
    ] {
        let mut connection = Connection::open(gateway.address);
        let request = raw(line, &format!("Host: h\r\n{headers}"), "");
        connection.send(&request).unwrap();
        assert_eq!(connection.answer("GET").unwrap().status, 200);
        if kept {
            connection.send(&request).unwrap();
            assert_eq!(connection.answer("GET").unwrap().status, 200, "{line} {headers}");
        } else {
            assert!(is_closed(&mut connection), "{line} {headers}");
        }
    }
}

#[test]
fn only_100_continue_is_answered_with_100() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for (expected, first) in [("100-Continue", 100), ("200-ok", 200)] {
        let mut connection = Connection::open(gateway.address);
        connection.send(&raw("GET /a HTTP/1.1", &format!("Host: h\r\nExpect: {expected}\r\n"), "")).unwrap();
        assert_eq!(connection.head().map(|h| h.0), Some(first), "{expected}");
    }
}

#[test]
fn draining_closes_an_idle_connection_while_another_is_still_served() {
    let (answer, answered) = std::sync::mpsc::channel::<()>();
    let answered = std::sync::Mutex::new(answered);
    let upstream = Upstream::start(move |_, stream| {
        answered.lock().unwrap().recv_timeout(http::PATIENCE).map_err(std::io::Error::other)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let mut gateway = Gateway::start(&halo(upstream.address(), ""));
    let (mut idle, mut busy) = (Connection::open(gateway.address), Connection::open(gateway.address));
    idle.send(&raw("GET /idle HTTP/1.1", "Host: h\r\n", "")).unwrap();
    answer.send(()).unwrap();
    assert_eq!(idle.answer("GET").unwrap().status, 200);
    busy.send(&raw("GET /busy HTTP/1.1", "Host: h\r\n", "")).unwrap();
    until("the request in flight", || (upstream.seen().len() == 2).then_some(()));
    gateway.signal("TERM");
    assert!(is_closed(&mut idle));
    answer.send(()).unwrap();
    assert_eq!(busy.answer("GET").unwrap().status, 200);
    assert_eq!(gateway.wait(), 0);
}
