//! What one client may take: time for heads and bodies, connections, requests at once, requests per rule, and its share of a
//! day. Each attack is beside somebody harmless who is served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::gateway::{Gateway, KEY, ORIGIN, halo, in_seconds, jwt, until};
use crate::http::{Answer, Connection, request};
use crate::upstream::Upstream;

const HEADERS: [(&str, &str); 2] = [("Origin", ORIGIN), ("X-Embed-Key", KEY)];

/// A gateway with these `[server.limits]`, and these lines for its tenant.
fn start(upstream: SocketAddr, limits: &str, tenant: &str) -> Gateway {
    Gateway::start(&halo(upstream, tenant).replace("[upstream]", &format!("[server.limits]\n{limits}\n\n[upstream]")))
}

fn get() -> Vec<u8> {
    request("GET", "/chat", &HEADERS, b"")
}

fn token(subject: &str) -> String {
    format!("Bearer {}", jwt(&json!({ "user_id": subject, "exp": in_seconds(600) })))
}

fn ask_from(gateway: &Gateway, last: u8) -> Answer {
    let mut connection = Connection::open_from(Ipv4Addr::new(127, 0, 0, last), gateway.address);
    connection.send(&get()).unwrap();
    connection.answer("GET").unwrap()
}

/// Sends these bytes one by one, `pause` apart, until they are all sent or the other side closes; says how long it took.
fn trickle(connection: &mut Connection, bytes: impl IntoIterator<Item = u8>, pause: Duration) -> Duration {
    let started = Instant::now();
    for byte in bytes {
        if connection.send(&[byte]).is_err() {
            break;
        }
        thread::park_timeout(pause);
    }
    started.elapsed()
}

#[test]
fn a_slow_head_is_cut_off_and_an_idle_connection_is_not() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "header_timeout = \"1s\"", "");
    let mut patient = Connection::open(gateway.address);
    patient.send(&get()).unwrap();
    assert_eq!(patient.answer("GET").unwrap().status, 200);

    // Beginnings of a head in every shape that the watcher knows: nothing, some, and some behind a request that was served.
    let beginnings: [&[u8]; 3] = [b"", b"GET /chat HTTP/1.1\r\nX: ", b"\r\n\r\n"];
    for beginning in beginnings {
        let mut slow = Connection::open(gateway.address);
        slow.send(beginning).unwrap();
        let started = Instant::now();
        assert!(slow.head().is_none_or(|(status, _)| status == 400), "no answer but a refusal");
        assert!((0.8..5.0).contains(&started.elapsed().as_secs_f64()), "{:?} after {beginning:?}", started.elapsed());
    }
    let mut slow = Connection::open(gateway.address);
    slow.send(&get()).unwrap();
    assert_eq!(slow.answer("GET").unwrap().status, 200);
    let took =
        trickle(&mut slow, b"GET /chat HTTP/1.1\r\nX: ".iter().copied().chain(std::iter::repeat_n(b'a', 200)), Duration::from_millis(50));
    assert!((0.8..5.0).contains(&took.as_secs_f64()), "a byte now and then buys no time: {took:?}");
    gateway.counted("doorward_connections_cut_total{late=\"header\"}", 4.0);

    patient.send(&get()).unwrap();
    assert_eq!(patient.answer("GET").unwrap().status, 200, "idle for longer than a head may take");
    assert_eq!(gateway.metric("doorward_connections"), 1.0);
}

