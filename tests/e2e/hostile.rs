//! A hostile or broken upstream gives a clean error, and its connection is not used again (`threats` 29).

use std::io::Write as _;

use crate::gateway::{Gateway, KEY, ORIGIN, halo};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

fn anonymous() -> Vec<u8> {
    http::request("GET", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"")
}

fn with(config: String, line: &str) -> String {
    config.replace("[assertion]", &format!("{line}\n[assertion]"))
}

#[test]
fn an_upstream_that_refuses_is_502() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(&halo(gone, ""));
    let answer = http::send(gateway.address, anonymous());
    assert_eq!((answer.status, answer.reason()), (502, "upstream_unreachable"));
    assert_eq!(answer.one("access-control-allow-origin"), ORIGIN);
    let metric = r#"doorward_requests_total{level="anonymous",outcome="failed",reason="upstream_unreachable",tenant="acme"}"#;
    gateway.counted(metric, 1.0);
}

#[test]
fn an_upstream_that_never_answers_is_504() {
    let upstream = Upstream::start(|_, _| {
        std::thread::park_timeout(http::PATIENCE);
        Err(std::io::Error::other("never"))
    });
    let gateway = Gateway::start(&with(halo(upstream.address(), ""), "read_timeout = \"200ms\""));
    let answer = http::send(gateway.address, anonymous());
    assert_eq!((answer.status, answer.reason()), (504, "upstream_timeout"));
}

#[test]
fn an_upstream_that_speaks_no_http_is_502() {
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n",
        b"",
    ] {
        let bytes = bytes.to_vec();
        let upstream = Upstream::start(move |_, stream| stream.write_all(&bytes).and_then(|()| Err(std::io::Error::other("hang up"))));
        let gateway = Gateway::start(&halo(upstream.address(), ""));
        let answer = http::send(gateway.address, anonymous());
        assert_eq!((answer.status, answer.reason()), (502, "upstream_protocol"));
    }
}

#[test]
fn an_endless_header_and_a_flood_of_1xx_come_to_an_end() {
    for flood in [&b"X-Filler: 0123456789abcdef0123456789abcdef\r\n"[..], b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let endless = flood.starts_with(b"X");
        let flood = flood.to_vec();
        let upstream = Upstream::start(move |_, stream| {
            if endless {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            }
            for _ in 0..200_000 {
                stream.write_all(&flood)?; // fails once the gateway hung up
            }
            Err(std::io::Error::other("done"))
        });
        let gateway = Gateway::start(&halo(upstream.address(), ""));
        let mut connection = Connection::open(gateway.address);
        connection.send(&anonymous()).unwrap();
        let answer = connection.answer("GET");
        assert!(answer.is_none_or(|a| a.status == 502), "a clean error or a closed connection");
    }
}

#[test]
fn an_answer_that_is_cut_off_is_not_passed_off_as_whole() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        Err(std::io::Error::other("reset"))
    });
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let mut connection = Connection::open(gateway.address);
    connection.send(&anonymous()).unwrap();
    assert_eq!(connection.head().map(|h| h.0), Some(200));
    assert!(connection.take(100).is_none(), "the client sees that it is cut off");
}
