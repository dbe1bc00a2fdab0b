//! Streams: unbuffered, carried where browsers cannot set headers, and ended in time with proper last words.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::gateway::{Gateway, ORIGIN, until};
use crate::http::{self, Connection};
use crate::upstream::Upstream;

const KEY: &str = "pk_live_0123456789abcdef";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sessions last this many seconds.
fn config(upstream: SocketAddr, lifetime: u32, tenant: &str) -> String {
    format!(
        r#"
revocations = "revoked.txt"

[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
threads = 2
drain_delay = "0s"
limits = {{ max_connections_per_client = 2000 }}

[upstream]
address = "{upstream}"

[assertion]
audience = "agent"
keys = [{{ id = "a1", file = "assertion.key" }}]

[session]
keys = [{{ id = "n1", file = "session.key" }}]
lifetime = "{lifetime}s"

[[tenant]]
id = "acme"
preset = "none"
embed_keys = ["{KEY}"]
origins = ["{ORIGIN}"]
secrets = [{{ id = "s1", file = "identity.key", format = "jwt" }}]
{tenant}
"#
    )
}

fn start(upstream: SocketAddr, lifetime: u32, tenant: &str) -> Gateway {
    let files = [("session.key", "session_key_0123456789abcdef0123"), ("revoked.txt", "")];
    Gateway::start_with(&config(upstream, lifetime, tenant), &files)
}

fn mint(gateway: &Gateway) -> String {
    let headers = [("Origin", ORIGIN), ("Content-Type", "application/json")];
    let answer = gateway.ask("POST", "/v1/embed/session-tokens", &headers, json!({ "embed_key": KEY }).to_string());
    answer.json()["token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// An upstream that sends one event and then, every `pause`, another; without a pause it stays silent after the first.
fn events(pause: Option<Duration>) -> Upstream {
    Upstream::start(move |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(&chunk("data: first\n\n"))?;
        loop {
            thread::park_timeout(pause.unwrap_or(http::PATIENCE));
            stream.write_all(&chunk("data: more\n\n"))?;
        }
    })
}

fn subscribe(gateway: &Gateway, session: &str) -> Connection {
    let mut connection = Connection::open(gateway.address);
    let headers = [("Origin", ORIGIN), ("Authorization", &format!("Bearer {session}")), ("Accept", "text/event-stream")];
    connection.send(&http::request("GET", "/events", &headers, b"")).unwrap();
    assert_eq!(connection.head().map(|h| h.0), Some(200), "{}", gateway.log());
    connection
}

#[test]
fn the_first_event_comes_through_at_once_and_each_piece_as_it_was_sent() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(&chunk("data: first\n\n"))?;
        while !opened.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(2));
        }
        stream.write_all(&chunk("data: second\n\n"))?;
        stream.write_all(b"0\r\n\r\n")
    });
    let gateway = start(upstream.address(), 900, "");
    let mut connection = subscribe(&gateway, &mint(&gateway));
    assert!(connection.until(b"data: first\n\n").is_some(), "before the upstream sent anything else");
    gate.store(true, Ordering::SeqCst);
    assert!(connection.until(b"data: second\n\n").is_some());
    assert!(connection.until(b"0\r\n\r\n").is_some());
}

/// Reads an event stream to its end: everything after the head, and how long it took.
fn to_the_end(mut connection: Connection) -> (String, Duration) {
    let started = Instant::now();
    let text = connection.until(b"0\r\n\r\n").expect("a proper end");
    assert!(connection.more().is_none(), "nothing comes after the end");
    (String::from_utf8(text).unwrap(), started.elapsed())
}

#[test]
fn an_event_stream_ends_with_its_session_where_the_tenant_says_so() {
    for pause in [None, Some(Duration::from_millis(20))] {
        let upstream = events(pause);
        let gateway = start(upstream.address(), 2, "[tenant.streams]\nevents = \"close\"\ngrace = \"0s\"");
        let (text, took) = to_the_end(subscribe(&gateway, &mint(&gateway)));
        let last = "event: doorward-expired\ndata: {\"reason\":\"session_expired\"}\n\n";
        assert!(text.contains(last) && text.ends_with("0\r\n\r\n"), "{text}");
        assert!(text.find(last) > text.rfind("data: more\n\n"), "the last event is the last: {text}");
        assert!(took < Duration::from_secs(6), "{pause:?}: {took:?}");
        assert!(upstream.last().all("accept-encoding").is_empty());
    }
}

