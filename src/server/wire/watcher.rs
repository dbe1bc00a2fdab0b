//! Follows the requests on one connection byte by byte: where each head and body ends, and what of it is refused. Copies
//! nothing but a head that came in pieces, and never changes a byte. Fed by [`super::Watched`]; asked by the proxy once
//! per request.

use std::collections::VecDeque;

use super::chunked::{Chunked, Progress};
use super::pace::Awaited;
use crate::reason::{Denied, Reason};
use crate::server::hygiene::{self, Framing};

/// Longest head that is looked at; what admission takes is half of it.
const MAX_HEAD: usize = 64 * 1024;
/// Room for pieces of a head that a connection may keep while it is idle.
const KEPT: usize = 8 * 1024;

/// A head that has one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Head {
    /// Its bytes, an empty line before it included.
    pub(in crate::server) length: usize,
    /// A handshake: what follows is not watched, so that no other request may follow.
    pub(in crate::server) opaque: bool,
}

/// The watcher of one connection.
#[derive(Debug)]
pub(super) struct Watcher {
    state: State,
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    /// Heads that were read and not asked for. Requests are pipelined, so there may be several.
    heads: VecDeque<Result<Head, (Reason, &'static str)>>,
    broken: Option<&'static str>,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// Another protocol, or after a refusal: the proxy answers that and closes.
    Unwatched,
}

impl Watcher {
    pub(super) fn new() -> Self {
        Self { state: State::Head, head: Vec::new(), heads: VecDeque::new(), broken: None }
    }

    /// Looks at bytes and says how many of them may be passed on: all, or those before a body's first refused byte.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && self.broken.is_none() {
            let used = match &mut self.state {
                State::Head => self.feed_head(rest),
                State::Length(left) => {
                    let used = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= used as u64;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    used
                }
                State::Chunked(chunked) => match chunked.feed(rest) {
                    Progress::More => rest.len(),
                    Progress::Done(used) => {
                        self.state = State::Head;
                        used
                    }
                    Progress::Broken(used, why) => {
                        self.broken = Some(why);
                        used
                    }
                },
                State::Unwatched => rest.len(),
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }

    /// The next request's head, in the order in which they came. A head that never came whole is refused: the framework
    /// saw an end of it that we did not.
    pub(super) fn next(&mut self) -> Result<Head, Denied> {
        let head = self.heads.pop_front().unwrap_or(Err((Reason::RequestMalformed, "the head has no end")));
        match (head, self.broken()) {
            (Ok(_), Some(why)) => Err(Denied::new(Reason::RequestMalformed, why)),
            (Ok(head), None) => Ok(head),
            (Err((reason, why)), _) => Err(Denied::new(reason, why)),
        }
    }

    /// Why no more bytes are passed on, if the request that was asked for last is to blame.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken.filter(|_| self.heads.is_empty())
    }

    /// Whether no more bytes are passed on, whichever request is to blame.
    pub(super) fn has_ended(&self) -> Option<&'static str> {
        self.broken
    }

    /// What is waited for.
    pub(super) fn awaits(&self) -> Awaited {
        match self.state {
            State::Head => Awaited::Head { begun: !self.head.is_empty() },
            State::Length(_) | State::Chunked(_) => Awaited::Body,
            State::Unwatched => Awaited::Other,
        }
    }

    fn feed_head(&mut self, bytes: &[u8]) -> usize {
        let before = self.head.len();
        let bytes = bytes.get(..MAX_HEAD - before).unwrap_or(bytes);
        if before == 0
            && let Some(head) = end_of_head(bytes, 0).and_then(|end| bytes.get(..end))
        {
            self.judge(head);
            return head.len();
        }
        self.head.extend_from_slice(bytes);
        if let Some(end) = end_of_head(&self.head, before) {
            let mut head = std::mem::take(&mut self.head);
            head.truncate(end);
            self.judge(&head);
            if head.capacity() <= KEPT {
                head.clear();
                self.head = head;
            }
            return end - before;
        }
        if self.head.len() == MAX_HEAD {
            self.head = Vec::new();
            self.refuse(Reason::HeaderFieldsTooLarge, "head longer than 64 KiB");
        }
        bytes.len()
    }

    fn judge(&mut self, head: &[u8]) {
        let framing = match hygiene::judge(head) {
            Ok(framing) => framing,
            Err(why) => return self.refuse(Reason::RequestMalformed, why),
        };
        self.heads.push_back(Ok(Head { length: head.len(), opaque: framing == Framing::Opaque }));
        self.state = match framing {
            Framing::Length(0) => State::Head,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::new()),
            Framing::Opaque => State::Unwatched,
        };
    }

    fn refuse(&mut self, reason: Reason, why: &'static str) {
        self.heads.push_back(Err((reason, why)));
        self.state = State::Unwatched;
    }
}

