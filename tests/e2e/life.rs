//! The end of a process: what is in flight ends, who waits is let go, streams are told, and systemd hears of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::faults::site::{Process, Site, freeze};
use crate::gateway::{KEY, ORIGIN, until};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

pub fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// A visitor's request.
pub fn visit(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let key = format!("Bearer {KEY}");
    let headers: Vec<_> = [("Authorization", key.as_str()), ("Origin", ORIGIN)].iter().chain(more).copied().collect();
    http::request(method, path, &headers, b"")
}

/// Sends a request on a connection of its own, and leaves the answer there.
pub fn ask(address: SocketAddr, method: &str, path: &str) -> Connection {
    let mut connection = Connection::open(address);
    connection.send(&visit(method, path, &[])).expect("send");
    connection
}

/// GET /events: one event and then nothing. Anything else: an answer in events, one every `pause`, `count` of them.
pub fn agent(pause: Duration, count: usize) -> Upstream {
    Upstream::start(move |seen, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(&chunk("data: first\n\n"))?;
        if seen.method == "GET" {
            thread::park_timeout(http::PATIENCE);
            return Err(std::io::Error::other("nobody listens any more"));
        }
        for _ in 1..count {
            thread::sleep(pause);
            stream.write_all(&chunk("data: word\n\n"))?;
        }
        stream.write_all(b"0\r\n\r\n")
    })
}

#[track_caller]
fn drained_early(mut process: Process, since: Instant, grace: u64) {
    assert_eq!(process.wait(), 0);
    assert!(!process.log().contains("still in flight"), "{}", process.log());
    assert!(since.elapsed() < Duration::from_secs(grace - 2), "it waited for its grace: {:?}", since.elapsed());
}

const LAST: &str = "event: doorward-restart\ndata: {\"reason\":\"stream_drained\"}\n\n";

#[test]
fn a_subscription_is_told_at_its_next_pause_and_an_answer_ends() {
    let upstream = agent(Duration::from_millis(100), 40);
    let site = Site::new(upstream.address(), "grace = \"20s\"", "");
    let process = site.start(&[]);
    let mut subscription = ask(site.address, "GET", "/events");
    let mut answer = ask(site.address, "POST", "/answer");
    assert!(subscription.until(b"data: first\n\n").is_some() && answer.until(b"data: first\n\n").is_some());
    let told = Instant::now();
    process.signal("TERM");
    let last = subscription.until(b"0\r\n\r\n").expect("a proper end");
    assert!(String::from_utf8(last).unwrap().contains(LAST));
    assert!(told.elapsed() < Duration::from_secs(15), "at once, not at the end: {:?}", told.elapsed());
    assert!(subscription.more().is_none());
    let all = String::from_utf8(answer.until(b"0\r\n\r\n").expect("a proper end")).unwrap();
    assert_eq!(all.matches("data: word").count(), 39, "{all}");
    assert!(!all.contains("doorward-restart"), "{all}");
    until("the record", || process.audit_text().contains("stream_drained").then_some(()));
    drained_early(process, told, 20);
}

#[test]
fn an_answer_that_does_not_end_is_told_before_the_grace_ends() {
    let upstream = agent(Duration::from_millis(50), usize::MAX);
    let site = Site::new(upstream.address(), "grace = \"3s\"", "");
    let mut process = site.start(&[]);
    let mut answer = ask(site.address, "POST", "/answer");
    assert!(answer.until(b"data: first\n\n").is_some());
    process.signal("TERM");
    let all = String::from_utf8(answer.until(b"0\r\n\r\n").expect("a proper end")).unwrap();
    assert!(all.contains(LAST), "{all}");
    assert_eq!(process.wait(), 0);
}

#[test]
fn a_websocket_is_closed_with_1001() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let backend = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a handshake");
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
            });
        }
    });
    let site = Site::new(backend, "grace = \"20s\"", "");
    let process = site.start(&[]);
    let told = runtime.block_on(async {
        let mut request = format!("ws://{}/socket", site.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", ORIGIN.parse().unwrap());
        request.headers_mut().insert("authorization", format!("Bearer {KEY}").parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let told = Instant::now();
        process.signal("TERM");
        let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no close frame") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "stream_drained"));
        while socket.next().await.is_some() {} // answers the frame
        told
    });
    drained_early(process, told, 20);
}

#[test]
fn connections_that_nobody_uses_do_not_hold_the_process_up() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "grace = \"20s\"", "");
    let process = site.start(&[]);
    let (mut used, mut fresh) = (ask(site.address, "GET", "/"), Connection::open(site.address));
    assert_eq!(used.answer("GET").expect("an answer").one("connection"), "keep-alive");
    let told = Instant::now();
    process.signal("TERM");
    assert!(used.more().is_none() && fresh.more().is_none(), "let go");
    drained_early(process, told, 20);
}