#[test]
fn streams_may_be_silent_for_longer_than_other_answers() {
    let pause = Duration::from_secs(1);
    let timed = |upstream: SocketAddr| {
        let address = format!("address = \"{upstream}\"");
        let config = config(upstream, 900, "").replace(&address, &format!("{address}\nread_timeout = \"300ms\""));
        Gateway::start_with(&config, &[("session.key", "session_key_0123456789abcdef0123"), ("revoked.txt", "")])
    };
    let upstream = events(Some(pause));
    let gateway = timed(upstream.address());
    let session = mint(&gateway);
    assert!(subscribe(&gateway, &session).until(b"data: more\n\n").is_some(), "it asked for an event stream");
    let mut connection = Connection::open(gateway.address);
    connection.send(&http::request("GET", "/a", &[("Origin", ORIGIN), ("Authorization", &format!("Bearer {session}"))], b"")).unwrap();
    assert!(connection.until(b"data: more\n\n").is_none(), "it did not: cut off");
    let backend = Backend::start(Some(pause));
    let gateway = timed(backend.address);
    let protocols = format!("doorward.v1, doorward.token.{}", mint(&gateway));
    backend.runtime.block_on(async {
        let (mut socket, _) = connect(gateway.address, &protocols, ORIGIN).await.unwrap();
        for _ in 0..2 {
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("tick"), "the first at once, the second after the pause");
        }
    });
}

#[test]
fn an_event_stream_may_finish_by_default() {
    let upstream = events(Some(Duration::from_millis(50)));
    let gateway = start(upstream.address(), 1, "");
    let mut connection = subscribe(&gateway, &mint(&gateway));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        assert!(connection.until(b"data: more\n\n").is_some(), "it goes on after its session");
    }
}

#[test]
fn an_event_in_the_middle_is_not_torn_apart() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(HEAD)?;
        loop {
            for piece in ["data: on", "e li", "ne\n", "data: two\n", "\n"] {
                stream.write_all(&chunk(piece))?;
                thread::park_timeout(Duration::from_millis(30));
            }
        }
    });
    let gateway = start(upstream.address(), 1, "[tenant.streams]\nevents = \"close\"\ngrace = \"0s\"");
    let mut connection = subscribe(&gateway, &mint(&gateway));
    let text = connection.until(b"0\r\n\r\n").expect("a proper end");
    let body: String = String::from_utf8(text).unwrap().split("\r\n").skip(1).step_by(2).collect();
    let (events, last) = body.rsplit_once("event: doorward-expired").expect("the last event");
    assert!(events.ends_with("data: one line\ndata: two\n\n"), "{events}");
    assert!(last.starts_with("\ndata: "), "{last}");
}

#[test]
fn a_session_in_the_query_is_for_streams_that_opted_in() {
    let upstream = events(None);
    let ask = |gateway: &Gateway, target: &str, more: &[(&str, &str)]| {
        let headers: Vec<_> = [("Origin", ORIGIN)].iter().chain(more).copied().collect();
        let mut connection = Connection::open(gateway.address);
        connection.send(&http::request("GET", target, &headers, b"")).unwrap();
        connection.head().expect("an answer")
    };
    let stream = ("Accept", "text/event-stream");
    let gateway = start(upstream.address(), 900, "");
    let target = format!("/events?a=1&session_token={}&b=2", mint(&gateway));
    assert_eq!(ask(&gateway, &target, &[stream]).0, 401, "only where the tenant opted in");
    let gateway = start(upstream.address(), 900, "[tenant.sessions]\nin_query = true");
    let session = mint(&gateway);
    let target = format!("/events?a=1&session_token={session}&b=2");
    assert_eq!(ask(&gateway, &target, &[("Accept", "*/*")]).0, 401, "for streams only");
    assert_eq!(ask(&gateway, &target, &[stream, ("Sec-Fetch-Mode", "navigate")]).0, 401, "never a link that somebody follows");
    assert_eq!(ask(&gateway, &target, &[stream, ("Sec-Fetch-Mode", "cors")]).0, 200);
    assert_eq!(upstream.last().target, "/events?a=1&b=2", "removed before it is signed and sent");
    until("the audit", || gateway.audit_text().contains("/events").then_some(()));
    assert!(!gateway.audit_text().contains(&session) && !gateway.log().contains(&session));
}

