//! Watches what clients send before the framework's parser reads it: that parser mends a broken request line and takes
//! chunked framing that RFC 9112 §7.1 does not know, and none of its hooks sees the bytes (`threats` 24). Bytes are passed
//! on as they are; from a body's first refused byte on, reading fails instead. HTTP/2 has one framing, which its library
//! reads strictly: there only the frames are counted. Watches the clock too: a connection has its place among others, and an
//! HTTP/1 client that is too slow loses it (`threats` 30), or one that asks nothing while the process drains. Set up by [`super::accept`], asked by the proxy.

mod chunked;
mod ending;
mod frames;
mod pace;
mod watcher;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::accept::{Connection, connection};
use super::connections::Place;
use super::drain::Begun;
use crate::observe::metrics::Cut;
use crate::reason::{Denied, Reason};
use crate::snapshot::ServerLimits;
use ending::Ending;
use frames::Frames;
use pace::{Pace, Slow};
pub(super) use watcher::Head;
use watcher::Watcher;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The head of the request that this session is about; to be called once per request.
///
/// # Errors
/// What two parsers could read differently, or what nobody watched.
pub(super) fn head(session: &Session) -> Result<Head, Denied> {
    let unwatched = || Denied::new(Reason::RequestMalformed, "the head was not watched");
    if session.as_downstream().is_http2() {
        // No bytes of it reach us; the library has refused what has two readings, and RequestHead refuses the rest.
        return connection(session).map(|_| Head { length: 0, opaque: false }).ok_or_else(unwatched);
    }
    let h1 = session.as_downstream().as_http1().ok_or_else(unwatched)?;
    let Eye::Http1 { watcher, pace } = &watched(h1.stream()).ok_or_else(unwatched)?.eye else { return Err(unwatched()) };
    pace.lock().begin();
    let head = watcher.lock().next()?;
    // The framework read another head than we did, or mended it.
    if head.length == h1.get_headers_raw_bytes().len() { Ok(head) } else { Err(unwatched()) }
}

/// Ends this session's stream in time. On HTTP/2, where one connection carries many, [`super::proxy`] does.
pub(super) fn end_in_time(session: &Session, stream: Arc<super::stream::Stream>) {
    if let Some(watched) = session.as_downstream().as_http1().and_then(|h1| watched(h1.stream())) {
        *watched.ending.lock() = Some(Ending::new(stream));
    }
}

/// The exchange is over: its connection may be used again.
pub(super) fn end(session: &Session) {
    if let Some(watched) = session.as_downstream().as_http1().and_then(|h1| watched(h1.stream())) {
        *watched.ending.lock() = None;
        if let Eye::Http1 { pace, .. } = &watched.eye {
            pace.lock().end();
        }
    }
}

/// Why reading this request's body fails, if its framing or its pace is to blame.
pub(super) fn broken(session: &Session) -> Option<Denied> {
    let watched = watched(session.as_downstream().as_http1()?.stream())?;
    let Eye::Http1 { watcher, pace } = &watched.eye else { return None };
    if pace.lock().slow() == Some(Slow::Body) {
        return Some(Reason::BodyTooSlow.into());
    }
    let why = watcher.lock().broken()?;
    Some(Denied::new(Reason::RequestMalformed, why))
}

fn watched(stream: &Stream) -> Option<&Watched> {
    (**stream).as_any().downcast_ref()
}

/// A client's connection whose bytes are looked at as they are read.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Stream,
    /// Read already, and not yet passed on.
    read: Bytes,
    eye: Eye,
    /// Set while a stream may have to be ended.
    ending: Mutex<Option<Ending>>,
    /// Carries the [`Connection`]: the one thing of a connection that every session shows.
    about: Arc<ProxyDigest>,
    place: Place,
}

/// Locked by one task at a time, the one that reads the connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one of them for each connection, on the heap with it")]
enum Eye {
    Http1 { watcher: Mutex<Watcher>, pace: Mutex<Pace> },
    Http2(Mutex<Frames>),
}

