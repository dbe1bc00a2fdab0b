//! HTTP/2 downstream: the same decisions as on HTTP/1.1, bodies and streams included, and what only HTTP/2 can do to us.

use std::io::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gateway::{Gateway, KEY, ORIGIN, halo, in_seconds, jwt, until};
use crate::http::{self as http1, PATIENCE};
use crate::pki::{Authority, Pair, connect};
use crate::tls::{ONE, start, with_tls};
use crate::upstream::Upstream;

/// A gateway with one TLS listener for `a.example`.
struct Served {
    gateway: Gateway,
    authority: Authority,
    pair: Pair,
}

impl Served {
    fn new(config: &str) -> Self {
        let authority = Authority::new("test");
        let pair = authority.server(&["a.example"]);
        let gateway = start(config, &[("a", &pair)], &[("session.key", "session_key_0123456789abcdef0123")]);
        Self { gateway, authority, pair }
    }

    fn before(upstream: &Upstream) -> Self {
        Self::new(&with_tls(upstream.address(), ONE))
    }

    async fn open(&self) -> Client {
        let config = self.authority.client_config(&["h2", "http/1.1"]);
        let stream = connect(self.gateway.last_place(), "a.example", &config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Client::over(stream).await
    }
}

/// One connection.
pub(crate) struct Client(h2::client::SendRequest<Bytes>);

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn reason(&self) -> &str {
        self.headers.get_all("x-doorward-reason").iter().next().map_or("", |v| v.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// The same connection for another request.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    /// Sends the head; a body follows in pieces where there is one.
    async fn begin(&mut self, request: Request<()>, pieces: &[Bytes]) -> Result<h2::client::ResponseFuture, h2::Error> {
        let mut client = self.0.clone().ready().await?;
        let (answer, mut body) = client.send_request(request, pieces.is_empty())?;
        for (index, piece) in pieces.iter().enumerate() {
            let mut rest = piece.clone();
            if rest.is_empty() {
                body.send_data(Bytes::new(), index + 1 == pieces.len())?;
            }
            while !rest.is_empty() {
                body.reserve_capacity(rest.len());
                let Some(capacity) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return Ok(answer) };
                let Ok(capacity) = capacity else { return Ok(answer) }; // answered before it was read
                let part = rest.split_to(capacity.min(rest.len()));
                let last = index + 1 == pieces.len() && rest.is_empty();
                if body.send_data(part, last).is_err() {
                    return Ok(answer);
                }
            }
        }
        Ok(answer)
    }

    pub(crate) async fn ask(&mut self, request: Request<()>, pieces: &[Bytes]) -> Result<Answer, h2::Error> {
        let asked = async {
            let answer = self.begin(request, pieces).await?.await?;
            let (head, mut stream) = answer.into_parts();
            let mut body = Vec::new();
            while let Some(piece) = stream.data().await.transpose()? {
                stream.flow_control().release_capacity(piece.len())?;
                body.extend_from_slice(&piece);
            }
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time")
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("https://a.example{path}")).version(http::Version::HTTP_2);
    for (name, value) in [("authorization", format!("Bearer {KEY}").as_str()), ("origin", ORIGIN)].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn token() -> String {
    jwt(&json!({ "user_id": "u1", "exp": in_seconds(600) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_the_backend_as_http_1_1() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    let mut client = served.open().await;
    let headers = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-identity-subject", "victim"), ("x-user-token", &token())];
    let answer = client.ask(request("GET", "/a?b=c", &headers), &[]).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, &b"{\"ok\":true}"[..]));
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.one("host")), ("GET", "/a?b=c", "a.example"));
    assert_eq!((seen.one("cookie"), seen.one("x-identity-subject"), seen.one("x-forwarded-proto")), ("a=1; b=2", "u1", "https"));
    assert!(seen.body.is_empty() && seen.all("te").is_empty() && seen.all("transfer-encoding").is_empty(), "{seen:?}");
    let id = answer.headers.get_all("x-request-id").iter().next().unwrap().to_str().unwrap();
    assert_eq!(served.gateway.audit(id)["subject"], "u1");
    assert_eq!(client.ask(request("HEAD", "/a", &[]), &[]).await.unwrap().status, 200);
    let preflight = [("access-control-request-method", "POST")];
    assert_eq!(client.ask(request("OPTIONS", "/a", &preflight), &[]).await.unwrap().status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_held_decided_about_and_sent_on_byte_for_byte() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    let mut client = served.open().await;
    let body = |size: usize| {
        let mut body = json!({ "user_id": "u1", "message": "" });
        body["message"] = "x".repeat(size.saturating_sub(body.to_string().len())).into();
        let text = Bytes::from(body.to_string());
        assert_eq!(text.len(), size.max(30));
        text
    };
    let pieces = |body: &Bytes, size: usize| body.chunks(size).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    for (size, piece, known) in
        [(30, 1, false), (30, 30, true), (64 * 1024, 7001, false), (64 * 1024 + 1, 9000, true), (900_000, 16_000, true)]
    {
        let (body, length) = (body(size), size.to_string());
        let mut headers = vec![("x-user-token", token())];
        headers.extend(known.then_some(("content-length", length)));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = client.ask(request("POST", "/api/sdk/chat", &headers), &pieces(&body, piece)).await.unwrap();
        assert_eq!(answer.status, 200, "{size} {:?}", answer.reason());
        let seen = upstream.last();
        assert!(seen.body == body, "{size}: {} bytes came", seen.body.len());
        assert!(seen.one("signature-input").contains("content-digest"), "{size}");
    }
    // Not held: passed on as it comes.
    let answer = client.ask(request("POST", "/elsewhere", &[]), &pieces(&body(300_000), 20_000)).await.unwrap();
    assert_eq!((answer.status.as_u16(), upstream.last().body.len()), (200, 300_000));
    // An empty body that was not announced as such, and one that was.
    for body in [&[Bytes::new()][..], &[]] {
        let answer = client.ask(request("POST", "/api/sdk/chat", &[("x-user-token", &token())]), body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.reason()), (200, ""), "{body:?}");
        assert!(upstream.last().body.is_empty());
    }
    let before = upstream.seen().len();
    let longer = client.ask(request("POST", "/api/sdk/chat", &[]), &pieces(&body(64 * 1024 + 1), 16_000)).await.unwrap();
    assert_eq!((longer.status.as_u16(), longer.reason()), (413, "body_too_large"));
    let other = Bytes::from_static(b"{\"user_id\":\"u2\"}");
    let other = client.ask(request("POST", "/api/sdk/chat", &[("x-user-token", &token())]), &[other]).await.unwrap();
    assert_eq!((other.status.as_u16(), other.reason()), (403, "subject_mismatch"));
    assert_eq!(upstream.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let upstream = Upstream::plain();
    let served = Served::new(&with_tls(upstream.address(), ONE).replace("threads = 2", "threads = 2\nbody_timeout = \"200ms\""));
    let client = served.open().await;
    let mut ready = client.0.clone().ready().await.unwrap();
    let (answer, mut body) = ready.send_request(request("POST", "/api/sdk/chat", &[]), false).unwrap();
    body.send_data(Bytes::from_static(b"{"), false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").unwrap();
    assert_eq!(answer.status(), 408);
    assert!(upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_leaves_the_connection_to_the_other_requests() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    let mut client = served.open().await;
    let body = vec![Bytes::from(vec![b'x'; 16_000]); 20];
    for _ in 0..3 {
        let denied = client.ask(request("POST", "/a", &[("x-user-token", "forged")]), &body).await.unwrap();
        assert_eq!((denied.status.as_u16(), denied.reason()), (403, "token_malformed"));
        assert_eq!(denied.headers.get_all("access-control-allow-origin").iter().next().unwrap(), ORIGIN);
        let problem: serde_json::Value = serde_json::from_slice(&denied.body).unwrap();
        assert_eq!(problem["reason"], "token_malformed");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(client.ask(request("GET", "/a", &[]), &[]).await.unwrap().status, 200);
    let (mut one, mut two) = (Client(client.0.clone()), Client(client.0.clone()));
    let (one, two) = tokio::join!(one.ask(request("GET", "/1", &[]), &[]), two.ask(request("POST", "/2", &[]), &body));
    assert!(one.unwrap().status == 200 && two.unwrap().status == 200);
}

const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// What came of an event stream: its text, how it ended, and when.
async fn events(client: &mut Client) -> (String, Option<h2::Error>, Duration) {
    let token = jwt(&json!({ "user_id": "u1", "exp": in_seconds(2) }));
    let headers = [("x-user-token", token.as_str()), ("accept", "text/event-stream")];
    let answer = client.begin(request("GET", "/events", &headers), &[]).await.unwrap().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut text, mut stream, started) = (String::new(), answer.into_body(), tokio::time::Instant::now());
    loop {
        match tokio::time::timeout(PATIENCE, stream.data()).await.expect("an end in time") {
            Some(Ok(piece)) => {
                stream.flow_control().release_capacity(piece.len()).unwrap();
                text.push_str(std::str::from_utf8(&piece).unwrap());
            }
            Some(Err(error)) => return (text, Some(error), started.elapsed()),
            None => return (text, None, started.elapsed()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_ends_with_the_identity_behind_it() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(EVENTS)?;
        loop {
            stream.write_all(&chunk("data: more\n\n"))?;
            thread::park_timeout(Duration::from_millis(100));
        }
    });
    let closing = "[tenant.streams]\nevents = \"close\"\ngrace = \"0s\"\n";
    let served = Served::new(&(with_tls(upstream.address(), ONE) + closing));
    let mut client = served.open().await;
    let (text, error, took) = events(&mut client).await;
    assert!(text.starts_with("data: more\n\n") && took < Duration::from_secs(10), "{took:?}");
    assert!(text.ends_with("event: doorward-expired\ndata: {\"reason\":\"token_expired\"}\n\n"), "{text}");
    assert!(error.is_some_and(|e| e.is_reset()), "the stream is reset, the connection is not");

    // A silent one is cut: nothing can be said between its pieces.
    let silent = Upstream::start(|_, stream| {
        stream.write_all(EVENTS)?;
        stream.write_all(&chunk("data: once\n\n"))?;
        thread::park_timeout(PATIENCE);
        Ok(())
    });
    let served = Served::new(&(with_tls(silent.address(), ONE) + closing));
    let mut client = served.open().await;
    let (text, error, took) = events(&mut client).await;
    assert_eq!(text, "data: once\n\n");
    assert!(error.is_some() && took < Duration::from_secs(10), "{took:?}");
    let metric = r#"doorward_requests_total{level="verified",outcome="failed",reason="token_expired",tenant="acme"}"#;
    served.gateway.counted(metric, 1.0);
}

/// A client that sends the frames it is given.
struct Raw<S>(S);

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Literal fields, never indexed (RFC 7541 §6.2.3).
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        assert!(name.len() < 127 && value.len() < 127);
        block.push(0x10);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    async fn open(mut stream: S) -> Self {
        stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
        Self(stream)
    }

    /// The next frame: its kind, stream and payload. `None` at the end.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut header)).await.expect("a frame in time").ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((header[3], u32::from_be_bytes([header[5], header[6], header[7], header[8]]), payload))
    }

    /// How a request with this header block ends: `status NNN`, `reset` or `closed`.
    async fn told(&mut self, stream: u32, block: &[u8]) -> String {
        if self.0.write_all(&frame(1, END_STREAM | END_HEADERS, stream, block)).await.is_err() {
            return "closed".to_owned();
        }
        loop {
            match self.next().await {
                Some((1, id, payload)) if id == stream => {
                    // The first field is the status, from the static table (RFC 7541 Appendix A).
                    let status = match payload[0] {
                        0x88 => "200",
                        0x8c => "400",
                        0x8d => "404",
                        _ => "other",
                    };
                    return format!("status {status}");
                }
                Some((3, id, _)) if id == stream => return "reset".to_owned(),
                Some((7, ..)) | None => return "closed".to_owned(),
                Some(_) => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_two_readings_is_refused() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    let config = served.authority.client_config(&["h2"]);
    let bearer = format!("Bearer {KEY}");
    let base = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/a"),
        (":authority", "a.example"),
        ("authorization", &bearer),
        ("origin", ORIGIN),
    ];
    let replaced = |name: &str, value: &'static str| -> Vec<(&str, &str)> {
        base.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect()
    };
    let added = |field: (&'static str, &'static str)| -> Vec<(&str, &str)> { base.iter().copied().chain([field]).collect() };
    let without = |name: &str| -> Vec<(&str, &str)> { base.iter().copied().filter(|(n, _)| *n != name).collect() };
    for (block, expected) in [
        (base.to_vec(), "status 200"),
        (added(("host", "a.example")), "status 200"),
        (added(("host", "b.example")), "refused"),
        (added(("host", "")), "refused"),
        (without(":authority"), "refused"),
        (replaced(":authority", "user@a.example"), "refused"),
        (replaced(":authority", "a.example, b.example"), "refused"),
        (replaced(":path", "/a b"), "refused"),
        (replaced(":path", "/a\r\nx: y"), "refused"),
        (replaced(":path", "//b.example/"), "refused"),
        (replaced(":path", "http://b.example/"), "refused"),
        (replaced(":path", "/a/../b"), "refused"),
        (replaced(":path", ""), "refused"),
        (replaced(":method", "TRACE"), "refused"),
        (replaced(":method", "G ET"), "refused"),
        (added(("connection", "close")), "refused"),
        (added(("connection", "x-identity-subject")), "refused"),
        (added(("keep-alive", "timeout=5")), "refused"),
        (added(("proxy-connection", "close")), "refused"),
        (added(("transfer-encoding", "chunked")), "refused"),
        (added(("upgrade", "websocket")), "refused"),
        (added(("te", "gzip")), "refused"),
        (added(("te", "trailers")), "status 200"),
        (added(("x_identity_subject", "victim")), "refused"),
        (added(("X-Upper", "a")), "refused"),
        (added(("x-a", "b\r\nx-identity-subject: victim")), "refused"),
        (added(("x-a", "b\0")), "refused"),
        (added(("content-length", "5")), "refused"),
        (added(("content-length", "+0")), "refused"),
        (added((":path", "/b")), "refused"),
        (added((":protocol", "websocket")), "refused"),
    ] {
        upstream.forget();
        let mut raw = Raw::open(connect(served.gateway.last_place(), "a.example", &config).await.unwrap()).await;
        let told = raw.told(1, &fields(&block)).await;
        let refused = ["status 400", "status other", "reset", "closed"].contains(&told.as_str());
        assert!(told == expected || (expected == "refused" && refused), "{told}: {block:?}");
        assert_eq!(upstream.seen().is_empty(), expected == "refused", "{block:?}");
    }
}

/// What is sent in each round.
type Flood<'f> = dyn Fn(u32) -> Vec<u8> + Sync + 'f;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_own_connection_only() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    let config = served.authority.client_config(&["h2"]);
    let bearer = format!("Bearer {KEY}");
    let block = fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/a"),
        (":authority", "a.example"),
        ("authorization", &bearer),
        ("origin", ORIGIN),
    ]);
    let rapid_reset =
        |round: u32| [frame(1, END_STREAM | END_HEADERS, round * 2 + 1, &block), frame(3, 0, round * 2 + 1, &[0, 0, 0, 8])].concat();
    let continuation = |round: u32| {
        if round == 0 { frame(1, END_STREAM, 1, &block) } else { frame(9, 0, 1, &fields(&[("x-filler", "0123456789abcdef")])) }
    };
    let empty_data = |round: u32| if round == 0 { frame(1, END_HEADERS, 1, &block) } else { frame(0, 0, 1, &[]) };
    let pings = |_: u32| frame(6, 0, 0, &[0; 8]);
    // Window overflow: the server must reset, over and over (MadeYouReset, CVE-2025-8671).
    let made_to_reset = |round: u32| {
        let stream = round * 2 + 1;
        let overflow = frame(8, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [frame(1, END_STREAM | END_HEADERS, stream, &block), overflow].concat()
    };
    let floods: [(&str, &Flood<'_>, bool); 5] = [
        ("rapid reset", &rapid_reset, true),
        ("CONTINUATION", &continuation, true),
        ("empty DATA", &empty_data, true),
        ("made to reset", &made_to_reset, true),
        ("PING", &pings, false),
    ];
    for (name, flood, must_close) in floods {
        let stream = connect(served.gateway.last_place(), "a.example", &config).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        write.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
        let sent = async {
            for round in 0..20_000 {
                if write.write_all(&flood(round)).await.is_err() {
                    return true;
                }
            }
            false
        };
        let read_all = async {
            let mut buffer = [0; 16 * 1024];
            while let Ok(1..) = read.read(&mut buffer).await {}
            true
        };
        let closed = tokio::select! {
            closed = sent => closed,
            closed = read_all => closed,
            () = tokio::time::sleep(PATIENCE) => false,
        };
        assert!(closed || !must_close, "{name} went on for ever");
        let mut client = served.open().await;
        let answer = client.ask(request("GET", "/probe", &[]), &[]).await.unwrap();
        assert_eq!(answer.status, 200, "after {name}");
        assert!(upstream.seen().len() < 500, "{name}: {} requests reached the backend", upstream.seen().len());
        upstream.forget();
    }
    until("all of them to be over", || (served.gateway.metric("doorward_requests_in_flight") == 0.0).then_some(()));
}

/// Each request is taken on before it is reset, so the library sees nothing wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_reset_once_they_are_taken_on_are_counted() {
    let upstream = Upstream::start(|_, _| {
        thread::park_timeout(PATIENCE);
        Err(std::io::Error::other("never"))
    });
    let served = Served::before(&upstream);
    let mut client = served.open().await;
    let mut taken_on = 0;
    for round in 1..300 {
        let Ok(answer) = client.begin(request("GET", "/a", &[]), &[]).await else { break };
        let there = async {
            while upstream.seen().len() < round {
                tokio::time::sleep(Duration::from_millis(1)).await; // polls, under the deadline below
            }
        };
        tokio::select! {
            () = there => taken_on = round,
            () = tokio::time::sleep(Duration::from_secs(2)) => break, // the connection is gone
        }
        drop(answer); // resets it
    }
    assert!((100..=102).contains(&taken_on), "{taken_on}");
    assert!(client.ask(request("GET", "/a", &[]), &[]).await.is_err());
    until("all of them to be over", || (served.gateway.metric("doorward_requests_in_flight") == 0.0).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_lists_are_bounded() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    let mut client = served.open().await;
    let long = "x".repeat(16 * 1024);
    let answer = client.ask(request("GET", "/a", &[("x-a", &long)]), &[]).await.unwrap();
    assert_eq!(answer.status, 200);
    let answer = client.ask(request("GET", "/a", &[("x-a", &long), ("x-b", &long)]), &[]).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.reason()), (431, "request_header_too_large"));
    let many: Vec<_> = (0..100).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "a")).collect();
    assert_eq!(client.ask(request("GET", "/a", &many), &[]).await.unwrap().status, 431);
    // The library answers what is longer than it may be decoded.
    let refused = client.ask(request("GET", "/a", &[("x-a", &long), ("x-b", &long), ("x-c", &long)]), &[]).await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 431));
    assert_eq!(upstream.seen().len(), 1);
}

