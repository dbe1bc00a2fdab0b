//! Watches what clients send before the framework's parser reads it: that parser mends a broken request line and takes
//! chunked framing that RFC 9112 §7.1 does not know, and none of its hooks sees the bytes (`threats` 24). Bytes are passed
//! on as they are; from a body's first refused byte on, reading fails instead. Watches the clock too: a connection has its
//! place among others, and a client that is too slow loses it (`threats` 30). Set up by [`super::serve`], asked by the proxy.

mod chunked;
mod ending;
mod pace;
mod watcher;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::{HttpProxy, Session};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::{Connections, Place};
use super::proxy::Proxy;
use crate::observe::metrics::Cut;
use crate::reason::{Denied, Reason};
use crate::snapshot::{Live, ServerLimits};
use ending::Ending;
use pace::{Pace, Slow};
pub(super) use watcher::Head;
use watcher::Watcher;

/// The proxy, on connections that are watched.
pub(super) struct Strict {
    pub(super) proxy: Arc<HttpProxy<Proxy>>,
    pub(super) live: Arc<Live>,
    pub(super) connections: Arc<Connections>,
}

#[async_trait]
impl ServerApp for Strict {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let stream: Stream = if watched(&stream).is_some() {
            stream
        } else {
            let limits = self.live.load().0.settings.server.limits;
            let client = stream.get_socket_digest().and_then(|digest| digest.peer_addr()?.as_inet().map(std::net::SocketAddr::ip));
            let place = self.connections.open(client, &limits)?; // one too many: dropped, and so closed
            Box::new(Watched::new(stream, place, limits))
        };
        self.proxy.process_new(stream, shutdown).await
    }

    /// Closes idle connections.
    async fn cleanup(&self) {
        self.proxy.cleanup().await;
    }
}

/// The head of the request that this session is about; to be called once per request.
///
/// # Errors
/// What two parsers could read differently, or what nobody watched.
pub(super) fn head(session: &Session) -> Result<Head, Denied> {
    let unwatched = || Denied::new(Reason::RequestMalformed, "the head was not watched");
    let h1 = session.as_downstream().as_http1().ok_or_else(unwatched)?;
    let connection = watched(h1.stream()).ok_or_else(unwatched)?;
    connection.pace.lock().begin();
    let head = connection.watcher.lock().next()?;
    // The framework read another head than we did, or mended it.
    if head.length == h1.get_headers_raw_bytes().len() { Ok(head) } else { Err(unwatched()) }
}

/// Ends this session's stream in time.
pub(super) fn end_in_time(session: &Session, stream: Arc<super::stream::Stream>) {
    if let Some(watched) = session.as_downstream().as_http1().and_then(|h1| watched(h1.stream())) {
        *watched.ending.lock() = Some(Ending::new(stream));
    }
}

/// The exchange is over: its connection may be used again.
pub(super) fn end(session: &Session) {
    if let Some(watched) = session.as_downstream().as_http1().and_then(|h1| watched(h1.stream())) {
        *watched.ending.lock() = None;
        watched.pace.lock().end();
    }
}

/// Why reading this request's body fails, if its framing or its pace is to blame.
pub(super) fn broken(session: &Session) -> Option<Denied> {
    let watched = watched(session.as_downstream().as_http1()?.stream())?;
    if watched.pace.lock().slow() == Some(Slow::Body) {
        return Some(Reason::BodyTooSlow.into());
    }
    let why = watched.watcher.lock().broken()?;
    Some(Denied::new(Reason::RequestMalformed, why))
}

fn watched(stream: &Stream) -> Option<&Watched> {
    (**stream).as_any().downcast_ref()
}

/// A client's connection whose bytes are looked at as they are read.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Stream,
    /// Locked by one task at a time, the one that serves the connection.
    watcher: Mutex<Watcher>,
    /// Set while a stream may have to be ended.
    ending: Mutex<Option<Ending>>,
    pace: Mutex<Pace>,
    place: Place,
}

impl Watched {
    fn new(inner: Stream, place: Place, limits: ServerLimits) -> Self {
        let pace = Mutex::new(Pace::new(limits));
        Self { inner, watcher: Mutex::new(Watcher::new()), ending: Mutex::new(None), pace, place }
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
            if let Poll::Ready(over) = ending.poll(cx, &mut this.inner) {
                return Poll::Ready(Err(over));
            }
            if ending.has_the_word() {
                return Poll::Pending;
            }
        }
        let (pace, watcher) = (this.pace.get_mut(), this.watcher.get_mut());
        let late = || Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client is too slow")));
        if pace.slow().is_some() {
            return late();
        }
        let refused = |why| Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        if let Some(why) = watcher.has_ended() {
            return refused(why);
        }
        let before = buffer.filled().len();
        let awaited = watcher.awaits();
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending => {
                let Some(slow) = pace.waits(cx, awaited) else { return Poll::Pending };
                this.place.cut(match slow {
                    Slow::Head => Cut::Header,
                    Slow::Body => Cut::Body,
                });
                return late();
            }
        }
        pace.comes(awaited, buffer.filled().len() - before);
        let passed = watcher.feed(buffer.filled().get(before..).unwrap_or_default());
        match watcher.has_ended() {
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
        self.inner.selected_alpn_proto()
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
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
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