#[test]
fn what_an_answer_takes_is_no_head_that_is_late() {
    let upstream = Upstream::start(|seen, stream| {
        if seen.target == "/slow" {
            thread::park_timeout(Duration::from_millis(2500));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let gateway = start(upstream.address(), "header_timeout = \"1s\"", "");
    let mut connection = Connection::open(gateway.address);
    connection.send(&request("GET", "/slow", &HEADERS, b"")).unwrap();
    let (half, rest) = (get()[..20].to_vec(), get()[20..].to_vec());
    connection.send(&half).unwrap(); // the next request's beginning, which nobody reads yet
    assert_eq!(connection.answer("GET").unwrap().status, 200);
    connection.send(&rest).unwrap();
    assert_eq!(connection.answer("GET").unwrap().status, 200);
}

#[test]
fn a_connection_ends_after_its_requests_and_when_it_is_idle() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "keepalive_requests = 3\nkeepalive_timeout = \"1s\"", "");
    let mut connection = Connection::open(gateway.address);
    for last in [false, false, true] {
        connection.send(&get()).unwrap();
        let answer = connection.answer("GET").unwrap();
        assert_eq!(answer.all("connection").contains(&"close"), last, "{answer:?}");
    }
    assert!(connection.more().is_none());
    let mut idle = Connection::open(gateway.address);
    idle.send(&get()).unwrap();
    assert_eq!(idle.answer("GET").unwrap().status, 200);
    let started = Instant::now();
    assert!(idle.more().is_none() && started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_trickled_body_is_cut_off_whether_it_is_held_or_not() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "body_rate_window = \"1s\"", "");
    for (path, framing) in [
        ("/chat", "Content-Length: 5000\r\n\r\n"),
        ("/chat", "Transfer-Encoding: chunked\r\n\r\n1000\r\n"),
        ("/api/sdk/chat", "Content-Length: 5000\r\n\r\n"),
    ] {
        let mut slow = Connection::open(gateway.address);
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nOrigin: {ORIGIN}\r\nX-Embed-Key: {KEY}\r\n{framing}");
        slow.send(head.as_bytes()).unwrap();
        let took = trickle(&mut slow, std::iter::repeat_n(b' ', 40), Duration::from_millis(50));
        let answer = slow.answer("POST").unwrap();
        assert_eq!((answer.status, answer.reason()), (408, "body_too_slow"), "{path} {framing:?}");
        assert!(took < Duration::from_secs(5) && slow.more().is_none());
        assert_eq!(gateway.audit(answer.one("x-request-id"))["reason"], "body_too_slow");
    }
    gateway.counted("doorward_connections_cut_total{late=\"body\"}", 3.0);
    let body = vec![b' '; 300_000];
    assert_eq!(gateway.ask("POST", "/chat", &HEADERS, &body).status, 200);
    assert_eq!(upstream.last().body.len(), body.len());
}

#[test]
fn a_client_is_not_blamed_for_a_slow_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = start(listener.local_addr().unwrap(), "body_rate_window = \"1s\"\nbody_min_rate = \"1MiB\"", "");
    let length = 16 * 1024 * 1024;
    let reading = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        thread::park_timeout(Duration::from_millis(3500));
        let (mut left, mut buffer) = (length, vec![0; 64 * 1024]);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut buffer[..1]).unwrap();
            head.push(buffer[0]);
        }
        while left > 0 {
            left -= stream.read(&mut buffer).unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    assert_eq!(gateway.ask("POST", "/chat", &HEADERS, vec![b' '; length]).status, 200);
    reading.join().unwrap();
    assert_eq!(gateway.metric("doorward_connections_cut_total{late=\"body\"}"), 0.0);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n")?;
        let piece = [b' '; 64 * 1024];
        (0..4096).try_for_each(|_| stream.write_all(&piece))
    });
    let gateway = start(upstream.address(), "send_timeout = \"1s\"", "");
    let mut deaf = Connection::open(gateway.address);
    deaf.send(&get()).unwrap();
    assert_eq!(deaf.head().unwrap().0, 200);
    until("the request to end", || (gateway.metric("doorward_requests_in_flight") == 0.0).then_some(()));
    assert_eq!(gateway.metric("doorward_connections"), 0.0);
}

#[test]
fn one_connection_too_many_is_closed_at_once() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "max_connections_per_client = 2\nmax_connections = 3", "");
    let mut first = Connection::open(gateway.address);
    let mut second = Connection::open(gateway.address);
    for connection in [&mut first, &mut second] {
        connection.send(&get()).unwrap();
        assert_eq!(connection.answer("GET").unwrap().status, 200);
    }
    assert!(Connection::open(gateway.address).more().is_none());
    assert_eq!(gateway.metric("doorward_connections_refused_total{limit=\"max_connections_per_client\"}"), 1.0);
    let mut other = Connection::open_from(Ipv4Addr::new(127, 0, 0, 2), gateway.address);
    other.send(&get()).unwrap();
    assert_eq!(other.answer("GET").unwrap().status, 200, "another client has places of its own");
    assert!(Connection::open_from(Ipv4Addr::new(127, 0, 0, 3), gateway.address).more().is_none());
    assert_eq!(gateway.metric("doorward_connections_refused_total{limit=\"max_connections\"}"), 1.0);
    first.send(&get()).unwrap();
    assert_eq!(first.answer("GET").unwrap().status, 200, "those that are there stay");
    drop(first);
    until("the place to be free", || (gateway.metric("doorward_connections") == 2.0).then_some(()));
    assert_eq!(gateway.ask("GET", "/chat", &HEADERS, "").status, 200);
}

