//! Mixed traffic for a while: good and bad requests of several tenants over HTTP/1.1, TLS and HTTP/2, event streams and
//! WebSockets, while the configuration is reloaded and a backend fails now and then. Every answer is compared with what it must
//! be, with what the agent was told, and with the audit record; memory and descriptors are measured.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::traffic::{self, Author, Case, Want};
use super::{CALLER, Notes, Row, descriptors, resident, table, token, upstream};
use crate::gateway::{Gateway, until};
use crate::http::{self as http1, Connection, PATIENCE};
use crate::http2::Client;
use crate::pki::{Authority, connect};
use crate::tls::start;
use crate::upstream::Upstream;

/// What all the workers share.
struct Shared {
    gateway: Gateway,
    authority: Authority,
    stop: AtomicBool,
    notes: Notes,
    requests: AtomicU64,
    lost: AtomicU64,
    /// What the audit record of a request must say of its subject.
    subjects: Mutex<HashMap<String, Option<String>>>,
    audited: AtomicU64,
}

/// An answer, however it came.
struct Told<'a> {
    status: u16,
    reason: &'a str,
    request_id: &'a str,
    body: &'a [u8],
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Compares; counts and notes what is wrong.
    fn judge(&self, case: &Case, told: &Told<'_>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = matches(&case.want, case, told) {
            let body = String::from_utf8_lossy(told.body);
            self.notes.add(format!("{} of {}: {why}: {} {} {body}", case.name, case.target, told.status, told.reason));
        }
        let subject = match &case.want {
            Want::Told { subject, claimed, .. } => Some(format!("{subject}{claimed}")),
            Want::Denied(..) | Want::Answered(_) | Want::Either(_) => None, // any
        };
        self.subjects.lock().unwrap().insert(told.request_id.to_owned(), subject);
    }

    fn lose(&self, case: &Case) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.notes.add(format!("{} of {}: no answer", case.name, case.target));
    }

    /// Looks at the audit records so far: each names the subject of its request. What nobody asked after yet is kept.
    fn audit(&self, kept: &mut HashMap<String, String>) {
        let subject = |line: &str| -> Option<(String, String)> {
            let record: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((record["request_id"].as_str()?.to_owned(), record["subject"].as_str().unwrap_or_default().to_owned()))
        };
        kept.extend(self.gateway.take_audit().iter().filter_map(|line| subject(line)));
        self.subjects.lock().unwrap().retain(|id, expected| {
            let Some(recorded) = kept.remove(id) else { return true };
            self.audited.fetch_add(1, Ordering::Relaxed);
            if let Some(expected) = expected
                && recorded != *expected
            {
                self.notes.add(format!("audited as {recorded:?}, not {expected:?}"));
            }
            false
        });
    }
}

fn matches(want: &Want, case: &Case, told: &Told<'_>) -> Result<(), String> {
    match want {
        Want::Denied(status, reason) if (told.status, told.reason) == (*status, *reason) => Ok(()),
        Want::Answered(status) if told.status == *status => Ok(()),
        Want::Told { tenant, level, subject, claimed } if told.status == 200 => {
            let body: serde_json::Value = serde_json::from_slice(told.body).map_err(|e| e.to_string())?;
            let said = ["tenant", "level", "subject", "claimed", "target"].map(|name| body[name].as_str().unwrap_or_default());
            let target = case.target.as_str();
            if said != [*tenant, *level, subject.as_str(), claimed.as_str(), target] || body["length"] != case.body.len() {
                return Err(format!("not {want:?}"));
            }
            if body["request_id"] == told.request_id { Ok(()) } else { Err("somebody else's answer".to_owned()) }
        }
        Want::Either(both) => both.iter().map(|want| matches(want, case, told)).find(Result::is_ok).unwrap_or(Err(format!("not {both:?}"))),
        Want::Denied(..) | Want::Answered(_) | Want::Told { .. } => Err(format!("not {want:?}")),
    }
}

fn bytes(case: &Case) -> Vec<u8> {
    let headers: Vec<_> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    http1::request(case.method, &case.target, &headers, &case.body)
}

