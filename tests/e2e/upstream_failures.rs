//! Addresses that fail: left alone, checked, tried again; and which requests may be sent twice.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::gateway::{Gateway, KEY, ORIGIN, until};
use crate::http::{self, Answer, Connection};
use crate::upstream::{Seen, Upstream};
use crate::upstreams::{FORWARDED, addresses, ask, asked, config, fresh, standings};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn standing(gateway: &Gateway, address: SocketAddr) -> String {
    let all = standings(gateway, "default");
    all.into_iter().find(|(at, _)| *at == address.to_string()).map(|(_, standing)| standing).expect("the address")
}

#[track_caller]
fn stands(gateway: &Gateway, address: SocketAddr, wanted: &str) {
    until(wanted, || (standing(gateway, address) == wanted).then_some(()));
}

fn post(gateway: &Gateway, body: &str) -> Answer {
    gateway.ask("POST", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], body)
}

#[test]
fn an_address_that_refuses_is_left_alone_and_comes_back() {
    let (upstream, gone) = (fresh(), nobody());
    let ejection = "[upstream.ejection]\nfailures = 3\nperiod = \"1s\"\nlongest = \"1s\"";
    let gateway = Gateway::start(&config(&format!("{}\n{ejection}", addresses(&[gone, upstream.address()])), "", ""));
    for n in 0..12 {
        // Nothing was sent where nobody took the connection: a POST may go elsewhere too.
        let answer = post(&gateway, "{\"message\":\"hi\"}");
        assert_eq!(answer.status, 200, "{n}: {answer:?}\n{}", gateway.log());
    }
    assert_eq!(upstream.seen().len(), 12, "each was sent once");
    assert!(upstream.seen().iter().all(|seen| seen.body == b"{\"message\":\"hi\"}"));
    assert!(gateway.metric("doorward_upstream_ejections_total{upstream=\"default\"}") >= 1.0);
    assert!(gateway.metric("doorward_upstream_retries_total{upstream=\"default\"}") >= 3.0);
    let told = gateway.admin("/status").json();
    let found = told["upstreams"][0]["addresses"].as_array().unwrap().iter().find(|a| a["address"] == gone.to_string()).unwrap();
    assert_eq!(found["last_error"]["what"], "ConnectRefused", "{found}");
    stands(&gateway, gone, "available");
    // Somebody listens there now, and gets requests.
    let back = Upstream::at(gone);
    until("a request", || {
        asked(&gateway, "/b");
        (!back.seen().is_empty()).then_some(())
    });
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[test]
fn held_bodies_are_whole_at_the_next_address() {
    let (upstream, gone) = (fresh(), nobody());
    let ejection = "[upstream.ejection]\nfailures = 0";
    let gateway = Gateway::start(&config(&format!("{}\n{ejection}", addresses(&[gone, upstream.address()])), "", ""));
    let filler = "x".repeat(200_000); // more than the framework replays by itself
    for body in [r#"{"message":"hi"}"#.to_owned(), format!("{{\"message\":\"{filler}\"}}")] {
        for _ in 0..2 {
            upstream.forget();
            let answer = gateway.ask("POST", "/api/sdk/chat", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], &body);
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = upstream.last();
            assert!(seen.body == body.as_bytes(), "{} of {} bytes", seen.body.len(), body.len());
            assert!(seen.one("signature-input").contains("content-digest"));
        }
    }
}

#[test]
fn every_try_is_signed_anew_and_there_are_few() {
    let all: Vec<_> = (0..5).map(|_| nobody()).collect();
    for (retries, tries) in [(0, 1), (2, 3), (10, 5)] {
        let ejection = "[upstream.ejection]\nfailures = 0";
        let gateway = Gateway::start(&config(&format!("{}\nretries = {retries}\n{ejection}", addresses(&all)), "", ""));
        let answer = ask(&gateway, "/a", &[]);
        assert_eq!((answer.status, answer.reason()), (502, "upstream_unreachable"));
        assert_eq!(gateway.metric("doorward_upstream_retries_total{upstream=\"default\"}"), f64::from(tries - 1));
    }
}