impl Eye {
    fn feed(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Http1 { watcher, pace } => {
                let watcher = watcher.get_mut();
                pace.get_mut().comes(watcher.awaits(), bytes.len());
                watcher.feed(bytes)
            }
            Self::Http2(frames) => frames.get_mut().feed(bytes),
        }
    }

    fn has_ended(&mut self) -> Option<&'static str> {
        match self {
            Self::Http1 { watcher, .. } => watcher.get_mut().has_ended(),
            Self::Http2(frames) => frames.get_mut().has_ended(),
        }
    }

    /// Whether the client was too slow before now.
    fn is_late(&mut self) -> bool {
        match self {
            Self::Http1 { pace, .. } => pace.get_mut().slow().is_some(),
            Self::Http2(_) => false,
        }
    }

    /// Nothing has come while the process drains: whether the connection is let go.
    fn leaves(&mut self, cx: &mut Context<'_>, drain: Begun) -> bool {
        match self {
            Self::Http1 { watcher, pace } => pace.get_mut().leaves(cx, watcher.get_mut().awaits(), drain.idle),
            Self::Http2(_) => false, // the framework says GOAWAY (RFC 9113 §6.8)
        }
    }

    /// Nothing has come: whether that is too long.
    fn waits(&mut self, cx: &mut Context<'_>) -> Option<Slow> {
        match self {
            Self::Http1 { watcher, pace } => pace.get_mut().waits(cx, watcher.get_mut().awaits()),
            Self::Http2(_) => None,
        }
    }
}

impl Watched {
    /// Watches a connection, of which some bytes may have been `read`.
    pub(super) fn new(
        inner: Stream,
        (protocol, read): (Protocol, Bytes),
        connection: Connection,
        place: Place,
        limits: ServerLimits,
    ) -> pingora::Result<Self> {
        let eye = match protocol {
            Protocol::Http1 => Eye::Http1 { watcher: Mutex::new(Watcher::new()), pace: Mutex::new(Pace::new(limits)) },
            Protocol::Http2 => Eye::Http2(Mutex::new(Frames::new())),
        };
        // The framework's place for what came before HTTP; there was no proxy's answer, so it is an empty one.
        let about = ProxyDigest::new(Box::new(ResponseHeader::build(200, Some(0))?), Some(Box::new(connection)));
        Ok(Self { inner, read, eye, ending: Mutex::new(None), about: Arc::new(about), place })
    }
}

impl Watched {
    fn is_ending(&mut self) -> bool {
        self.ending.get_mut().as_ref().is_some_and(Ending::has_the_word)
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ending) = this.ending.get_mut() {
            if let Poll::Ready(over) = ending.poll(cx, &mut this.inner, this.place.drain(cx)) {
                return Poll::Ready(Err(over));
            }
            if ending.has_the_word() {
                return Poll::Pending;
            }
        }
        let late = || Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client is too slow")));
        if this.eye.is_late() {
            return late();
        }
        let refused = |why| Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        if let Some(why) = this.eye.has_ended() {
            return refused(why);
        }
        let before = buffer.filled().len();
        if this.read.is_empty() {
            match Pin::new(&mut this.inner).poll_read(cx, buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    let Some(slow) = this.eye.waits(cx) else {
                        let leaves = this.place.drain(cx).is_some_and(|drain| this.eye.leaves(cx, drain));
                        return if leaves { Poll::Ready(Ok(())) } else { Poll::Pending }; // as if the client had hung up
                    };
                    this.place.cut(match slow {
                        Slow::Head => Cut::Header,
                        Slow::Body => Cut::Body,
                    });
                    return late();
                }
            }
        } else {
            let some = this.read.len().min(buffer.remaining());
            buffer.put_slice(this.read.get(..some).unwrap_or_default());
            this.read.advance(some);
        }
        let passed = this.eye.feed(buffer.filled().get(before..).unwrap_or_default());
        match this.eye.has_ended() {
            Some(why) if passed == 0 => refused(why), // no bytes would mean the end of the stream
            Some(_) => {
                buffer.set_filled(before + passed);
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_ending() {
            return Poll::Ready(Ok(bytes.len())); // too late: the last words are said
        }
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_ending() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut this.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.inner).await;
    }
}

#[async_trait]
impl Peek for Watched {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Watched {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match self.eye {
            Eye::Http1 { .. } => Some(ALPN::H1),
            Eye::Http2(_) => Some(ALPN::H2), // by ALPN, or by its preface where h2c is on
        }
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.about))
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}
