//! Each timeout towards a backend: what it cuts, what it says, and what it leaves alone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, KEY, ORIGIN, until};
use crate::http::{self, Answer, Connection, PATIENCE};
use crate::upstream::Upstream;
use crate::upstreams::{addresses, ask, asked, config, fresh, standings};

fn timed(upstream: &Upstream, lines: &str) -> Gateway {
    Gateway::start(&config(&format!("address = \"{}\"\n{lines}", upstream.address()), "", ""))
}

fn request(target: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let bearer = format!("Bearer {KEY}");
    let mut headers = vec![("Authorization", bearer.as_str()), ("Origin", ORIGIN)];
    headers.extend_from_slice(more);
    http::request("GET", target, &headers, b"")
}

/// The detail of a 504 in the audit record.
#[track_caller]
fn timed_out(gateway: &Gateway, answer: &Answer) -> String {
    assert_eq!((answer.status, answer.reason()), (504, "upstream_timeout"), "{answer:?}");
    gateway.audit(answer.one("x-request-id"))["detail"].as_str().unwrap_or_default().to_owned()
}

fn never() -> std::io::Result<()> {
    thread::park_timeout(PATIENCE);
    Err(std::io::Error::other("never"))
}

/// A listener whose queue is full: the system leaves the next connection unanswered.
fn full() -> (tokio::runtime::Runtime, tokio::net::TcpListener, Vec<TcpStream>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(1).unwrap()
    });
    let (address, mut queue) = (listener.local_addr().unwrap(), Vec::new());
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(stream);
        assert!(queue.len() < 100, "the queue does not fill");
    }
    (runtime, listener, queue)
}

#[test]
fn a_connection_that_does_not_come_about() {
    let (_runtime, listener, _queue) = full();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(&config(&format!("address = \"{address}\"\nconnect_timeout = \"300ms\""), "", ""));
    assert_eq!(timed_out(&gateway, &ask(&gateway, "/a", &[])), "no connection within connect_timeout");
    // A stream is no exception, and another address is tried.
    let events = [("Accept", "text/event-stream")];
    assert_eq!(timed_out(&gateway, &ask(&gateway, "/a", &events)), "no connection within connect_timeout");
    let upstream = fresh();
    let both = format!("{}\nconnect_timeout = \"300ms\"", addresses(&[address, upstream.address()]));
    let gateway = Gateway::start(&config(&both, "", ""));
    (0..3).for_each(|_| asked(&gateway, "/a"));
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn no_first_byte() {
    let upstream = Upstream::start(|seen, stream| {
        if seen.target == "/flood" {
            loop {
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?;
                thread::park_timeout(Duration::from_millis(50)); // fewer than end it by their number
            }
        }
        never()
    });
    let gateway = timed(&upstream, "first_byte_timeout = \"400ms\"");
    for (target, more) in [("/a", &[][..]), ("/a", &[("Accept", "text/event-stream")]), ("/flood", &[])] {
        assert_eq!(timed_out(&gateway, &ask(&gateway, target, more)), "no answer within first_byte_timeout", "{target}");
    }
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    assert_eq!(timed_out(&gateway, &ask(&gateway, "/ws", &upgrade)), "no answer within first_byte_timeout");
    assert_eq!(
        gateway.admin("/status").json()["upstreams"][0]["addresses"][0]["last_error"]["what"],
        "no answer within first_byte_timeout"
    );
}

/// The time in which a client sends its body is its own.
#[test]
fn a_slow_upload_is_no_missing_first_byte() {
    let upstream = fresh();
    let gateway = timed(&upstream, "first_byte_timeout = \"300ms\"");
    let mut connection = Connection::open(gateway.address);
    let head = format!("POST /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nOrigin: {ORIGIN}\r\nContent-Length: 10\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    for _ in 0..10 {
        thread::park_timeout(Duration::from_millis(100));
        connection.send(b"x").unwrap();
    }
    assert_eq!(connection.answer("POST").unwrap().status, 200);
    assert_eq!(upstream.last().body, b"xxxxxxxxxx");
}

#[test]
fn silence_within_an_answer() {
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let upstream = Upstream::start(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\n{framing}\r\n")?;
            stream.write_all(if framing.starts_with('T') { b"4\r\nhalf\r\n" } else { b"half" })?;
            never()
        });
        // The first byte may take longer than the others.
        let gateway = timed(&upstream, "first_byte_timeout = \"1m\"\nread_timeout = \"300ms\"");
        let mut connection = Connection::open(gateway.address);
        connection.send(&request("/a", &[])).unwrap();
        let (status, headers) = connection.head().unwrap();
        assert_eq!(status, 200);
        let id = headers.iter().find(|(name, _)| name == "x-request-id").unwrap().1.clone();
        assert!(connection.until(b"0\r\n\r\n").is_none(), "{framing}: cut off, and not passed off as whole");
        let record = gateway.audit(&id);
        assert_eq!(
            (record["reason"].as_str(), record["detail"].as_str()),
            (Some("upstream_timeout"), Some("silent within its answer for read_timeout"))
        );
    }
}