#[test]
fn a_connection_that_waits_has_one_more_request_and_is_told_that_it_closes() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "grace = \"20s\"", "");
    let mut first = site.start(&[]);
    let (mut used, mut fresh) = (ask(site.address, "GET", "/used"), Connection::open(site.address));
    assert_eq!(used.answer("GET").expect("an answer").status, 200);
    let _next = site.start(&["--upgrade"]);
    first.says("another process serves now");
    fresh.send(&visit("GET", "/fresh", &[])).unwrap();
    used.send(&visit("GET", "/used/again", &[])).unwrap();
    for connection in [&mut used, &mut fresh] {
        let answer = connection.answer("GET").expect("an answer");
        assert_eq!((answer.status, answer.one("connection")), (200, "close"));
        assert!(connection.more().is_none());
    }
    assert_eq!(first.wait(), 0);
    for path in ["/used/again", "/fresh"] {
        until("its record", || first.audit_text().contains(path).then_some(()));
    }
}

#[test]
fn connections_that_wait_to_be_accepted_are_not_lost() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    site.change("[upstream]\n", "[[server.listener]]\nunix = \"clients.sock\"\n\n[upstream]\n");
    let mut process = site.start(&[]);
    freeze(process.pid());
    let mut waiting: Vec<_> = (0..50).map(|_| ask(site.address, "GET", "/")).collect();
    let mut local: Vec<_> = (0..50).map(|_| UnixStream::connect(site.path("clients.sock")).expect("connect")).collect();
    for stream in &mut local {
        stream.write_all(&visit("GET", "/", &[("Connection", "close")])).unwrap();
    }
    process.signal("TERM");
    process.signal("CONT");
    for connection in &mut waiting {
        assert_eq!(connection.answer("GET").expect("an answer").status, 200);
    }
    for stream in &mut local {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(process.wait(), 0);
    assert!(!site.path("clients.sock").exists());
}

#[test]
fn an_answer_under_way_says_that_its_connection_closes() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |_, stream| {
        while !opened.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(2));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let site = Site::new(upstream.address(), "grace = \"20s\"", "");
    let process = site.start(&[]);
    let mut connection = ask(site.address, "GET", "/");
    until("the upstream to have it", || upstream.seen().first().cloned());
    let told = Instant::now();
    process.signal("TERM");
    until("the listener to close", || refused(site.address));
    gate.store(true, Ordering::SeqCst);
    assert_eq!(connection.answer("GET").expect("the answer").one("connection"), "close");
    drained_early(process, told, 20);
}

/// Whether nobody listens there; a handshake may be ignored for a moment first.
pub fn refused(address: SocketAddr) -> Option<()> {
    let connected = TcpStream::connect_timeout(&address, Duration::from_millis(100));
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
}

#[test]
fn http_2_clients_are_told_to_go_away_and_keep_their_answers() {
    let upstream = agent(Duration::from_millis(100), 20);
    let site = Site::new(upstream.address(), "grace = \"20s\"", "");
    site.change("[upstream]\n", "[[server.listener]]\nunix = \"h2.sock\"\nh2c = true\n\n[upstream]\n");
    let process = site.start(&[]);
    let told = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(site.path("h2.sock")).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = ::http::Request::post("http://gateway.test/answer").header("authorization", format!("Bearer {KEY}"));
        let request = request.header("origin", ORIGIN).body(()).unwrap();
        let mut client: h2::client::SendRequest<bytes::Bytes> = client.ready().await.unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        process.signal("TERM");
        let (mut body, mut all) = (answer.into_body(), Vec::new());
        while let Some(piece) = body.data().await {
            let piece = piece.expect("no reset");
            body.flow_control().release_capacity(piece.len()).unwrap();
            all.extend_from_slice(&piece);
        }
        assert_eq!(String::from_utf8(all).unwrap().matches("data: word").count(), 19);
        let _ = connection.await.unwrap(); // it ends, though the client still holds it; what it wrote last may not have been read
        assert!(client.ready().await.is_err(), "no more requests here");
    });
    assert!(!site.path("h2.sock").exists(), "nothing is left behind");
    drained_early(process, told, 20);
}

/// What a process tells systemd.
pub struct Manager(UnixDatagram);

impl Manager {
    pub fn new(site: &Site) -> Self {
        let socket = UnixDatagram::bind(site.path("notify")).unwrap();
        socket.set_read_timeout(Some(http::PATIENCE)).unwrap();
        Self(socket)
    }

    pub fn start(site: &Site) -> Process {
        let mut command = site.command(&[]);
        command.env("NOTIFY_SOCKET", site.path("notify"));
        let process = Process::of(command);
        process.serving();
        process
    }

    /// The next message.
    #[track_caller]
    pub fn hears(&self) -> String {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }
}

#[test]
fn systemd_hears_when_it_is_ready_reloads_and_stops() {
    let upstream = Upstream::plain();
    let site = Site::new(upstream.address(), "", "");
    let manager = Manager::new(&site);
    let mut process = Manager::start(&site);
    assert_eq!(manager.hears(), "READY=1\nSTATUS=serving\n");
    process.signal("HUP");
    let reloading = manager.hears();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("systemd asks for the time");
    assert!(since.trim_end().parse::<u64>().is_ok_and(|us| us > 0), "{reloading}");
    assert_eq!(manager.hears(), "READY=1\nSTATUS=serving\n");
    let metrics = http::get(site.admin, "/metrics").text();
    assert!(metrics.contains("doorward_reloads_total{result=\"applied\"} 1"), "only then: {metrics}");
    process.signal("TERM");
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=draining\n");
    assert_eq!(process.wait(), 0);
}
