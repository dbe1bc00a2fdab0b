//! Holding a body until its request is decided, and giving it back to the framework byte for byte.
//!
//! The framework replays a body that was read early from its retry buffer, which has 64 KiB. A longer one with a known
//! length is read in two parts: its beginning is kept here, and the retry buffer is switched on when the rest fits, so that
//! the replay starts with that rest and the beginning is put before it ([`Replay`]). Without a known length (chunked) it
//! cannot be known when to switch, so those bodies are held up to 64 KiB.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora::proxy::Session;

/// The framework's retry buffer, in bytes.
const RETRY_BUFFER: usize = 64 * 1024;

/// What became of a hold.
pub(super) enum Held {
    /// All of it, and how to send it on.
    Whole(Replay),
    /// More than may be held; what was read, if anything was, must go first when the rest is forwarded unread.
    TooLarge(Option<Replay>),
    /// Did not arrive in time.
    TooSlow,
}

/// Bytes that were read before the request was decided.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    bytes: Bytes,
    /// The framework's first piece repeats the end of these bytes.
    repeats: bool,
}

impl Replay {
    /// The bytes.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Completes the first piece of the body that the framework is about to send.
    pub(super) fn complete(self, first: &mut Option<Bytes>) {
        if self.bytes.is_empty() {
            return; // an empty piece would end a chunked body twice
        }
        let rest = if self.repeats { None } else { first.take() };
        *first = Some(match rest {
            Some(rest) => [self.bytes, rest].concat().into(),
            None => self.bytes,
        });
    }
}

/// Holds a body of `length` (where it is known) up to `limit` bytes, under one deadline.
///
/// # Errors
/// The framework's, when the client went away or broke the framing.
pub(super) async fn hold(session: &mut Session, length: Option<u64>, limit: usize, deadline: Duration) -> Result<Held> {
    let known = length.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if known.is_some_and(|n| n > limit) {
        return Ok(Held::TooLarge(None));
    }
    tell_to_continue(session).await?;
    match tokio::time::timeout(deadline, read(session, known, limit)).await {
        Ok(held) => held,
        Err(_) => Ok(Held::TooSlow),
    }
}

/// Answers `Expect: 100-continue`; HTTP/1.0 has no such answer (RFC 9110 §10.1.1).
///
/// # Errors
/// The framework's, when the client went away.
pub(super) async fn tell_to_continue(session: &mut Session) -> Result<()> {
    let head = session.req_header();
    let expects = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if head.headers.get_all(http::header::EXPECT).iter().any(expects) && head.version == http::Version::HTTP_11 {
        session.as_downstream_mut().write_continue_response().await?;
    }
    Ok(())
}

async fn read(session: &mut Session, known: Option<usize>, limit: usize) -> Result<Held> {
    let limit = if known.is_some() { limit } else { limit.min(RETRY_BUFFER) };
    let mut bytes = BytesMut::with_capacity(known.unwrap_or(1024));
    let mut retrying = false;
    loop {
        if !retrying && known.is_none_or(|n| n - bytes.len().min(n) <= RETRY_BUFFER) {
            session.as_downstream_mut().enable_retry_buffering();
            retrying = true;
        }
        let Some(piece) = session.as_downstream_mut().read_request_body().await? else { break };
        bytes.extend_from_slice(&piece);
        if bytes.len() > limit {
            let repeats = !session.as_downstream().retry_buffer_truncated();
            return Ok(Held::TooLarge(Some(Replay { bytes: bytes.freeze(), repeats })));
        }
    }
    // Nothing can be replayed from a buffer that overflowed or was never filled: the upstream would wait for ever.
    if !bytes.is_empty() && session.as_downstream().get_retry_buffer().is_none() {
        return Ok(Held::TooLarge(None));
    }
    Ok(Held::Whole(Replay { bytes: bytes.freeze(), repeats: true }))
}
