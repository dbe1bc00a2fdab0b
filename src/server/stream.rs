//! Streams that outlive their request's decision: where one may be ended, and with which last words. Fed by the proxy with
//! every piece of the answer, asked by [`super::wire`] when the time has come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::drain::Begun;
use crate::reason::Reason;

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 6455 frames.
    WebSocket,
    /// Server-sent events (HTML §9.2), in an answer that the gateway sends chunked, or until the connection closes.
    Events {
        /// Whether the answer is sent chunked (RFC 9112 §7.1).
        chunked: bool,
    },
    /// Anything else: it can only be cut.
    Opaque,
}

/// Says whether what the stream stands on has ended, and why.
type Judge = dyn Fn() -> Option<Reason> + Send + Sync;

/// The tenant's rule for a stream whose identity may end before it.
pub(super) struct Rule {
    /// How long it may go on then.
    pub(super) grace: Duration,
    /// Tells when.
    pub(super) judge: Box<Judge>,
}

/// One stream, shared by the proxy, which sees its pieces, and the connection, which can end it.
pub(super) struct Stream {
    kind: Kind,
    rule: Option<Rule>,
    resumes: bool,
    tracker: Mutex<Tracker>,
    at_boundary: AtomicBool,
    moved: AtomicBool,
    ended: OnceLock<Reason>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.kind)
    }
}

impl Stream {
    /// A stream whose client, where it `resumes`, opens it again when it ends.
    pub(super) fn new(kind: Kind, rule: Option<Rule>, resumes: bool) -> Self {
        Self {
            kind,
            rule,
            resumes,
            tracker: Mutex::default(),
            at_boundary: AtomicBool::new(kind != Kind::Opaque),
            moved: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    /// Whether what it stands on can end before it.
    pub(super) fn can_end(&self) -> bool {
        self.rule.is_some()
    }

    /// Whether its client opens it again when it ends.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Whether a piece was sent since this was last asked.
    pub(super) fn moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// Notes that it ends with the process, and gives back why it ends.
    pub(super) fn leave(&self) -> Reason {
        *self.ended.get_or_init(|| Reason::StreamDrained)
    }

    /// How long it may go on after what it stands on has ended.
    pub(super) fn grace(&self) -> Duration {
        self.rule.as_ref().map_or(Duration::ZERO, |rule| rule.grace)
    }

    /// Why what it stands on has ended, once it has. Remembered: it does not come back.
    pub(super) fn ended(&self) -> Option<Reason> {
        if self.ended.get().is_none()
            && let Some(reason) = self.rule.as_ref().and_then(|rule| (rule.judge)())
        {
            let _ = self.ended.set(reason); // set by nobody else: one task serves a connection
        }
        self.ended.get().copied()
    }

    /// The same, without looking again.
    pub(super) fn was_ended(&self) -> Option<Reason> {
        self.ended.get().copied()
    }

    /// Whether the last piece ended where another may be put behind it.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.at_boundary.load(Ordering::Relaxed)
    }

    /// Notes a piece of the answer that is about to be sent.
    pub(super) fn passes(&self, piece: &[u8]) {
        let at_boundary = match self.kind {
            Kind::WebSocket => self.tracker.lock().frames(piece),
            Kind::Events { .. } => self.tracker.lock().events(piece),
            Kind::Opaque => false,
        };
        self.at_boundary.store(at_boundary, Ordering::Relaxed);
        self.moved.store(true, Ordering::Relaxed);
    }

    /// What the client hears last, as sent on the wire.
    pub(super) fn last_words(&self, reason: Reason) -> Bytes {
        match self.kind {
            Kind::WebSocket => close_frame(reason),
            Kind::Events { chunked } => {
                let name = if reason == Reason::StreamDrained { "doorward-restart" } else { "doorward-expired" };
                let event = format!("event: {name}\ndata: {{\"reason\":\"{}\"}}\n\n", reason.code());
                if chunked { format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into() } else { event.into() }
            }
            Kind::Opaque => Bytes::new(),
        }
    }

    /// Whether the client answers the last words, so that its answer is waited for.
    pub(super) fn is_answered(&self) -> bool {
        self.kind == Kind::WebSocket
    }
}

/// How far the end of a stream is on HTTP/2, where many share a connection and nothing can be said between pieces: the last
/// words follow the first piece that ends at a boundary after the grace, and the next piece is not sent any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Parting {
    /// What it stands on held when the last piece came.
    #[default]
    Standing,
    /// It has ended: noticed then.
    Ended(Instant),
    /// The last words are said.
    Over,
}

