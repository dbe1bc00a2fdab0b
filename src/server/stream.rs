//! Streams that outlive their request's decision: where one may be ended, and with which last words. Fed by the proxy with
//! every piece of the answer, asked by [`super::wire`] when the time has come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

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

/// One stream, shared by the proxy, which sees its pieces, and the connection, which can end it.
pub(super) struct Stream {
    kind: Kind,
    grace: Duration,
    judge: Box<Judge>,
    tracker: Mutex<Tracker>,
    at_boundary: AtomicBool,
    ended: OnceLock<Reason>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.kind)
    }
}

impl Stream {
    pub(super) fn new(kind: Kind, grace: Duration, judge: impl Fn() -> Option<Reason> + Send + Sync + 'static) -> Self {
        Self {
            kind,
            grace,
            judge: Box::new(judge),
            tracker: Mutex::default(),
            at_boundary: AtomicBool::new(kind != Kind::Opaque),
            ended: OnceLock::new(),
        }
    }

    /// How long it may go on after what it stands on has ended.
    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// Why what it stands on has ended, once it has. Remembered: it does not come back.
    pub(super) fn ended(&self) -> Option<Reason> {
        if self.ended.get().is_none()
            && let Some(reason) = (self.judge)()
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
    }

    /// What the client hears last, as sent on the wire.
    pub(super) fn last_words(&self, reason: Reason) -> Bytes {
        match self.kind {
            Kind::WebSocket => close_frame(reason),
            Kind::Events { chunked } => {
                let event = format!("event: doorward-expired\ndata: {{\"reason\":\"{}\"}}\n\n", reason.code());
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

/// WebSocket close codes 4000–4999 are for applications (RFC 6455 §7.4.2); 4401 says what a 401 says.
const CLOSE_CODE: u16 = 4401;

/// An unmasked close frame with a code and a reason (RFC 6455 §5.5.1).
fn close_frame(reason: Reason) -> Bytes {
    let code = reason.code().as_bytes();
    let length = u8::try_from(code.len() + 2).unwrap_or(2); // reasons are short; a control frame has at most 125 bytes
    let mut frame = vec![0x88, length];
    frame.extend_from_slice(&CLOSE_CODE.to_be_bytes());
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
        Stream::new(kind, Duration::ZERO, || None)
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
    fn last_words_are_well_formed() {
        let frame = stream(Kind::WebSocket).last_words(Reason::SessionExpired);
        assert_eq!(frame.as_ref(), b"\x88\x11\x11\x31session_expired");
        let event = stream(Kind::Events { chunked: true }).last_words(Reason::SessionExpired);
        let text = std::str::from_utf8(&event).unwrap();
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        assert_eq!(rest.split_at(size).1, "\r\n0\r\n\r\n");
        assert!(rest.split_at(size).0.ends_with("\n\n"));
    }
}
