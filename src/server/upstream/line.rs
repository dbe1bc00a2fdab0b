//! Connections to backends that can be hung up on. The framework has one read timeout for a whole answer and none for an
//! exchange, waits for an answer when its write timeout has passed, and its hooks see no silence; so each connection is
//! made here, with a second descriptor of its socket, and what a request is waiting for is noted beside it. A round ten
//! times a second shuts down what waited too long, and the framework sees the connection end. Costs a request some atomic
//! stores, and each connection one more descriptor.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::l4::Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, GetProxyDigest as _, SocketDigest};
use pingora::{Error, ErrorType, OrErr as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, Shutdown};

/// From one round to the next.
const ROUND: Duration = Duration::from_millis(100);
/// No time.
const NEVER: u64 = u64::MAX;

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Cut {
    FirstByte = 1,
    Silence = 2,
    Total = 3,
    Write = 4,
}

impl Cut {
    /// As in audit records.
    pub(in crate::server) const fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "no answer within first_byte_timeout",
            Self::Silence => "silent within its answer for read_timeout",
            Self::Total => "not over within total_timeout",
            Self::Write => "took no bytes within write_timeout",
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::FirstByte),
            2 => Some(Self::Silence),
            3 => Some(Self::Total),
            4 => Some(Self::Write),
            _ => None,
        }
    }
}

/// How long a line is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// When all must be over.
    pub(super) deadline: Option<Instant>,
    /// Longest silence within an answer.
    pub(super) silence: Duration,
    /// Longest time in which no bytes are taken.
    pub(super) write: Duration,
}

/// One connection. Times are milliseconds since the process began to count.
#[derive(Debug)]
pub(super) struct Line {
    socket: OwnedFd,
    /// When the head of the answer is due.
    first_byte: AtomicU64,
    /// When something of the answer came last, and how long silence may last from then.
    heard: AtomicU64,
    silence: AtomicU64,
    /// When something of the request was sent last, and how long it may take to be taken.
    sent: AtomicU64,
    write: AtomicU64,
    /// When all must be over.
    total: AtomicU64,
    cut: AtomicU8,
}

impl Line {
    fn new(socket: impl AsFd) -> std::io::Result<Self> {
        let never = || AtomicU64::new(NEVER);
        let socket = socket.as_fd().try_clone_to_owned()?;
        let (sent, write, total) = (never(), never(), never());
        Ok(Self { socket, first_byte: never(), heard: never(), silence: never(), sent, write, total, cut: AtomicU8::new(0) })
    }

    /// A request takes the line.
    pub(super) fn begin(&self, watch: Watch) {
        self.rest();
        self.cut.store(0, Relaxed);
        self.silence.store(length(watch.silence), Relaxed);
        self.write.store(length(watch.write), Relaxed);
        self.total.store(watch.deadline.map_or(NEVER, since), Relaxed);
    }

    /// A piece of the request is on its way.
    pub(super) fn sends(&self, now: Instant) {
        self.sent.store(since(now), Relaxed);
    }

    /// The answer is due.
    pub(super) fn await_answer(&self, at: Instant) {
        self.first_byte.store(since(at), Relaxed);
    }

    /// Something of the answer came, and more must.
    pub(super) fn hears(&self, now: Instant) {
        self.first_byte.store(NEVER, Relaxed);
        if self.total.load(Relaxed) != NEVER {
            self.heard.store(since(now), Relaxed);
        }
    }

    /// Nothing is waited for: the exchange is over, or a stream.
    pub(super) fn rest(&self) {
        self.first_byte.store(NEVER, Relaxed);
        self.heard.store(NEVER, Relaxed);
        self.sent.store(NEVER, Relaxed);
        self.total.store(NEVER, Relaxed);
    }

    /// Why it was hung up on, if it was.
    pub(super) fn cut(&self) -> Option<Cut> {
        Cut::of(self.cut.load(Relaxed))
    }

    fn overdue(&self, now: u64) -> Option<Cut> {
        if self.total.load(Relaxed) <= now {
            return Some(Cut::Total);
        }
        if self.first_byte.load(Relaxed) <= now {
            return Some(Cut::FirstByte);
        }
        let (sent, write) = (self.sent.load(Relaxed), self.write.load(Relaxed));
        if sent.saturating_add(write) <= now && self.is_stuck() {
            return Some(Cut::Write);
        }
        let (heard, silence) = (self.heard.load(Relaxed), self.silence.load(Relaxed));
        (heard.saturating_add(silence) <= now && self.is_silent(silence)).then_some(Cut::Silence)
    }

    /// Whether it is the backend that is silent: nothing is there that we have not read, because a client does not take it,
    /// and nothing came in the meantime.
    fn is_silent(&self, silence: u64) -> bool {
        let mut byte = [0_u8; 1];
        let unread = rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        if unread != Err(rustix::io::Errno::AGAIN) {
            return false; // bytes, or the end: somebody is about to see it
        }
        let info = SocketDigest::from_raw_fd(self.socket.as_raw_fd()).tcp_info();
        info.is_none_or(|info| u64::from(info.tcpi_last_data_recv) >= silence) // a Unix socket does not tell
    }

    /// Whether it is the backend that takes nothing, and not the client that sends nothing: there is no room in the socket.
    fn is_stuck(&self) -> bool {
        let mut asked = [PollFd::new(&self.socket, PollFlags::OUT)];
        let polled = rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled == Ok(0)
    }