fn with_listener(upstream: SocketAddr, keys: &str) -> String {
    halo(upstream, "").replace("[upstream]", &format!("[[server.listener]]\naddress = \"127.0.0.1:0\"\n{keys}\n[upstream]"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_text_speaks_http_2_only_where_it_is_written() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&with_listener(upstream.address(), "h2c = true"));
    let mut client = Client::over(TcpStream::connect(gateway.last_place()).await.unwrap()).await;
    assert_eq!(client.ask(request("GET", "/a", &[]), &[]).await.unwrap().status, 200);
    assert_eq!(upstream.last().one("x-forwarded-proto"), "http");
    let get = |first: &[u8]| {
        let mut connection = http1::Connection::open(gateway.last_place());
        connection.send(first).unwrap();
        connection.send(&http1::request("OST", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"x")).unwrap();
        connection.answer("POST").unwrap().status
    };
    assert_eq!(get(b"P"), 200, "HTTP/1.1 that begins like the preface");
    // Elsewhere it is no request.
    let mut connection = http1::Connection::open(gateway.address);
    connection.send(PREFACE).unwrap();
    assert_eq!(connection.answer("PRI").map(|a| a.status), Some(400));
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_can_be_switched_off() {
    let upstream = Upstream::plain();
    let config = with_tls(upstream.address(), ONE)
        .replace("address = \"127.0.0.1:0\"\n[server", "address = \"127.0.0.1:0\"\nhttp2 = false\n[server");
    let served = Served::new(&config);
    let both = connect(served.gateway.last_place(), "a.example", &served.authority.client_config(&["h2", "http/1.1"])).await.unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(connect(served.gateway.last_place(), "a.example", &served.authority.client_config(&["h2"])).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_is_finished_before_the_end() {
    let upstream = Upstream::start(|_, stream| {
        thread::park_timeout(Duration::from_millis(500));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
    });
    let mut served = Served::before(&upstream);
    let mut client = served.open().await;
    let asked = client.begin(request("GET", "/slow", &[]), &[]).await.unwrap();
    until("the upstream to have it", || upstream.seen().first().cloned());
    served.gateway.signal("TERM");
    let answer = asked.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().data().await.unwrap().unwrap(), "late");
    assert_eq!(served.gateway.wait(), 0);
}

#[test]
fn curl_speaks_it() {
    let upstream = Upstream::plain();
    let served = Served::before(&upstream);
    std::fs::write(served.gateway.path("ca.pem"), served.authority.pem()).unwrap();
    assert!(served.pair.certificate.contains("BEGIN CERTIFICATE"));
    let port = served.gateway.last_place().port();
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let ran = std::process::Command::new("curl")
            .args([
                "-sS",
                flag,
                "--cacert",
                "ca.pem",
                "-w",
                "\n%{http_version} %{http_code}",
                "--resolve",
                &format!("a.example:{port}:127.0.0.1"),
            ])
            .args(["-H", &format!("Authorization: Bearer {KEY}"), "-H", &format!("Origin: {ORIGIN}"), "-d", "{\"message\":\"hi\"}"])
            .arg(format!("https://a.example:{port}/api/sdk/chat"))
            .current_dir(served.gateway.directory.path())
            .output()
            .expect("curl (see .ci/deps)");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(said, format!("{{\"ok\":true}}\n{version} 200"), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(upstream.last().body, b"{\"message\":\"hi\"}");
        assert_eq!(upstream.last().one("host"), format!("a.example:{port}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_one_place_for_all_its_requests() {
    let upstream = Upstream::plain();
    let limits = "\n[server.limits]\nmax_connections_per_client = 1\n[upstream]";
    let served = Served::new(&with_tls(upstream.address(), ONE).replace("\n[upstream]", limits));
    let mut client = served.open().await;
    for _ in 0..3 {
        assert_eq!(client.ask(request("GET", "/a", &[]), &[]).await.unwrap().status, 200);
    }
    assert_eq!(served.gateway.metric("doorward_connections"), 1.0);
    let config = served.authority.client_config(&["h2"]);
    assert!(connect(served.gateway.last_place(), "a.example", &config).await.is_err());
    assert_eq!(client.ask(request("GET", "/a", &[]), &[]).await.unwrap().status, 200, "the one that is there stays");
    drop(client);
    until("its place to be free", || (served.gateway.metric("doorward_connections") == 0.0).then_some(()));
    assert_eq!(served.open().await.ask(request("GET", "/a", &[]), &[]).await.unwrap().status, 200);
}