/// The index after the empty line, of which at least one byte lies at or after `from`.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut start = from;
    while let Some(found) = memchr::memchr(b'\n', bytes.get(start..)?) {
        start += found + 1;
        if bytes.get(..start)?.ends_with(b"\r\n\r\n") {
            return Some(start);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

    /// Everything that can be seen of a watcher: bytes passed on, heads with their end, what broke.
    type Seen = (usize, Vec<Result<Head, Reason>>, Option<&'static str>);

    fn watch<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Seen {
        let (mut watcher, mut passed) = (Watcher::new(), 0);
        for piece in pieces {
            passed += watcher.feed(piece);
        }
        let heads = watcher.heads.iter().map(|head| head.map_err(|(reason, _)| reason)).collect();
        (passed, heads, watcher.broken)
    }

    fn whole(bytes: &str) -> Seen {
        let whole = watch([bytes.as_bytes()]);
        assert_eq!(watch(bytes.as_bytes().chunks(1)), whole, "byte by byte: {bytes:?}");
        whole
    }

    fn clean(text: &str) -> Result<Head, Reason> {
        Ok(Head { length: text.len(), opaque: text == UPGRADE })
    }

    #[test]
    fn requests_are_told_apart() {
        let malformed = Err(Reason::RequestMalformed);
        for (bytes, heads) in [
            (String::new(), vec![]),
            (GET.trim_end().to_owned(), vec![]),
            (GET.to_owned(), vec![clean(GET)]),
            ([GET, GET].concat(), vec![clean(GET), clean(GET)]),
            (format!("{POST}hello{GET}"), vec![clean(POST), clean(GET)]),
            (format!("{POST}\r\n\r\n!{GET}"), vec![clean(POST), clean(GET)]),
            (format!("{POST}hello\r\n{GET}"), vec![clean(POST), Ok(Head { length: GET.len() + 2, opaque: false })]),
            (format!("{POST}hello\r\n\r\n{GET}"), vec![clean(POST), malformed]),
            (format!("{POST}hellooooo{GET}"), vec![clean(POST), Ok(Head { length: GET.len() + 4, opaque: false })]),
            (format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n{GET}{POST}"), vec![clean(CHUNKED), clean(GET), clean(POST)]),
            (format!("{CHUNKED}00\r\n\r\n{GET}"), vec![clean(CHUNKED), clean(GET)]),
            (format!("{CHUNKED}A\r\n0\r\n\r\nGET /\r\n0\r\n\r\n{GET}"), vec![clean(CHUNKED), clean(GET)]),
            (format!("{CHUNKED}0\r\nA: b\r\n\u{e9}: \u{e9}"), vec![clean(CHUNKED)]),
            (format!("{UPGRADE}\0\x01{GET}"), vec![clean(UPGRADE)]),
            (format!("{GET}GET / HTTP/1.1\nHost: h\r\n\r\n{GET}"), vec![clean(GET), malformed]),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD)), vec![Err(Reason::HeaderFieldsTooLarge)]),
        ] {
            let (_, seen, _) = whole(&bytes);
            assert_eq!(seen, heads, "{bytes:?}");
        }
    }

    #[test]
    fn a_well_framed_chunked_body_passes() {
        for body in [
            "0\r\n\r\n".to_owned(),
            "5\r\nhello\r\n0\r\n\r\n".to_owned(),
            "5;a\r\nhello\r\n0;b=c\r\n\r\n".to_owned(),
            "5;a=b;c=\"d e\t\\\" ; \\\\\";f\r\nhello\r\n0\r\n\r\n".to_owned(),
            "000000000000000a\r\n0123456789\r\n0\r\n\r\n".to_owned(),
            "aF\r\n".to_owned() + &"x".repeat(0xaf) + "\r\n0\r\nX-Sum: 1\r\nEmpty:\r\n\r\n",
            format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(MAX - 4)),
        ] {
            let bytes = format!("{CHUNKED}{body}");
            assert_eq!(whole(&(bytes.clone() + GET)), (bytes.len() + GET.len(), vec![clean(CHUNKED), clean(GET)], None), "{body:?}");
        }
    }

    const MAX: usize = 256;

    #[test]
    fn a_body_is_passed_on_up_to_its_first_refused_byte() {
        for (good, bad) in [
            ("5", " \r\nhello\r\n0\r\n\r\n"),
            ("5", "\t\r\nhello\r\n0\r\n\r\n"),
            ("5", "\nhello\r\n0\r\n\r\n"),
            ("5", "_\r\n"),
            ("0", "x5\r\n"),
            ("", " 5\r\n"),
            ("", "+5\r\n"),
            ("", "-1\r\n"),
            ("", "\r\n"),
            ("", ";a\r\n"),
            ("5\r", "hello"),
            ("5;", "\r\nhello\r\n0\r\n\r\n"),
            ("5;", "\nhello\r\n0\r\n\r\n"),
            ("5;", " a\r\n"),
            ("5;", "\0ext\r\n"),
            ("5;", "=b\r\n"),
            ("5;a", " =b\r\n"),
            ("5;a=", "\r\n"),
            ("5;a=b", "=c\r\n"),
            ("5;a=b", "\"\r\n"),
            ("5;bad", "[=x\r\n"),
            ("5;a", "\x01\r\n"),
            ("5;a\r", "X\r\n"),
            ("5;a=\"b", "\r\n"),
            ("5;a=\"b", "\0\"\r\n"),
            ("5;a=\"b\\", "\n\"\r\n"),
            ("5;a=\"b\"", "c\r\n"),
            ("5;a=\"", "\u{e9}\"\r\n"),
            ("5\r\nhello", "!!\r\n0\r\n\r\n"),
            ("5\r\nhello", "\n0\r\n\r\n"),
            ("5\r\nhello\r", "\r\n"),
            ("5\r\nhello", "0\r\n\r\n"),
            ("0\r\n", "\n"),
            ("0\r\n", " folded: a\r\n"),
            ("0\r\n", ": a\r\n"),
            ("0\r\nA", " : a\r\n"),
            ("0\r\nA", "\r\n"),
            ("0\r\nA: b", "\n\r\n"),
            ("0\r\nA: b", "\0\r\n"),
            ("0\r\nA: b\r", "C: d\r\n"),
            ("0\r\nA: b\r\n", " c\r\n"),
            ("0\r\n\r", "GET"),
            ("FFFFFFFFFFFFFFFF", "0\r\nhello\r\n0\r\n\r\n"),
        ] {
            let (passed, heads, broken) = whole(&format!("{CHUNKED}{good}{bad}"));
            assert_eq!((passed, heads), (CHUNKED.len() + good.len(), vec![clean(CHUNKED)]), "{good:?} {bad:?}");
            assert!(broken.is_some(), "{good:?} {bad:?}");
        }
        let line = format!("{CHUNKED}1;{}", "e".repeat(300));
        assert_eq!(whole(&line).0, CHUNKED.len() + MAX);
        let trailers = format!("{CHUNKED}0\r\nA: {}", "b".repeat(9000));
        assert_eq!(whole(&trailers).0, CHUNKED.len() + 3 + 8 * 1024);
    }

    #[test]
    fn each_request_is_asked_for_once_and_only_the_broken_one_is_blamed() {
        let mut watcher = Watcher::new();
        watcher.feed(format!("{GET}{CHUNKED}5;\r\n").as_bytes());
        assert!(watcher.next().is_ok());
        assert_eq!((watcher.broken(), watcher.has_ended().is_some()), (None, true));
        assert_eq!(watcher.next().unwrap_err().reason, Reason::RequestMalformed);
        assert!(watcher.broken().is_some());
        assert_eq!(watcher.next().unwrap_err().detail, "the head has no end");
        assert_eq!(watcher.feed(GET.as_bytes()), 0, "nothing is passed on any more");
    }

    #[test]
    fn an_idle_connection_keeps_little() {
        let mut watcher = Watcher::new();
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(60_000));
        head.as_bytes().chunks(4096).for_each(|piece| assert_eq!(watcher.feed(piece), piece.len()));
        assert!(watcher.next().is_ok());
        assert_eq!(watcher.head.capacity(), 0);
        GET.as_bytes().chunks(7).for_each(|piece| assert_eq!(watcher.feed(piece), piece.len()));
        assert!(watcher.next().is_ok() && watcher.head.capacity() <= KEPT && watcher.head.is_empty());
    }

    proptest! {
        /// Requests glued together with noise between them, cut anywhere, are seen as if they came in one piece.
        #[test]
        fn cuts_change_nothing(
            parts in prop::collection::vec(prop_oneof![
                6 => prop::sample::select(vec![GET, POST, CHUNKED, UPGRADE, "hello", "5\r\nhello\r\n", "0\r\n\r\n", "0\r\nA: b\r\n\r\n",
                    "3;a=\"b\"\r\nabc\r\n", "\r\n", "\n", "\r", ";", " ", "0", "A"]).prop_map(|s| s.as_bytes().to_vec()),
                1 => prop::collection::vec(any::<u8>(), 0..4),
            ], 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = parts.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            prop_assert_eq!(watch(cuts.windows(2).map(|c| &bytes[c[0]..c[1]])), watch([&bytes[..]]));
        }
    }
}