#[test]
fn more_requests_than_it_can_work_on_are_shed_and_then_it_recovers() {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.target == "/wait" {
            released.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let gateway = start(upstream.address(), "max_in_flight = 2", "");
    let mut waiting: Vec<_> = (0..2).map(|_| Connection::open(gateway.address)).collect();
    for connection in &mut waiting {
        connection.send(&request("GET", "/wait", &HEADERS, b"")).unwrap();
    }
    until("both to be upstream", || (upstream.seen().len() == 2).then_some(()));
    for _ in 0..5 {
        let shed = gateway.ask("POST", "/chat", &HEADERS, "{}");
        assert_eq!((shed.status, shed.reason(), shed.one("retry-after")), (503, "gateway_overloaded", "1"));
        assert_eq!(shed.one("access-control-allow-origin"), ORIGIN, "the page can read why");
    }
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(gateway.admin("/readyz").status, 200);
    for _ in &waiting {
        release.send(()).unwrap(); // whichever of the two takes it
    }
    for connection in &mut waiting {
        assert_eq!(connection.answer("GET").unwrap().status, 200);
    }
    until("its recovery", || (gateway.ask("GET", "/chat", &HEADERS, "").status == 200).then_some(()));
    gateway.counted("doorward_requests_total{level=\"\",outcome=\"denied\",reason=\"gateway_overloaded\",tenant=\"unknown\"}", 5.0);
}

const CLIENT: &str = "limit = [{ per = \"client\", requests = 6, period = \"1h\", burst = 3 }, { per = \"subject\", path = \"/dear/*\", requests = 2, period = \"1h\" }]";

#[test]
fn answers_say_what_is_left_and_when_to_come_back() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRateLimit: \"theirs\";r=1;t=1\r\n\r\nok");
    let gateway = start(upstream.address(), "", CLIENT);
    for left in [2, 1, 0] {
        let answer = gateway.ask("GET", "/chat", &HEADERS, "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.one("ratelimit-policy"), "\"client\";q=6;w=3600");
        assert_eq!(answer.one("ratelimit"), format!("\"client\";r={left};t=600"), "not the upstream's");
    }
    let refused = gateway.ask("GET", "/chat", &HEADERS, "");
    assert_eq!((refused.status, refused.reason()), (429, "rate_limited"));
    let wait: u64 = refused.one("retry-after").parse().unwrap();
    assert!((590..=600).contains(&wait), "{wait}");
    assert_eq!(refused.one("ratelimit"), format!("\"client\";r=0;t={wait}"));
    let exposed = refused.one("access-control-expose-headers");
    assert!(["ratelimit", "ratelimit-policy", "retry-after"].iter().all(|name| exposed.split(", ").any(|e| e == *name)), "{exposed}");
    assert_eq!(gateway.audit(refused.one("x-request-id"))["detail"], "limit client");
    assert_eq!(upstream.seen().len(), 3);
    assert_eq!(ask_from(&gateway, 2).status, 200, "another client");

    let config = std::fs::read_to_string(gateway.path("doorward.toml")).unwrap();
    gateway.write("doorward.toml", &config.replace("requests = 2,", "requests = 3,"));
    gateway.generation(2);
    assert_eq!(gateway.ask("GET", "/chat", &HEADERS, "").status, 429, "a reload forgets nothing");
}

#[test]
fn a_subject_has_one_limit_wherever_it_comes_from_and_forgeries_do_not_touch_it() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "", CLIENT);
    let ask = |last: u8, token: &str| {
        let mut connection = Connection::open_from(Ipv4Addr::new(127, 0, 0, last), gateway.address);
        connection.send(&request("GET", "/dear/x", &[HEADERS[0], HEADERS[1], ("Authorization", token)], b"")).unwrap();
        connection.answer("GET").unwrap()
    };
    let forged = format!("Bearer {}", crate::gateway::jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "ada" })));
    for last in 10..12 {
        (0..3).for_each(|_| assert_eq!(ask(last, &forged).reason(), "token_signature_invalid"));
        assert_eq!(ask(last, &forged).reason(), "rate_limited", "by its address, before the token is looked at");
    }
    assert_eq!(ask(2, &token("ada")).one("ratelimit"), "\"client\";r=2;t=600, \"subject\";r=1;t=1800");
    assert_eq!(ask(3, &token("ada")).status, 200);
    assert_eq!(ask(4, &token("ada")).reason(), "rate_limited");
    assert_eq!(ask(4, &token("bob")).status, 200);
}