/// Longest wait for a boundary after the grace.
const PATIENCE: Duration = Duration::from_secs(5);

impl Parting {
    /// Looks at a piece that is about to be sent, and adds the last words when it is time. Returns whether it may be sent.
    pub(super) fn passes(&mut self, stream: &Stream, piece: &mut Bytes, now: Instant, drain: Option<Begun>) -> bool {
        let Some(reason) = stream.ended() else {
            if let Some(drain) = drain
                && (stream.resumes() || now >= drain.last_call)
                && stream.is_at_boundary()
            {
                *piece = [piece.as_ref(), stream.last_words(stream.leave()).as_ref()].concat().into();
                *self = Self::Over;
            }
            return true;
        };
        let since = match *self {
            Self::Over => return false,
            Self::Ended(since) => since,
            Self::Standing => now,
        };
        *self = Self::Ended(since);
        let left = now.saturating_duration_since(since);
        if left >= stream.grace() && stream.is_at_boundary() {
            *piece = [piece.as_ref(), stream.last_words(reason).as_ref()].concat().into();
            *self = Self::Over;
            return true;
        }
        left < stream.grace() + PATIENCE
    }
}

/// WebSocket close codes 4000–4999 are for applications (RFC 6455 §7.4.2); 4401 says what a 401 says.
const IDENTITY_ENDED: u16 = 4401;
/// The server is going down (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

/// An unmasked close frame with a code and a reason (RFC 6455 §5.5.1).
fn close_frame(reason: Reason) -> Bytes {
    let number = if reason == Reason::StreamDrained { GOING_AWAY } else { IDENTITY_ENDED };
    let code = reason.code().as_bytes();
    let length = u8::try_from(code.len() + 2).unwrap_or(2); // reasons are short; a control frame has at most 125 bytes
    let mut frame = vec![0x88, length];
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend_from_slice(code.get(..usize::from(length) - 2).unwrap_or_default());
    frame.into()
}

/// How far into a frame or an event the bytes are.
#[derive(Debug, Default)]
struct Tracker {
    /// The frame header read so far.
    header: Vec<u8>,
    /// Payload bytes that are still to come.
    payload: u64,
    /// The end of what was sent, at most four bytes: enough for an empty line.
    tail: Vec<u8>,
}

impl Tracker {
    /// Whether these bytes end between two frames (RFC 6455 §5.2).
    fn frames(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { break };
            self.header.push(*first);
            bytes = rest;
            if let Some(payload) = payload_length(&self.header) {
                self.payload = payload;
                self.header.clear();
            }
        }
        self.header.is_empty() && self.payload == 0
    }

    /// Whether these bytes end behind an empty line (HTML §9.2.6: LF, CR LF or CR ends a line).
    fn events(&mut self, bytes: &[u8]) -> bool {
        let keep = bytes.len().saturating_sub(4);
        self.tail.extend_from_slice(bytes.get(keep..).unwrap_or_default());
        let cut = self.tail.len().saturating_sub(4);
        self.tail.drain(..cut);
        [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| self.tail.ends_with(end))
    }
}