/// A WebSocket backend that echoes, and chooses the subprotocol `chat.v2` where it is offered.
struct Backend {
    address: SocketAddr,
    runtime: tokio::runtime::Runtime,
    offered: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Backend {
    /// Sends `tick` every so often besides, where told to.
    fn start(tick: Option<Duration>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let offered = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&offered);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move { drop(echo(stream, seen, tick).await) });
            }
        });
        Self { address, runtime, offered }
    }
}

#[allow(clippy::result_large_err)] // the library's own callback type
async fn echo(
    stream: tokio::net::TcpStream,
    seen: Arc<std::sync::Mutex<Vec<String>>>,
    tick: Option<Duration>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let choose = |request: &Request, mut response: Response| {
        let offered = request.headers().get_all("sec-websocket-protocol").iter().filter_map(|v| v.to_str().ok());
        let offered = offered.collect::<Vec<_>>().join(", ");
        if offered.contains("chat.v2") {
            response.headers_mut().insert("sec-websocket-protocol", "chat.v2".parse().unwrap());
        }
        seen.lock().unwrap().push(offered);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await?;
    let mut ticks = tokio::time::interval(tick.unwrap_or(Duration::from_secs(3600)));
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => socket.send(message).await?,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            _ = ticks.tick() => if tick.is_some() { socket.send(Message::text("tick")).await? },
        }
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(gateway: SocketAddr, protocols: &str, origin: &str) -> Result<(Socket, Option<String>), String> {
    let mut request = format!("ws://{gateway}/socket").into_client_request().unwrap();
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let (socket, response) = tokio_tungstenite::connect_async(request).await.map_err(|e| e.to_string())?;
    let chosen = response.headers().get_all("sec-websocket-protocol").iter().next().map(|v| v.to_str().unwrap().to_owned());
    Ok((socket, chosen))
}

/// Reads to the close frame: its code and reason, and how many messages came before.
async fn to_close(socket: &mut Socket) -> (u16, String, usize) {
    let mut messages = 0;
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string(), messages),
            Some(Ok(_)) => messages += 1,
            other => panic!("no close frame but {other:?}"),
        }
    }
}

#[test]
fn a_websocket_carries_its_session_as_a_subprotocol_that_nobody_sees() {
    let backend = Backend::start(None);
    let gateway = start(backend.address, 900, "");
    let session = mint(&gateway);
    backend.runtime.block_on(async {
        let ours = format!("doorward.v1, doorward.token.{session}");
        let (mut socket, chosen) = connect(gateway.address, &ours, ORIGIN).await.unwrap();
        assert_eq!(chosen.as_deref(), Some("doorward.v1"), "where the upstream chose none");
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        let (_, chosen) = connect(gateway.address, &format!("{ours}, chat.v2"), ORIGIN).await.unwrap();
        assert_eq!(chosen.as_deref(), Some("chat.v2"), "the upstream's choice");
        let refused = connect(gateway.address, &ours, "https://evil.example").await.expect_err("origin is checked on the handshake");
        assert!(refused.contains("403"), "{refused}");
        let refused = connect(gateway.address, "doorward.v1, doorward.token.eyJ0eXAiOiJkb29yd2FyZC1zZXNzaW9uK2p3dCJ9.e30.AA", ORIGIN).await;
        assert!(refused.expect_err("a forged session").contains("401"));
    });
    assert_eq!(*backend.offered.lock().unwrap(), ["", "chat.v2"]);
}

#[test]
fn a_websocket_is_closed_with_4401_when_its_session_ends() {
    for tick in [None, Some(Duration::from_millis(10))] {
        let backend = Backend::start(tick);
        let gateway = start(backend.address, 2, "[tenant.streams]\ngrace = \"0s\"");
        let session = mint(&gateway);
        let started = Instant::now();
        let (code, reason, messages) = backend.runtime.block_on(async {
            let (mut socket, _) = connect(gateway.address, &format!("doorward.v1, doorward.token.{session}"), ORIGIN).await.unwrap();
            to_close(&mut socket).await
        });
        assert_eq!((code, reason.as_str()), (4401, "session_expired"));
        assert_eq!(messages > 50, tick.is_some(), "{messages}");
        let took = started.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(6), "{took:?}");
        until("the record", || gateway.audit_text().contains("session_expired").then_some(()));
    }
}

