//! Ends a stream on its connection: waits for the end of what it stands on, or of the process, then for a boundary, says the
//! last words, and lets reading fail. Runs inside the connection's own reads, which the framework polls all the while: no task,
//! no timer thread. A stream that can end is looked at once a second, so an idle one ends within a second of its time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::super::drain::Begun;
use super::super::stream::Stream;

/// How often a stream is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a boundary, or a client's answer to a close frame, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream that is to be ended in time.
#[derive(Debug)]
pub(super) struct Ending {
    stream: Arc<Stream>,
    alarm: Pin<Box<Sleep>>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// What it stands on holds.
    Standing,
    /// It has ended; from then on the grace runs, and then a boundary is waited for.
    Ended { since: Instant },
    /// The process drains: a pause, or the last call, is waited for.
    Leaving { since: Instant },
    /// The last words are being sent.
    Speaking { words: Bytes },
    /// They are sent; the client's answer is waited for and thrown away.
    Listening { until: Instant },
    /// Over.
    Over,
}

impl Ending {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, alarm: Box::pin(sleep(LOOK)), phase: Phase::Standing }
    }

    /// Whether the gateway has begun to say the last words: what the upstream still sends goes nowhere.
    pub(super) fn has_the_word(&self) -> bool {
        matches!(self.phase, Phase::Speaking { .. } | Phase::Listening { .. } | Phase::Over)
    }

    /// Ready once the stream is over.
    pub(super) fn poll<S>(&mut self, cx: &mut Context<'_>, connection: &mut S, drain: Option<Begun>) -> Poll<io::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match &mut self.phase {
                Phase::Standing => {
                    let now = Instant::now();
                    if self.stream.ended().is_some() {
                        self.phase = Phase::Ended { since: now };
                    } else if drain.is_some() {
                        self.stream.moved();
                        self.alarm.as_mut().reset(now + LOOK);
                        self.phase = Phase::Leaving { since: now };
                    } else if !self.stream.can_end() {
                        return Poll::Pending; // a drain wakes the connection
                    } else {
                        if self.alarm.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        self.alarm.as_mut().reset(now + LOOK);
                    }
                }
                Phase::Leaving { since } => {
                    let now = Instant::now();
                    let last_call = drain.map_or(*since, |drain| Instant::from_std(drain.last_call));
                    let looked = self.alarm.as_mut().poll(cx).is_ready();
                    let pauses = looked && !self.stream.moved() && self.stream.resumes();
                    if (pauses || now >= last_call) && self.stream.is_at_boundary() {
                        let words = self.stream.last_words(self.stream.leave());
                        self.phase = Phase::Speaking { words };
                        continue;
                    }
                    if now >= last_call + PATIENCE {
                        self.phase = Phase::Over;
                        continue;
                    }
                    if !looked {
                        return Poll::Pending;
                    }
                    let next = now + LOOK;
                    self.alarm.as_mut().reset(if now < last_call { next.min(last_call) } else { next });
                }
                Phase::Ended { since } => {
                    let due = *since + self.stream.grace();
                    let now = Instant::now();
                    if now >= due && self.stream.is_at_boundary() {
                        let words = self.stream.ended().map(|reason| self.stream.last_words(reason)).unwrap_or_default();
                        self.phase = Phase::Speaking { words };
                        continue;
                    }
                    if now >= due + PATIENCE {
                        self.phase = Phase::Over; // no boundary in sight: cut
                        continue;
                    }
                    self.alarm.as_mut().reset(if now < due { due } else { due + PATIENCE });
                    if self.alarm.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Phase::Speaking { words } => {
                    while words.has_remaining() {
                        match Pin::new(&mut *connection).poll_write(cx, words) {
                            Poll::Ready(Ok(sent)) if sent > 0 => words.advance(sent),
                            Poll::Ready(_) => {
                                self.phase = Phase::Over;
                                return Poll::Ready(over());
                            }
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                    match Pin::new(&mut *connection).poll_flush(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(flushed) => {
                            let answered = flushed.is_ok() && self.stream.is_answered();
                            let until = Instant::now() + PATIENCE;
                            self.alarm.as_mut().reset(until);
                            self.phase = if answered { Phase::Listening { until } } else { Phase::Over };
                        }
                    }
                }
                Phase::Listening { until } => {
                    if Instant::now() >= *until || heard_the_end(cx, connection) {
                        self.phase = Phase::Over;
                        continue;
                    }
                    if self.alarm.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Phase::Over => return Poll::Ready(over()),
            }
        }
    }
}

/// Whether the client answered the close frame with its own, or hung up.
fn heard_the_end<S: AsyncRead + Unpin>(cx: &mut Context<'_>, connection: &mut S) -> bool {
    let mut bytes = [0; 1024];
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *connection).poll_read(cx, &mut buffer) {
            Poll::Pending => return false,
            Poll::Ready(Err(_)) => return true,
            // A masked close frame (RFC 6455 §5.5.1), or the end.
            Poll::Ready(Ok(())) if buffer.filled().first().is_none_or(|first| *first == 0x88) => return true,
            Poll::Ready(Ok(())) => {}
        }
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the stream was ended")
}
