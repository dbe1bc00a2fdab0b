//! Counts the frames of an HTTP/2 connection: who opens requests only to reset them makes others work for nothing (rapid
//! reset, CVE-2023-44487), and the library notices only while a request has not been taken on. Reads frame headers, no
//! payload, and changes nothing; a connection that goes too far fails to read.

/// Length of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// What a client says first (RFC 9113 §3.4).
const PREFACE: u64 = 24;
/// Frame types (RFC 9113 §6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// Resets that anybody may send: pages are left, and searches are typed over.
const FREE: u64 = 100;
/// Beyond those, at most one in this many requests may be reset.
const ONE_IN: u64 = 2;

/// What a client has sent so far.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// How much of the header is there.
    filled: usize,
    /// Bytes to pass over: of the preface, then of payloads.
    skip: u64,
    opened: u64,
    reset: u64,
    ended: Option<&'static str>,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { header: [0; HEADER], filled: 0, skip: PREFACE, opened: 0, reset: 0, ended: None }
    }

    /// Looks at bytes and says how many of them may be passed on: all, or those up to the frame that went too far.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some((first, others)) = rest.split_first()
            && self.ended.is_none()
        {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
                self.skip -= skipped as u64;
                rest = rest.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.header.get_mut(self.filled) {
                *place = *first;
                self.filled += 1;
                rest = others;
            }
            if self.filled == HEADER {
                self.filled = 0;
                self.count();
            }
        }
        bytes.len() - rest.len()
    }

    /// Why no more bytes are passed on.
    pub(super) fn has_ended(&self) -> Option<&'static str> {
        self.ended
    }

    fn count(&mut self) {
        let [a, b, c, kind, ..] = self.header;
        self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
        match kind {
            HEADERS => self.opened += 1, // trailers too, which come at most once to a request
            RST_STREAM => self.reset += 1,
            _ => {}
        }
        if self.reset > FREE && self.reset * ONE_IN > self.opened {
            self.ended = Some("too many requests were reset");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER + payload, RST_STREAM); // a payload that would count, were it read
        frame
    }

    /// Bytes passed on, and whether it went on to the end.
    fn fed(bytes: &[u8], size: usize) -> (usize, bool) {
        let mut frames = Frames::new();
        let passed = bytes.chunks(size).map(|piece| frames.feed(piece)).sum();
        (passed, frames.has_ended().is_none())
    }

    #[test]
    fn what_clients_do_passes() {
        let mut bytes = LEAD.to_vec();
        for round in 0..500 {
            bytes.extend(frame(HEADERS, 40));
            bytes.extend(frame(0, 16_384));
            if round % 3 == 0 {
                bytes.extend(frame(RST_STREAM, 4));
            }
            bytes.extend([frame(6, 8), frame(8, 4)].concat());
        }
        for size in [1, 7, 4096, bytes.len()] {
            assert_eq!(fed(&bytes, size), (bytes.len(), true), "in pieces of {size}");
        }
    }

    #[test]
    fn rapid_reset_ends_the_connection() {
        let pair = [frame(HEADERS, 40), frame(RST_STREAM, 4)].concat();
        let bytes = [LEAD, &pair.repeat(1000)].concat();
        let expected = LEAD.len() + pair.len() * 101 - 4;
        for size in [1, 4096, bytes.len()] {
            assert_eq!(fed(&bytes, size), (expected, false), "in pieces of {size}");
        }
    }
}