    fn look(&self, now: u64) {
        if let Some(cut) = self.overdue(now)
            && self.cut.compare_exchange(0, cut as u8, Relaxed, Relaxed).is_ok()
        {
            // Fails where the other end has gone already.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        }
    }
}

/// All lines that are open. Makes new ones for the framework.
#[derive(Debug, Default)]
pub(in crate::server) struct Lines(Mutex<Vec<Weak<Line>>>);

impl Lines {
    /// Looks after them until they are gone.
    pub(in crate::server) async fn watch(lines: Weak<Self>) {
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            let Some(lines) = lines.upgrade() else { return };
            let now = since(Instant::now());
            lines.0.lock().retain(|line| line.upgrade().inspect(|line| line.look(now)).is_some());
        }
    }

    fn add(&self, mut stream: Stream, line: Line) -> Result<Stream> {
        let line = Arc::new(line);
        self.0.lock().push(Arc::downgrade(&line));
        // The framework's place for what came before HTTP; there was no proxy's answer, so it is an empty one.
        stream.set_proxy_digest(ProxyDigest::new(Box::new(ResponseHeader::build(200, Some(0))?), Some(Box::new(line))));
        Ok(stream)
    }
}

#[async_trait]
impl Connect for Lines {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let line = |socket: std::io::Result<Line>| socket.or_err(ErrorType::SocketError, "no second descriptor of a connection");
        match address {
            SocketAddr::Inet(address) => {
                let socket = ext::connect(address, None).await?;
                let line = line(Line::new(&socket))?;
                self.add(socket.into(), line)
            }
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| Error::explain(ErrorType::InternalError, "a socket without a path"))?;
                let socket = ext::connect_uds(path).await?;
                let line = line(Line::new(&socket))?;
                self.add(socket.into(), line)
            }
        }
    }
}

/// The line that a connection is.
pub(super) fn of(digest: Option<&Digest>) -> Option<Arc<Line>> {
    digest?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Arc<Line>>().cloned()
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn since(at: Instant) -> u64 {
    length(at.saturating_duration_since(*START))
}

fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn watched(line: &Line, deadline: Option<Instant>) {
        line.begin(Watch { deadline, silence: Duration::from_millis(1), write: SECOND });
    }

    #[test]
    fn what_waits_too_long_is_hung_up_on() {
        let (ours, mut theirs) = pair();
        let (line, now) = (Line::new(&ours).unwrap(), Instant::now());
        watched(&line, Some(now + 9 * SECOND));
        line.look(since(now + 8 * SECOND));
        assert_eq!(line.cut(), None, "while a request is sent, only the whole counts");
        line.await_answer(now + 2 * SECOND);
        line.look(since(now + SECOND));
        assert_eq!(line.cut(), None);
        line.look(since(now + 3 * SECOND));
        assert_eq!(line.cut(), Some(Cut::FirstByte));
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0, "the backend sees the end");
        watched(&line, Some(now + 9 * SECOND));
        assert_eq!(line.cut(), None, "the next request begins anew");
        line.look(since(now + 10 * SECOND));
        assert_eq!(line.cut(), Some(Cut::Total));
    }

    #[test]
    fn silence_is_the_backends_only_where_nothing_waits_to_be_read() {
        let (ours, mut theirs) = pair();
        let (line, now) = (Line::new(&ours).unwrap(), Instant::now());
        watched(&line, Some(now + 9 * SECOND));
        line.hears(now);
        theirs.write_all(b"x").unwrap();
        while ours.peek(&mut [0; 1]).is_err() {}
        line.look(since(now + SECOND));
        assert_eq!(line.cut(), None, "a client that takes nothing is not the backend's fault");
        assert_eq!((&ours).read(&mut [0; 1]).unwrap(), 1);
        // The kernel counts from when the byte came.
        while line.cut().is_none() {
            line.look(since(now + SECOND));
        }
        assert_eq!(line.cut(), Some(Cut::Silence));
    }

    #[test]
    fn a_full_socket_is_the_backends_and_an_empty_one_the_clients() {
        let (mut ours, _theirs) = pair();
        let (line, now) = (Line::new(&ours).unwrap(), Instant::now());
        watched(&line, Some(now + 9 * SECOND));
        line.sends(now);
        line.look(since(now + 2 * SECOND));
        assert_eq!(line.cut(), None, "all was taken: the client has sent no more");
        while ours.write(&[0; 64 * 1024]).is_ok() {}
        line.look(since(now + SECOND / 2));
        assert_eq!(line.cut(), None);
        line.look(since(now + 2 * SECOND));
        assert_eq!(line.cut(), Some(Cut::Write));
    }

    #[test]
    fn streams_and_idle_lines_wait_for_ever() {
        let (ours, _theirs) = pair();
        let (line, now) = (Line::new(&ours).unwrap(), Instant::now());
        watched(&line, None);
        line.hears(now);
        line.look(since(now + 1000 * SECOND));
        assert_eq!(line.cut(), None, "without an end, silence is a stream's");
        watched(&line, Some(now));
        line.await_answer(now);
        line.rest();
        line.look(since(now + 1000 * SECOND));
        assert_eq!(line.cut(), None);
    }
}