#[test]
fn a_revocation_ends_an_idle_websocket() {
    let backend = Backend::start(None);
    let gateway = start(backend.address, 900, "[tenant.streams]\ngrace = \"0s\"");
    let headers = [("Origin", ORIGIN), ("Content-Type", "application/json")];
    let answer = gateway.ask("POST", "/v1/embed/session-tokens", &headers, json!({ "embed_key": KEY }).to_string());
    let (id, session) = (answer.one("x-request-id").to_owned(), answer.json()["token"].as_str().unwrap().to_owned());
    backend.runtime.block_on(async {
        let (mut socket, _) = connect(gateway.address, &format!("doorward.v1, doorward.token.{session}"), ORIGIN).await.unwrap();
        gateway.write("revoked.txt", &format!("session {id}\n"));
        let revoked = Instant::now();
        let (code, reason, _) = to_close(&mut socket).await;
        assert_eq!((code, reason.as_str()), (4401, "session_revoked"));
        eprintln!("an idle WebSocket was closed {:?} after its revocation was written", revoked.elapsed());
        assert!(revoked.elapsed() < Duration::from_secs(5));
    });
}

/// PyPI `websockets`, in a virtual environment of the verifiers'.
#[test]
fn pythons_websockets_sees_the_same() {
    crate::verifiers::ensure_installed();
    let backend = Backend::start(None);
    let gateway = start(backend.address, 5, "[tenant.streams]\ngrace = \"0s\"");
    let session = mint(&gateway);
    let script = r#"
import asyncio, sys, websockets
async def main(uri, origin, session):
    async with websockets.connect(uri, origin=origin, subprotocols=["doorward.v1", "doorward.token." + session]) as ws:
        print("subprotocol", ws.subprotocol)
        await ws.send("hello")
        print("echo", await ws.recv())
        await ws.wait_closed()
        print("close", ws.close_code, ws.close_reason)
asyncio.run(main(*sys.argv[1:]))
"#;
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/verifiers/venv/bin/python");
    let uri = format!("ws://{}/socket", gateway.address);
    let output = std::process::Command::new(python).args(["-c", script, &uri, ORIGIN, &session]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "subprotocol doorward.v1\necho hello\nclose 4401 session_expired\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Memory of a process, in bytes.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_thousand_event_streams_and_five_hundred_websockets_at_once() {
    let sse = events(Some(Duration::from_millis(500)));
    let gateway = start(sse.address(), 900, "");
    let session = mint(&gateway);
    let before = resident(gateway.pid());
    let mut streams: Vec<_> = (0..1000).map(|_| subscribe(&gateway, &session)).collect();
    for stream in &mut streams {
        assert!(stream.until(b"data: first\n\n").is_some());
    }
    for stream in &mut streams {
        assert!(stream.until(b"data: more\n\n").is_some(), "every one of them goes on");
    }
    let each = (resident(gateway.pid()) - before) / 1000;
    eprintln!("1,000 event streams: {each} bytes of memory each");
    assert_eq!(gateway.metric("doorward_requests_in_flight"), 1000.0);
    drop(streams);
    let backend = Backend::start(None);
    let gateway = start(backend.address, 900, "");
    let session = mint(&gateway);
    let before = resident(gateway.pid());
    backend.runtime.block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..500 {
            sockets.push(connect(gateway.address, &format!("doorward.v1, doorward.token.{session}"), ORIGIN).await.unwrap().0);
        }
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(index.to_string())).await.unwrap();
        }
        for (index, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(index.to_string()), "nobody else's");
        }
    });
    eprintln!("500 WebSockets: {} bytes of memory each", (resident(gateway.pid()) - before) / 500);
}

/// A backend may speak first, in the same segment as its 101.
#[test]
fn frames_that_come_with_the_handshake_are_not_lost() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello",
        )?;
        thread::park_timeout(http::PATIENCE);
        Ok(())
    });
    let gateway = start(upstream.address(), 900, "");
    let session = mint(&gateway);
    for _ in 0..20 {
        let mut connection = Connection::open(gateway.address);
        let protocols = format!("doorward.v1, doorward.token.{session}");
        let headers = [
            ("Origin", ORIGIN),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", protocols.as_str()),
        ];
        connection.send(&http::request("GET", "/socket", &headers, b"")).unwrap();
        assert_eq!(connection.head().map(|h| h.0), Some(101));
        assert_eq!(connection.take(7).as_deref(), Some(&b"\x81\x05hello"[..]));
    }
}