/// Asks on one connection after the other, which `open` opens.
fn ask_all(shared: &Shared, nth: u64, open: impl Fn() -> Connection) {
    let (mut author, mut connection) = (Author::new(nth), open());
    let mut left = 200;
    while shared.goes_on() {
        let case = author.next();
        let Some(answer) = connection.send(&bytes(&case)).ok().and_then(|()| connection.answer(case.method)) else {
            shared.lose(&case);
            connection = open();
            continue;
        };
        let (reason, ids) = (answer.reason(), answer.all("x-request-id"));
        let request_id = ids.first().copied().unwrap_or_default();
        shared.judge(&case, &Told { status: answer.status, reason, request_id, body: &answer.body });
        author.keep(&case, &answer.body);
        left -= 1;
        // A denied body may cost the connection, and so may the end of its requests.
        if left == 0 || answer.all("connection").contains(&"close") {
            (connection, left) = (open(), 200);
        }
    }
}

fn over_tls(shared: &Shared) -> Connection {
    let config = shared.authority.client_config(&["http/1.1"]);
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let stream = TcpStream::connect(shared.gateway.last_place()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    Connection::over(rustls::StreamOwned::new(rustls::ClientConnection::new(config, name).unwrap(), stream))
}

/// The same on HTTP/2, several at once on each connection.
async fn ask_http2(shared: Arc<Shared>, nth: u64) {
    let config = shared.authority.client_config(&["h2"]);
    let mut authors: Vec<_> = (0..4).map(|n| Author::new(nth * 100 + n)).collect();
    while shared.goes_on() {
        let client = Client::over(connect(shared.gateway.last_place(), "a.example", &config).await.unwrap()).await;
        let streams: Vec<_> =
            authors.drain(..).map(|author| tokio::spawn(ask_stream(Arc::clone(&shared), client.again(), author))).collect();
        for stream in streams {
            authors.push(stream.await.expect("a stream"));
        }
    }
}

async fn ask_stream(shared: Arc<Shared>, mut client: Client, mut author: Author) -> Author {
    for _ in 0..50 {
        let case = author.next();
        let mut request =
            http::Request::builder().method(case.method).uri(format!("https://a.example{}", case.target)).version(http::Version::HTTP_2);
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let pieces: Vec<_> = case.body.chunks(9000).map(Bytes::copy_from_slice).collect();
        match client.ask(request.body(()).unwrap(), &pieces).await {
            Ok(answer) => {
                let of = |name: &str| answer.headers.get_all(name).iter().next().map_or("", |v| v.to_str().unwrap());
                let (reason, request_id) = (of("x-doorward-reason"), of("x-request-id"));
                shared.judge(&case, &Told { status: answer.status.as_u16(), reason, request_id, body: &answer.body });
                author.keep(&case, &answer.body);
            }
            Err(_) => shared.lose(&case),
        }
    }
    author
}

const EVENTS: usize = 5;

/// An agent for all of it: streams, switches, faults, and an echo.
fn agent(notes: &Notes) -> Upstream {
    let others = upstream::agent(notes.clone());
    Upstream::start(move |seen, stream| {
        if seen.target.starts_with("/events/") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let event = format!("data: {}\n\n", seen.one("x-identity-subject"));
            for _ in 0..EVENTS {
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
                thread::park_timeout(Duration::from_millis(10));
            }
            stream.write_all(b"0\r\n\r\n")
        } else if seen.target.starts_with("/socket/") {
            let accept = derive_accept_key(seen.one("sec-websocket-key").as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(head.as_bytes())?;
            let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
            let gone = |error: tungstenite::Error| std::io::Error::other(error);
            socket.send(Message::text(seen.one("x-identity-subject"))).map_err(gone)?;
            loop {
                let message = socket.read().map_err(gone)?;
                if message.is_text() {
                    socket.send(message).map_err(gone)?;
                }
            }
        } else {
            others(seen, stream)
        }
    })
}

/// Event streams, one after the other.
fn watch_events(shared: &Shared) -> u64 {
    let mut streams = 0;
    while shared.goes_on() {
        let (subject, mut connection) = (format!("e_{streams}"), Connection::open(shared.gateway.address));
        let bearer = format!("Bearer {}", token(&subject));
        let headers = [CALLER[0], CALLER[1], ("Authorization", bearer.as_str()), ("Accept", "text/event-stream")];
        connection.send(&http1::request("GET", &format!("/events/{subject}"), &headers, b"")).unwrap();
        let text = connection.answer("GET").map(|answer| answer.text());
        if text != Some(format!("data: {subject}\n\n").repeat(EVENTS)) {
            shared.notes.add(format!("events of {subject}: {text:?}"));
        }
        streams += 1;
    }
    streams
}

/// WebSockets, one after the other.
fn talk(shared: &Shared) -> u64 {
    let mut sockets = 0;
    while shared.goes_on() {
        let subject = format!("s_{sockets}");
        if let Err(why) = converse(shared.gateway.address, &subject) {
            shared.notes.add(format!("socket of {subject}: {why}"));
        }
        sockets += 1;
    }
    sockets
}

fn converse(gateway: SocketAddr, subject: &str) -> Result<(), String> {
    let mut request = format!("ws://{}/socket/{subject}", gateway).into_client_request().map_err(|e| e.to_string())?;
    let bearer = format!("Bearer {}", token(subject));
    for (name, value) in [("x-embed-key", CALLER[0].1), ("origin", CALLER[1].1), ("authorization", &bearer)] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(gateway).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let (mut socket, _) = tungstenite::client(request, stream).map_err(|e| e.to_string())?;
    let mut expected = subject.to_owned();
    for n in 0..5 {
        let heard = socket.read().map_err(|e| format!("{e} after {n} messages"))?;
        if heard != Message::text(expected.as_str()) {
            return Err(format!("heard {heard:?}, not {expected:?}"));
        }
        expected = format!("{subject} says {n}");
        socket.send(Message::text(expected.as_str())).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Reloads: the mode of one tenant goes back and forth, and every fifth time the file is broken.
fn reload(shared: &Shared, address: SocketAddr) {
    for n in 0_u64.. {
        if !shared.goes_on() {
            return;
        }
        let mode = if n.is_multiple_of(2) { "monitor" } else { "enforce" };
        let text = traffic::config(address, mode, &format!("reload {n}"));
        shared.gateway.write("doorward.toml", if n % 5 == 4 { &text[..text.len() - 40] } else { &text });
        thread::park_timeout(Duration::from_millis(700));
    }
}

/// What a run used, as it went.
#[derive(Default)]
struct Samples(Vec<(Duration, u64, usize)>);

impl Samples {
    /// The medians of resident bytes and descriptors within this part of the time.
    fn median(&self, from: f64, to: f64) -> (u64, usize) {
        let last = self.0.last().map_or(0.0, |sample| sample.0.as_secs_f64());
        let within: Vec<_> = self.0.iter().filter(|(at, ..)| (from * last..=to * last).contains(&at.as_secs_f64())).collect();
        let middle = |mut values: Vec<u64>| {
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let descriptors = middle(within.iter().map(|sample| sample.2 as u64).collect());
        (middle(within.iter().map(|sample| sample.1).collect()), descriptors as usize)
    }
}

/// Most that resident memory may grow from the second fifth of a long run to its last, and descriptors.
const GROWTH: (u64, usize) = (12 << 20, 24);

/// Mixed traffic for this long. `told` hears of the progress.
pub fn run(length: Duration, progress: impl Fn(Duration, &str)) -> Row {
    let notes = Notes::default();
    let (upstream, authority) = (agent(&notes), Authority::new("test"));
    let files = traffic::files();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let gateway = start(&traffic::config(upstream.address(), "enforce", "start"), &[("a", &authority.server(&["a.example"]))], &files);
    let shared = Arc::new(Shared {
        gateway,
        authority,
        stop: AtomicBool::new(false),
        notes,
        requests: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        subjects: Mutex::default(),
        audited: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let http2: Vec<_> = (0..2).map(|n| runtime.spawn(ask_http2(Arc::clone(&shared), 50 + n))).collect();
    let (mut samples, mut kept, started) = (Samples::default(), HashMap::new(), Instant::now());
    let (faults, events, sockets) = thread::scope(|scope| {
        let shared = &*shared;
        for nth in 0..3 {
            scope.spawn(move || ask_all(shared, nth, || Connection::open(shared.gateway.address)));
        }
        scope.spawn(move || ask_all(shared, 10, || over_tls(shared)));
        scope.spawn(|| reload(shared, upstream.address()));
        let events = scope.spawn(|| watch_events(shared));
        let sockets = scope.spawn(|| talk(shared));
        let faults = scope.spawn(|| upstream::suffer_all(shared.gateway.address, &shared.notes, || shared.goes_on()));
        while started.elapsed() < length {
            thread::park_timeout(Duration::from_millis(200));
            upstream.forget();
            shared.audit(&mut kept);
            let (memory, open) = (resident(shared.gateway.pid()), descriptors(shared.gateway.pid()));
            samples.0.push((started.elapsed(), memory, open));
            let (requests, wrong) = (shared.requests.load(Ordering::Relaxed), shared.notes.0.lock().unwrap().len());
            progress(started.elapsed(), &format!("{requests} requests, {wrong} wrong, {} MiB, {open} descriptors", memory >> 20));
        }
        shared.stop.store(true, Ordering::Relaxed);
        (faults.join().unwrap(), events.join().unwrap(), sockets.join().unwrap())
    });
    let took = started.elapsed();
    http2.into_iter().for_each(|task| runtime.block_on(task).expect("HTTP/2"));
    until("the last audit records", || {
        shared.audit(&mut kept);
        shared.subjects.lock().unwrap().is_empty().then_some(())
    });
    let over = Instant::now();
    until("everything to be over", || (shared.gateway.metric("doorward_requests_in_flight") == 0.0).then_some(()));
    let reloads = |result: &str| shared.gateway.metric(&format!("doorward_reloads_total{{result=\"{result}\"}}"));
    let (applied, refused) = (reloads("applied"), reloads("refused"));
    let (requests, lost) = (shared.requests.load(Ordering::Relaxed), shared.lost.load(Ordering::Relaxed));
    let ((early, few), (late, many)) = (samples.median(0.2, 0.4), samples.median(0.8, 1.0));
    let wrong = shared.notes.take();
    let mut note = format!(
        "{:.0} requests/s, {} audited; {events} event streams, {sockets} WebSockets, {faults} backend faults, {applied} reloads and {refused} refused; \
         {:.1} → {:.1} MiB, {few} → {many} descriptors",
        requests as f64 / took.as_secs_f64(),
        shared.audited.load(Ordering::Relaxed),
        early as f64 / 1048576.0,
        late as f64 / 1048576.0,
    );
    wrong.iter().take(20).for_each(|wrong| note.push_str(&format!("; {wrong}")));
    let load = format!("6 connections of HTTP/1.1 and HTTP/2, plain and TLS, {} s", took.as_secs());
    let row = Row { fault: "mixed traffic", load, requests, wrong: wrong.len() as u64 - lost, lost, recovery: Some(over.elapsed()), note };
    assert!(applied > 0.0 && refused > 0.0 && faults > 0 && events > 0 && sockets > 0, "{row:?}");
    if length >= Duration::from_secs(60) {
        assert!(late <= early + GROWTH.0 && many <= few + GROWTH.1, "not flat: {row:?}");
    }
    row
}

#[test]
fn every_answer_of_mixed_traffic_is_the_expected_one() {
    let row = run(Duration::from_secs(5), |_, _| {});
    eprintln!("{}", table(std::slice::from_ref(&row)));
    row.clean();
}

#[test]
fn a_handshake_has_a_connection_of_its_own() {
    let notes = Notes::default();
    let (upstream, authority) = (agent(&notes), Authority::new("test"));
    let files = traffic::files();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let gateway = start(&traffic::config(upstream.address(), "enforce", ""), &[("a", &authority.server(&["a.example"]))], &files);
    let ask = |target: &str| http1::send(gateway.address, super::request("GET", target, &token("u"), b"")).status;
    for _ in 0..3 {
        assert_eq!(ask("/plain"), 200);
        // What the backend refuses leaves a connection behind that could be kept.
        let headers = [CALLER[0], CALLER[1], ("Connection", "Upgrade"), ("Upgrade", "websocket")];
        assert_eq!(http1::send(gateway.address, http1::request("GET", "/refused", &headers, b"")).status, 200);
        converse(gateway.address, "u").unwrap();
    }
    let seen: Vec<_> = upstream.seen().iter().map(|seen| (seen.connection, seen.target.clone())).collect();
    let mut connections: Vec<_> = seen.iter().filter(|(_, target)| target != "/plain").map(|(connection, _)| *connection).collect();
    assert_eq!(connections.len(), 6);
    connections.dedup();
    assert!(connections.len() == 6 && !connections.contains(&1), "{seen:?}");
}
