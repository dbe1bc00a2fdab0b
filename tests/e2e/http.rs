//! A client that sends exactly the bytes it is given and shows exactly what came back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest a test waits for bytes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP/1.1 response as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The one value of a header.
    #[track_caller]
    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {all:?} in {self:?}");
        all[0]
    }

    pub fn reason(&self) -> &str {
        self.all("x-doorward-reason").first().copied().unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A connection that is kept.
pub struct Connection {
    stream: Box<dyn Both>,
    rest: Vec<u8>,
}

/// Both directions of a connection.
trait Both: std::io::Read + std::io::Write + Send {}
impl<S: std::io::Read + std::io::Write + Send> Both for S {}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self::over(stream)
    }

    /// Over a stream that is there, and gives up reading by itself.
    pub fn over(stream: impl std::io::Read + std::io::Write + Send + 'static) -> Self {
        Self { stream: Box::new(stream), rest: Vec::new() }
    }

    /// From another address of this machine, like 127.0.0.2.
    pub fn open_from(source: std::net::Ipv4Addr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("socket");
            socket.bind((source, 0).into()).expect("bind");
            socket.connect(address).await.expect("connect").into_std().expect("socket")
        });
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self::over(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// More bytes; `None` at the end.
    pub fn more(&mut self) -> Option<usize> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                self.rest.extend_from_slice(&buffer[..n]);
                Some(n)
            }
        }
    }

    /// The next head: status and headers. `None` when the connection ended instead.
    pub fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut response = httparse::Response::new(&mut headers);
            if let Ok(httparse::Status::Complete(length)) = response.parse(&self.rest) {
                let status = response.code.unwrap();
                let headers = response.headers.iter();
                let headers = headers.map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())).collect();
                self.rest.drain(..length);
                return Some((status, headers));
            }
            self.more()?;
        }
    }

    /// The next whole response, informational ones skipped. `None` when the connection ended instead.
    pub fn answer(&mut self, method: &str) -> Option<Answer> {
        let (status, headers) = loop {
            let head = self.head()?;
            if head.0 >= 200 || head.0 == 101 {
                break head;
            }
        };
        self.rest_of(method, status, headers)
    }

    /// The body behind a head. `None` when the connection ended before its end.
    pub fn rest_of(&mut self, method: &str, status: u16, headers: Vec<(String, String)>) -> Option<Answer> {
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method == "HEAD" || status == 204 || status == 304 || status == 101 {
            return Some(answer);
        }
        let chunked = answer.all("transfer-encoding").iter().any(|v| v.eq_ignore_ascii_case("chunked"));
        if chunked {
            answer.body = self.chunked()?;
        } else if let Some(length) = answer.all("content-length").first().map(|v| v.parse::<usize>().unwrap()) {
            answer.body = self.take(length)?;
        } else {
            while self.more().is_some() {}
            answer.body = std::mem::take(&mut self.rest);
        }
        Some(answer)
    }

    /// Exactly this many bytes.
    pub fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.rest.len() < length {
            self.more()?;
        }
        Some(self.rest.drain(..length).collect())
    }

    /// Up to and including this.
    pub fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.rest.windows(mark.len()).position(|w| w == mark) {
                return Some(self.rest.drain(..at + mark.len()).collect());
            }
            self.more()?;
        }
    }

    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim().split(';').next().unwrap(), 16).unwrap();
            let chunk = self.take(size)?;
            body.extend_from_slice(&chunk);
            self.take(2)?;
            if size == 0 {
                return Some(body);
            }
        }
    }
}

/// Sends a raw request on a connection of its own.
#[track_caller]
pub fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let request = request.as_ref();
    let mut connection = Connection::open(address);
    // The gateway may answer and close before it has read everything: the answer still counts.
    let sent = connection.send(request);
    let method = std::str::from_utf8(request.split(|b| *b == b' ').next().unwrap()).unwrap().to_owned();
    connection.answer(&method).unwrap_or_else(|| panic!("no answer to {:?} ({sent:?})", String::from_utf8_lossy(request)))
}

/// Asks a server by its own address, as the admin listener wants to be asked, on a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// A request with these lines and body; Content-Length is added where there is a body.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: gateway.test\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
