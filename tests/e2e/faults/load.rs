//! Callers that never stop: some keep their connection, some open one for each request, some show a forged token. Each knows
//! which answer is its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::gateway::{KEY, ORIGIN, in_seconds, jwt, jwt_with, until};
use crate::http;
use crate::upstream::{Seen, Upstream};

/// Longest that a caller waits for a connection or for bytes.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a caller behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Keeps,
    Opens,
    Forges,
}

/// Who calls, in turn.
const CALLERS: [Kind; 6] = [Kind::Keeps, Kind::Opens, Kind::Keeps, Kind::Forges, Kind::Keeps, Kind::Opens];
/// In words.
pub const SAID: &str = "6 callers without a pause: 3 keep their connection, 2 open one each time, 1 forges";

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    pub wrong: AtomicU64,
    pub lost: AtomicU64,
    /// Times that nobody listened: no connection, so no request.
    pub refused: AtomicU64,
    /// Longest time from sending to the answer's end, in microseconds.
    pub slowest: AtomicU64,
}

/// The callers; they stop when dropped.
pub struct Load {
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// An upstream that says who it was told is calling.
pub fn echo() -> Upstream {
    Upstream::start(|seen, stream| stream.write_all(&echoed(seen)))
}

fn echoed(seen: &Seen) -> Vec<u8> {
    let said = |name: &str| seen.all(name).join(",");
    let body = format!("{} {} {} {}", said("x-identity-subject"), seen.target, seen.body.len(), said("x-identity-request-id"));
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let (counts, stop) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let caller = |(number, kind)| {
            let mut caller = Caller::new(address, number, kind, Arc::clone(&counts));
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    caller.call();
                }
            })
        };
        let threads = CALLERS.into_iter().enumerate().map(caller).collect();
        Self { counts, stop, threads }
    }

    /// Waits until this many more requests were answered.
    #[track_caller]
    pub fn more(&self, requests: u64) {
        let wanted = self.answered() + requests;
        until("more answers", || (self.answered() >= wanted).then_some(()));
    }

    fn answered(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst) - self.counts.lost.load(Ordering::SeqCst)
    }

    /// Lets everybody finish what they began; then requests, wrong and lost ones, and the longest wait.
    pub fn finish(mut self) -> (u64, u64, u64, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a caller");
        }
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let counts = &self.counts;
        (read(&counts.requests), read(&counts.wrong), read(&counts.lost), Duration::from_micros(read(&counts.slowest)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Caller {
    address: SocketAddr,
    kind: Kind,
    subject: String,
    token: String,
    calls: u64,
    kept: Option<TcpStream>,
    counts: Arc<Counts>,
}

impl Caller {
    fn new(address: SocketAddr, number: usize, kind: Kind, counts: Arc<Counts>) -> Self {
        let subject = format!("caller-{number}");
        let claims = serde_json::json!({ "user_id": subject, "exp": in_seconds(3000) });
        let token = if kind == Kind::Forges { jwt_with("another_secret_0123456789abcdef0", &claims) } else { jwt(&claims) };
        Self { address, kind, subject, token, calls: 0, kept: None, counts }
    }

    fn call(&mut self) {
        let Some(mut stream) = self.connection() else {
            self.counts.refused.fetch_add(1, Ordering::SeqCst);
            thread::park_timeout(Duration::from_millis(2));
            return;
        };
        self.calls += 1;
        self.counts.requests.fetch_add(1, Ordering::SeqCst);
        let (method, body) = if self.calls.is_multiple_of(2) { ("POST", "{\"message\":\"hello\"}") } else { ("GET", "") };
        let target = format!("/chat/{}", self.calls);
        let bearer = format!("Bearer {KEY}");
        let mut headers = vec![("Authorization", bearer.as_str()), ("Origin", ORIGIN), ("X-User-Token", &self.token)];
        if self.kind != Kind::Keeps {
            headers.push(("Connection", "close"));
        }
        let sent = Instant::now();
        let request = http::request(method, &target, &headers, body.as_bytes());
        let answer = stream.write_all(&request).and_then(|()| read(&mut stream));
        let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counts.slowest.fetch_max(took, Ordering::SeqCst);
        match answer {
            Ok(answer) => {
                if !self.is_own(&answer, &target, body.len()) {
                    eprintln!("{} was answered {answer:?}", self.subject);
                    self.counts.wrong.fetch_add(1, Ordering::SeqCst);
                }
                self.kept = (self.kind == Kind::Keeps && !answer.closes).then_some(stream);
            }
            Err(error) => {
                eprintln!("{} ({:?}) lost a request: {error}", self.subject, self.kind);
                self.counts.lost.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// The kept connection, unless the gateway closed it; else a new one, where somebody listens.
    fn connection(&mut self) -> Option<TcpStream> {
        if let Some(stream) = self.kept.take()
            && is_open(&stream)
        {
            return Some(stream);
        }
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(stream)
    }

    fn is_own(&self, answer: &Answer, target: &str, length: usize) -> bool {
        if self.kind == Kind::Forges {
            return answer.status == 403 && answer.header("x-doorward-reason") == Some("token_signature_invalid");
        }
        let own = format!("{} {target} {length} {}", self.subject, answer.header("x-request-id").unwrap_or("none"));
        answer.status == 200 && answer.body == own.as_bytes()
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    stream.set_nonblocking(false).is_ok() && looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    closes: bool,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads an answer to its end; anything less is an error.
fn read(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>| {
        let mut piece = [0; 8192];
        let n = stream.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..n]);
        let got = format!("the connection ended after {} bytes", bytes.len());
        if n == 0 { Err(std::io::Error::new(ErrorKind::UnexpectedEof, got)) } else { Ok(()) }
    };
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        if let Ok(httparse::Status::Complete(length)) = head.parse(&bytes) {
            let status = head.code.unwrap_or_default();
            let text = |h: &httparse::Header<'_>| (h.name.to_lowercase(), String::from_utf8_lossy(h.value).into_owned());
            let headers: Vec<_> = head.headers.iter().map(text).collect();
            let mut answer = Answer { status, headers, body: bytes.split_off(length), closes: false };
            let length = answer.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0_usize);
            answer.closes = answer.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
            while answer.body.len() < length {
                more(&mut answer.body)?;
            }
            return Ok(answer);
        }
        more(&mut bytes)?;
    }
}
