//! An upstream that keeps the bytes it really got and answers as it is told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which of the connections it came on, counted from 1.
    pub connection: usize,
}

impl Seen {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    #[track_caller]
    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {all:?} in {self:?}");
        all[0]
    }
}

type Behaviour = dyn Fn(&Seen, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// The upstream; stops listening when dropped.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers 200 with a JSON body.
    pub fn plain() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}")
    }

    /// Always answers these bytes.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_, stream| stream.write_all(&bytes))
    }

    /// Answers as told; an error closes the connection.
    pub fn start(behaviour: impl Fn(&Seen, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("bind"), behaviour)
    }

    /// The plain one at an address of one's own.
    pub fn at(address: impl std::net::ToSocketAddrs) -> Self {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        Self::on(TcpListener::bind(address).expect("bind"), move |_, stream| stream.write_all(answer))
    }

    fn on(listener: TcpListener, behaviour: impl Fn(&Seen, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("address");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let shared = (Arc::clone(&seen), Arc::clone(&connections), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.2.load(Ordering::SeqCst) > 0 {
                    return;
                }
                let Ok(stream) = stream else { return };
                let connection = shared.1.fetch_add(1, Ordering::SeqCst) + 1;
                let (seen, behaviour) = (Arc::clone(&shared.0), Arc::clone(&behaviour));
                thread::spawn(move || converse(stream, connection, &seen, &*behaviour));
            }
        });
        Self { address, seen, connections, stop }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Everything it got so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Forgets everything it got so far.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// The last request it got.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream got no request")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)); // wakes accept()
    }
}

fn converse(mut stream: TcpStream, connection: usize, seen: &Mutex<Vec<Seen>>, behaviour: &Behaviour) {
    let mut buffered = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffered) {
        let request = Seen { connection, ..request };
        seen.lock().unwrap().push(request.clone());
        if behaviour(&request, &mut stream).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream, buffered: &mut Vec<u8>) -> Option<Seen> {
    let mut fill = |buffered: &mut Vec<u8>| {
        let mut piece = [0; 64 * 1024];
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        buffered.extend_from_slice(&piece[..n]);
        Some(())
    };
    let (mut seen, length) = loop {
        let mut headers = [httparse::EMPTY_HEADER; 200];
        let mut head = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(length)) = head.parse(buffered) {
            let fields = head.headers.iter().map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()));
            let seen = Seen {
                method: head.method.unwrap().to_owned(),
                target: head.path.unwrap().to_owned(),
                headers: fields.collect(),
                body: Vec::new(),
                connection: 0,
            };
            break (seen, length);
        }
        fill(buffered)?;
    };
    buffered.drain(..length);
    if seen.target.starts_with("/early/") {
        seen.body = std::mem::take(buffered); // it answers before it has read the rest
        return Some(seen);
    }
    if seen.all("transfer-encoding").contains(&"chunked") {
        loop {
            let line_end = loop {
                if let Some(at) = buffered.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                fill(buffered)?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&buffered[..line_end]).ok()?, 16).ok()?;
            while buffered.len() < line_end + 2 + size + 2 {
                fill(buffered)?;
            }
            seen.body.extend_from_slice(&buffered[line_end + 2..line_end + 2 + size]);
            buffered.drain(..line_end + 2 + size + 2);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = seen.all("content-length").first().and_then(|v| v.parse::<usize>().ok()) {
        while buffered.len() < length {
            fill(buffered)?;
        }
        seen.body = buffered.drain(..length).collect();
    }
    Some(seen)
}
