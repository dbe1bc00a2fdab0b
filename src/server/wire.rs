//! Watches what clients send before the framework's parser reads it: that parser mends a broken request line and takes
//! chunked framing that RFC 9112 §7.1 does not know, and none of its hooks sees the bytes (`threats` 24). Bytes are passed
//! on as they are; from a body's first refused byte on, reading fails instead. Set up by [`super::serve`], asked by the proxy.

mod chunked;
mod ending;
mod watcher;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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

use super::proxy::Proxy;
use crate::reason::{Denied, Reason};
use ending::Ending;
pub(super) use watcher::Head;
use watcher::Watcher;

/// The proxy, on connections that are watched.
pub(super) struct Strict(pub(super) Arc<HttpProxy<Proxy>>);

#[async_trait]
impl ServerApp for Strict {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let stream = if watched(&stream).is_some() { stream } else { Box::new(Watched::new(stream)) };
        self.0.process_new(stream, shutdown).await
    }

    /// Closes idle connections.
    async fn cleanup(&self) {
        self.0.cleanup().await;
    }
}

/// The head of the request that this session is about; to be called once per request.
///
/// # Errors
/// What two parsers could read differently, or what nobody watched.
pub(super) fn head(session: &Session) -> Result<Head, Denied> {
    let unwatched = || Denied::new(Reason::RequestMalformed, "the head was not watched");
    let h1 = session.as_downstream().as_http1().ok_or_else(unwatched)?;
    let head = watched(h1.stream()).ok_or_else(unwatched)?.watcher.lock().next()?;
    // The framework read another head than we did, or mended it.
    if head.length == h1.get_headers_raw_bytes().len() { Ok(head) } else { Err(unwatched()) }
}

/// Ends this session's stream in time.
pub(super) fn end_in_time(session: &Session, stream: Arc<super::stream::Stream>) {
    if let Some(watched) = session.as_downstream().as_http1().and_then(|h1| watched(h1.stream())) {
        *watched.ending.lock() = Some(Ending::new(stream));
    }
}

/// The answer is over: its connection may be used again.
pub(super) fn end_no_more(session: &Session) {
    if let Some(watched) = session.as_downstream().as_http1().and_then(|h1| watched(h1.stream())) {
        *watched.ending.lock() = None;
    }
}

/// Why reading this request's body fails, if its framing is to blame.
pub(super) fn broken(session: &Session) -> Option<Denied> {
    let watched = watched(session.as_downstream().as_http1()?.stream())?;
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
}

impl Watched {
    fn new(inner: Stream) -> Self {
        Self { inner, watcher: Mutex::new(Watcher::new()), ending: Mutex::new(None) }
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
        let watcher = this.watcher.get_mut();
        let refused = |why| Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        if let Some(why) = watcher.has_ended() {
            return refused(why);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
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