#[test]
fn an_answer_that_goes_on_for_too_long() {
    for framing in ["Transfer-Encoding: chunked\r\n", ""] {
        let upstream = Upstream::start(move |_, stream| {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n")?;
            loop {
                stream.write_all(if framing.is_empty() { b"drip" } else { b"4\r\ndrip\r\n" })?;
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        let gateway = timed(&upstream, "total_timeout = \"700ms\"");
        let mut connection = Connection::open(gateway.address);
        connection.send(&request("/a", &[])).unwrap();
        let (_, headers) = connection.head().unwrap();
        let id = headers.iter().find(|(name, _)| name == "x-request-id").unwrap().1.clone();
        assert!(connection.until(b"0\r\n\r\n").is_none(), "cut off, and not passed off as whole");
        let record = gateway.audit(&id);
        assert_eq!(
            (record["reason"].as_str(), record["detail"].as_str()),
            (Some("upstream_timeout"), Some("not over within total_timeout"))
        );
        assert!(gateway.admin("/status").json()["upstreams"][0]["addresses"][0]["last_error"].is_null(), "no fault of the address");
        // Who asks for a stream gets one.
        let (mut connection, started) = (Connection::open(gateway.address), Instant::now());
        connection.send(&request("/a", &[("Accept", "text/event-stream")])).unwrap();
        while started.elapsed() < Duration::from_millis(1500) {
            assert!(connection.more().is_some(), "it goes on");
        }
    }
}

#[test]
fn the_whole_time_counts_before_the_first_byte_too() {
    let upstream = Upstream::start(|_, _| never());
    let gateway = timed(&upstream, "total_timeout = \"400ms\"");
    assert_eq!(timed_out(&gateway, &ask(&gateway, "/a", &[])), "not over within total_timeout");
}

#[test]
fn a_backend_that_takes_no_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = thread::spawn(move || listener.accept().unwrap());
    let gateway = Gateway::start(&config(&format!("address = \"{address}\"\nwrite_timeout = \"400ms\""), "", ""));
    let body = vec![b'x'; 64 * 1024 * 1024]; // more than any socket buffer takes
    let mut connection = Connection::open(gateway.address);
    let _ = connection.send(&http::request("POST", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], &body));
    let answer = connection.answer("POST");
    if let Some(answer) = answer {
        assert_eq!(timed_out(&gateway, &answer), "took no bytes within write_timeout");
    }
    gateway.counted(r#"doorward_requests_total{level="anonymous",outcome="failed",reason="upstream_timeout",tenant="acme"}"#, 1.0);
    drop(kept);
}

#[test]
fn an_unused_connection_is_closed_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let backend = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = [0; 4096];
        assert!(stream.read(&mut read).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        stream.read(&mut read).unwrap()
    });
    let gateway = Gateway::start(&config(&format!("address = \"{address}\"\nidle_timeout = \"300ms\""), "", ""));
    asked(&gateway, "/a");
    assert_eq!(backend.join().unwrap(), 0, "the gateway closed it");
}

/// Unused connections outlive the deadlines of what they were used for.
#[test]
fn a_kept_connection_is_not_hung_up_on_for_its_last_request() {
    for (method, answer) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
    ] {
        let upstream = Upstream::answering(answer);
        let gateway = timed(&upstream, "total_timeout = \"300ms\"\nread_timeout = \"300ms\"\nidle_timeout = \"1m\"");
        let asked = || {
            let answer = gateway.ask(method, "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], "");
            assert!(answer.status < 300, "{answer:?}");
        };
        asked();
        thread::park_timeout(Duration::from_millis(800));
        asked();
        // Nothing follows on a connection that had a HEAD.
        assert_eq!(upstream.connections(), if method == "HEAD" { 2 } else { 1 }, "{answer}");
    }
}

/// A client that takes nothing for a while is not a silent backend.
#[test]
fn a_client_that_reads_slowly_is_not_the_backends_silence() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n")?;
        stream.write_all(&vec![b'x'; LENGTH])
    });
    let gateway = timed(&upstream, "read_timeout = \"300ms\"");
    let mut connection = Connection::open(gateway.address);
    connection.send(&request("/a", &[])).unwrap();
    assert_eq!(connection.head().unwrap().0, 200);
    thread::park_timeout(Duration::from_millis(1500));
    assert_eq!(connection.take(LENGTH).map(|body| body.len()), Some(LENGTH));
    assert_eq!(standings(&gateway, "default")[0].1, "available");
    assert!(gateway.admin("/status").json()["upstreams"][0]["addresses"][0]["last_error"].is_null());
}

#[test]
fn a_silent_address_is_left_alone_like_one_that_refuses() {
    let (silent, well) = (Upstream::start(|_, _| never()), fresh());
    let lines = format!(
        "{}\nfirst_byte_timeout = \"200ms\"\n[upstream.ejection]\nfailures = 2\nperiod = \"1h\"\nlongest = \"1h\"",
        addresses(&[silent.address(), well.address()])
    );
    let gateway = Gateway::start(&config(&lines, "", ""));
    until("the ejection", || {
        let _ = ask(&gateway, "/a", &[]);
        standings(&gateway, "default")
            .iter()
            .any(|(at, standing)| *at == silent.address().to_string() && standing == "ejected")
            .then_some(())
    });
    assert_eq!(silent.seen().len(), 2, "what was sent is not sent again");
    (0..4).for_each(|_| asked(&gateway, "/a"));
}