#[test]
fn one_client_spends_its_share_of_the_day_and_others_are_served() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "", "anonymous = { requests_per_day = 40 }");
    assert_eq!(ask_from(&gateway, 1).one("ratelimit-policy"), "\"anonymous\";q=2;w=86400");
    assert_eq!(ask_from(&gateway, 1).status, 200);
    for _ in 0..50 {
        let refused = ask_from(&gateway, 1);
        assert_eq!((refused.status, refused.reason()), (429, "limit_reached"));
        assert_eq!(refused.json()["error"], "limit_reached");
        assert!((1..=86_400).contains(&refused.one("retry-after").parse::<u64>().unwrap()));
    }
    for client in 2..21 {
        assert_eq!((ask_from(&gateway, client).status, ask_from(&gateway, client).status), (200, 200), "client {client}");
    }
    assert_eq!(ask_from(&gateway, 30).reason(), "limit_reached", "the day is spent");
    let verified = [HEADERS[0], HEADERS[1], ("Authorization", &token("ada"))];
    (0..5).for_each(|_| assert_eq!(gateway.ask("GET", "/chat", &verified, "").status, 200));
    assert_eq!(upstream.seen().len(), 45);
}

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_trace_is_continued_or_started() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "", "");
    let parent = format!("00-{ID}-00f067aa0ba902b7-00");
    let ask = |traces: &[(&str, &str)]| {
        let headers: Vec<_> = HEADERS.iter().chain(traces).copied().collect();
        let answer = gateway.ask("GET", "/chat", &headers, "");
        assert_eq!(answer.status, 200);
        let seen = upstream.last();
        let sent: Vec<String> = seen.one("traceparent").split('-').map(str::to_owned).collect();
        assert_eq!(gateway.audit(answer.one("x-request-id"))["trace_id"], sent[1]);
        (sent, seen.all("tracestate").join(","))
    };
    let (sent, state) = ask(&[("traceparent", &parent), ("tracestate", "vendor=1")]);
    assert_eq!((sent[0].as_str(), sent[1].as_str(), sent[3].as_str(), state.as_str()), ("00", ID, "00", "vendor=1"));
    assert_ne!(sent[2], "00f067aa0ba902b7", "the gateway is the parent");
    for malformed in [
        &[][..],
        &[("traceparent", "00-nonsense"), ("tracestate", "vendor=1")],
        &[("traceparent", &parent), ("traceparent", &parent), ("tracestate", "vendor=1")],
        &[("tracestate", "vendor=1")],
    ] {
        let (sent, state) = ask(malformed);
        assert_eq!(
            (sent[0].as_str(), sent[1].len(), sent[2].len(), sent[3].as_str(), state.as_str()),
            ("00", 32, 16, "01", ""),
            "{malformed:?}"
        );
        assert_ne!(sent[1], ID);
    }
    let denied = gateway.ask("GET", "/chat", &[("Origin", "https://evil.example"), HEADERS[1], ("traceparent", &parent)], "");
    assert_eq!(gateway.audit(denied.one("x-request-id"))["trace_id"], ID, "denials too");
}

#[test]
fn a_target_of_more_than_8_kib_is_refused() {
    let upstream = Upstream::plain();
    let gateway = start(upstream.address(), "", "");
    let ask = |length: usize| gateway.ask("GET", &format!("/chat?{}", "q".repeat(length - 6)), &HEADERS, "");
    assert_eq!((ask(8192).status, ask(8193).status, ask(8193).reason()), (200, 414, "request_target_too_long"));
}

#[test]
fn file_descriptors_are_raised_and_too_few_are_warned_of() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start_by("ulimit -Sn 256; ulimit -Hn 1024", &halo(upstream.address(), ""), &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["1024", "1024"]);
    until("the warning", || gateway.log().contains("fewer file descriptors than max_connections").then_some(()));
    let roomy = start(upstream.address(), "max_connections = 300", "");
    assert_eq!(roomy.ask("GET", "/chat", &HEADERS, "").status, 200);
    assert!(!roomy.log().contains("file descriptors"), "{}", roomy.log());
}