/// Answers the first request of a connection and closes at the next, unanswered.
fn once_per_connection() -> Upstream {
    let asked = Mutex::<HashMap<SocketAddr, usize>>::default();
    Upstream::start(move |_, stream| {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(stream.peer_addr()?).or_default();
        *count += 1;
        if *count > 1 {
            return Err(std::io::Error::other("hang up"));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })
}

fn nonce(seen: &Seen) -> String {
    seen.one("signature-input").split("nonce=").nth(1).unwrap().to_owned()
}

#[test]
fn what_changes_nothing_is_sent_again_where_a_kept_connection_had_gone_and_nothing_else_is() {
    for (method, body, sent_again) in [
        ("GET", "", true),
        ("HEAD", "", true),
        ("POST", "", false),
        ("POST", "{}", false),
        ("PUT", "{}", false),
        ("DELETE", "", false),
        ("OPTIONS", "", false),
        ("GET", "{}", false),
    ] {
        let upstream = once_per_connection();
        let gateway = Gateway::start(&config(&format!("address = \"{}\"\nidle_timeout = \"1m\"", upstream.address()), "", ""));
        asked(&gateway, "/first");
        // Counted when its connection is kept.
        gateway.counted(FORWARDED, 1.0);
        let answer = gateway.ask(method, "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], body);
        let seen: Vec<_> = upstream.seen().into_iter().filter(|seen| seen.target == "/a").collect();
        if sent_again {
            assert_eq!((answer.status, seen.len()), (200, 2), "{method} {body}: {answer:?}");
            assert_ne!(nonce(&seen[0]), nonce(&seen[1]), "signed anew");
        } else {
            assert_eq!((answer.status, answer.reason(), seen.len()), (502, "upstream_protocol", 1), "{method} {body}");
        }
        assert_eq!(standing(&gateway, upstream.address()), "available");
        let told = gateway.admin("/status").json();
        assert!(told["upstreams"][0]["addresses"][0]["last_error"].is_null(), "a stale connection says nothing about the address: {told}");
    }
}

#[test]
fn a_new_connection_that_breaks_is_not_tried_again() {
    let upstream = Upstream::start(|_, _| Err(std::io::Error::other("hang up")));
    let gateway = Gateway::start(&config(&addresses(&[upstream.address(), nobody()]), "", ""));
    let answers: Vec<_> = (0..4).map(|_| ask(&gateway, "/a", &[])).collect();
    assert!(answers.iter().all(|a| (a.status, a.reason()) == (502, "upstream_protocol")), "{answers:?}");
    assert_eq!(upstream.seen().len(), 4, "each request was sent once");
}

#[test]
fn statuses_count_where_the_operator_says_so() {
    for (statuses, ejected) in [("", false), ("statuses = [503]", true)] {
        let ill = Upstream::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let well = fresh();
        let ejection = format!("[upstream.ejection]\nfailures = 2\nperiod = \"1h\"\nlongest = \"1h\"\n{statuses}");
        let gateway = Gateway::start(&config(&format!("{}\n{ejection}", addresses(&[ill.address(), well.address()])), "", ""));
        let answers: Vec<_> = (0..12).map(|_| ask(&gateway, "/a", &[]).status).collect();
        assert_eq!(standing(&gateway, ill.address()), if ejected { "ejected" } else { "available" }, "{answers:?}");
        assert_eq!(answers.iter().filter(|status| **status == 503).count(), if ejected { 2 } else { 6 }, "{answers:?}");
    }
}

/// A client that goes away, or sends nonsense, says nothing about the backend.
#[test]
fn clients_cannot_have_an_address_left_alone() {
    let released = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&released);
    let slow = Upstream::start(move |_, stream| {
        until("the release", || open.load(Ordering::SeqCst).then_some(()));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    });
    let ejection = "[upstream.ejection]\nfailures = 1\nperiod = \"1h\"\nlongest = \"1h\"";
    let gateway = Gateway::start(&config(&format!("{}\n{ejection}", addresses(&[slow.address(), nobody()])), "", ""));
    for n in 1..=4 {
        let mut connection = Connection::open(gateway.address);
        connection.send(&http::request("GET", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"")).unwrap();
        until("the request", || (slow.seen().len() == n).then_some(()));
        drop(connection);
    }
    gateway.counted(r#"doorward_requests_total{level="anonymous",outcome="failed",reason="client_disconnected",tenant="acme"}"#, 4.0);
    assert_eq!(standing(&gateway, slow.address()), "available");
    released.store(true, Ordering::SeqCst);
}

/// Answers checks as `well` says, and everything else.
fn checked(well: &Arc<AtomicBool>, checks: &Arc<AtomicUsize>) -> Upstream {
    let (well, checks) = (Arc::clone(well), Arc::clone(checks));
    Upstream::start(move |seen, stream| {
        let status = if seen.target == "/healthz?deep=1" {
            assert!(seen.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("x-identity")), "unsigned");
            assert_eq!(seen.one("host"), "agent.internal");
            checks.fetch_add(1, Ordering::SeqCst);
            if well.load(Ordering::SeqCst) { "204 No Content" } else { "503 Service Unavailable" }
        } else {
            "200 OK"
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    })
}

#[test]
fn checks_take_an_address_out_and_in() {
    let (well, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (a, b) = (checked(&well, &checks), checked(&Arc::new(AtomicBool::new(true)), &Arc::default()));
    let health = "host = \"agent.internal\"\n[upstream.health]\npath = \"/healthz?deep=1\"\ninterval = \"100ms\"\nhealthy_after = 2\nunhealthy_after = 2";
    let gateway = Gateway::start(&config(&format!("{}\n{health}", addresses(&[a.address(), b.address()])), "", ""));
    until("checks", || (checks.load(Ordering::SeqCst) > 2).then_some(()));
    assert_eq!(standing(&gateway, a.address()), "available");
    let served = |upstream: &Upstream| upstream.seen().iter().filter(|seen| seen.target == "/a").count();
    (0..4).for_each(|_| asked(&gateway, "/a"));
    assert_eq!((served(&a), served(&b)), (2, 2));
    well.store(false, Ordering::SeqCst);
    stands(&gateway, a.address(), "unhealthy");
    let (before, unhealthy) = (served(&a), r#"doorward_upstream_addresses{standing="unhealthy",upstream="default"}"#);
    assert_eq!(gateway.metric(unhealthy), 1.0);
    (0..4).for_each(|_| asked(&gateway, "/a"));
    assert_eq!(served(&a), before, "an unhealthy address gets nothing");
    let told = gateway.admin("/status").json();
    assert_eq!(
        told["upstreams"][0]["addresses"].as_array().unwrap().iter().filter(|x| x["last_error"]["what"] == "the check got 503").count(),
        1
    );
    well.store(true, Ordering::SeqCst);
    stands(&gateway, a.address(), "available");
    (0..4).for_each(|_| asked(&gateway, "/a"));
    assert!(served(&a) > before);
}

#[test]
fn a_check_without_a_path_is_a_connection() {
    let (upstream, gone) = (fresh(), nobody());
    let health = "[upstream.health]\ninterval = \"100ms\"\nunhealthy_after = 1\nhealthy_after = 1";
    let gateway = Gateway::start(&config(&format!("{}\n{health}", addresses(&[upstream.address(), gone])), "", ""));
    stands(&gateway, gone, "unhealthy");
    assert_eq!(standing(&gateway, upstream.address()), "available");
    let back = Upstream::at(gone);
    stands(&gateway, gone, "available");
    drop(back);
}

#[test]
fn where_every_address_is_out_every_address_is_tried() {
    let well = Arc::new(AtomicBool::new(false));
    let (a, b) = (checked(&well, &Arc::default()), checked(&well, &Arc::default()));
    let health = "host = \"agent.internal\"\n[upstream.health]\npath = \"/healthz?deep=1\"\ninterval = \"100ms\"\nunhealthy_after = 1";
    let gateway = Gateway::start(&config(&format!("{}\n{health}", addresses(&[a.address(), b.address()])), "", ""));
    stands(&gateway, a.address(), "unhealthy");
    stands(&gateway, b.address(), "unhealthy");
    (0..4).for_each(|_| asked(&gateway, "/a"));
    let served = |upstream: &Upstream| upstream.seen().iter().filter(|seen| seen.target == "/a").count();
    assert_eq!((served(&a), served(&b)), (2, 2));
}