/// The payload length that a complete frame header announces, its mask included.
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let extended = match second & 0x7f {
        126 => header.get(2..4).map(|b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b))),
        127 => header.get(2..10).map(|b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b))),
        short => Some(u64::from(short)),
    };
    extended.map(|length: u64| length.saturating_add(mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(kind: Kind) -> Stream {
        Stream::new(kind, None, true)
    }

    fn expired(kind: Kind, grace: u64) -> Stream {
        let rule = Rule { grace: Duration::from_secs(grace), judge: Box::new(|| Some(Reason::SessionExpired)) };
        Stream::new(kind, Some(rule), true)
    }

    #[test]
    fn frames_end_where_their_length_says() {
        let mut bytes = vec![0x81, 5];
        bytes.extend_from_slice(b"hello");
        bytes.extend_from_slice(&[0x82, 126, 1, 0]);
        bytes.extend_from_slice(&[7; 256]);
        bytes.extend_from_slice(&[0x89, 0x82, 1, 2, 3, 4, 9, 9]);
        bytes.extend_from_slice(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
        let ends: Vec<_> = [7, 7 + 260, 7 + 260 + 8, bytes.len()].into();
        let stream = stream(Kind::WebSocket);
        assert!(stream.is_at_boundary());
        for (index, byte) in bytes.iter().enumerate() {
            stream.passes(&[*byte]);
            assert_eq!(stream.is_at_boundary(), ends.contains(&(index + 1)), "after {} bytes", index + 1);
        }
        stream.passes(&bytes);
        assert!(stream.is_at_boundary(), "in one piece too");
    }

    #[test]
    fn events_end_behind_an_empty_line() {
        for (pieces, expected) in [
            (&["data: a\n\n"][..], true),
            (&["data: a\n"], false),
            (&["data: a\n", "\n"], true),
            (&["data: a\r\n\r", "\n"], true),
            (&["data: a\r\n\r"], false),
            (&["data: a\n\ndata: b"], false),
            (&["data: a\r\r"], true),
        ] {
            let stream = stream(Kind::Events { chunked: true });
            pieces.iter().for_each(|piece| stream.passes(piece.as_bytes()));
            assert_eq!(stream.is_at_boundary(), expected, "{pieces:?}");
        }
    }

    #[test]
    fn on_http_2_the_last_words_follow_a_piece() {
        let stream = expired(Kind::Events { chunked: false }, 5);
        let (start, mut parting) = (Instant::now(), Parting::default());
        let mut send = |text: &str, after: u64| {
            let mut piece = Bytes::from(text.to_owned());
            stream.passes(&piece);
            let passes = parting.passes(&stream, &mut piece, start + Duration::from_secs(after), None);
            passes.then(|| String::from_utf8(piece.to_vec()).unwrap())
        };
        assert_eq!(send("data: a\n\n", 0).as_deref(), Some("data: a\n\n"), "the grace runs");
        assert_eq!(send("data: b\n", 6).as_deref(), Some("data: b\n"), "no boundary");
        let last = "\nevent: doorward-expired\ndata: {\"reason\":\"session_expired\"}\n\n";
        assert_eq!(send("\n", 7).as_deref(), Some(last));
        assert_eq!(send("data: c\n\n", 8), None);
        let (opaque, mut parting) = (expired(Kind::Opaque, 0), Parting::default());
        assert!(parting.passes(&opaque, &mut Bytes::from("a"), start, None));
        assert!(!parting.passes(&opaque, &mut Bytes::from("b"), start + PATIENCE, None));
    }

    #[test]
    fn on_http_2_a_drain_is_told_behind_a_piece_at_once_or_at_the_last_call() {
        let start = Instant::now();
        let last_call = start + Duration::from_secs(9);
        let drain = Some(Begun { idle: Duration::ZERO, last_call });
        let told = "data: a\n\nevent: doorward-restart\ndata: {\"reason\":\"stream_drained\"}\n\n";
        for (resumes, now, expected) in [(true, start, told), (false, start, "data: a\n\n"), (false, last_call, told)] {
            let (stream, mut parting) = (Stream::new(Kind::Events { chunked: false }, None, resumes), Parting::default());
            let mut piece = Bytes::from("data: a\n\n");
            stream.passes(&piece);
            assert!(parting.passes(&stream, &mut piece, now, drain));
            assert_eq!(piece, expected);
            let again = parting.passes(&stream, &mut Bytes::from("data: b\n\n"), now, drain);
            assert_eq!(again, expected != told, "nothing comes behind the last words");
        }
    }

    #[test]
    fn last_words_are_well_formed() {
        let frame = stream(Kind::WebSocket).last_words(Reason::SessionExpired);
        assert_eq!(frame.as_ref(), b"\x88\x11\x11\x31session_expired");
        let frame = stream(Kind::WebSocket).last_words(Reason::StreamDrained);
        assert_eq!(frame.as_ref(), b"\x88\x10\x03\xe9stream_drained");
        let event = stream(Kind::Events { chunked: true }).last_words(Reason::SessionExpired);
        let text = std::str::from_utf8(&event).unwrap();
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        assert_eq!(rest.split_at(size).1, "\r\n0\r\n\r\n");
        assert!(rest.split_at(size).0.ends_with("\n\n"));
    }
}
