//! What happens to a connection before its first request: a place among the others, PROXY protocol, TLS, and which HTTP it
//! speaks. All of it goes by
//! the configuration in force when the connection came, so a new certificate is shown from the next handshake on and no
//! connection is lost. Ends with a [`Watched`] stream for the framework; decides nothing about requests.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::listeners::ConnectionFilter;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{ALPN, GetSocketDigest as _, Ssl as _, Stream};
use pingora::proxy::{HttpProxy, Session};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::connections::{Connections, Place as Seat};
use super::listeners::Bound;
use super::proxy::Proxy;
use super::proxy_protocol;
use super::wire::{Protocol, Watched};
use crate::request::forwarded::Peer;
use crate::request::original::Convention;
use crate::request::{MAX_FIELDS, MAX_HEADER_BYTES};
use crate::snapshot::{Listener, Live, Place, Snapshot};
use crate::tls;

/// Longest time from connecting to the end of the handshakes, the HTTP/2 preface included (`threats` 30).
const OPENING: Duration = Duration::from_secs(10);
/// HTTP/2 connections without a request are closed after this long; the framework keeps them for ever.
const IDLE: Duration = Duration::from_secs(60);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// Requests of one HTTP/2 connection that may end by an error of the client's: each was taken on before, and the library would
/// allow 1024 (MadeYouReset, CVE-2025-8671).
const ERRORS: usize = 20;
/// Body bytes that a client may send before they are read, for each request.
const WINDOW: u32 = 64 * 1024;
/// What RFC 9113 §6.5.2 adds for each field of a header list.
const PER_FIELD: usize = 32;
/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is known about a connection, for all its requests.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The other end.
    pub(super) peer: Peer,
    /// Whether it spoke TLS to us.
    pub(super) secure: bool,
    /// What its certificate calls it, where it showed one.
    pub(super) certificate: Option<String>,
    /// Its requests are checks of an ingress, which says in this convention what they are about.
    pub(super) forward_auth: Option<Convention>,
}

/// What is known about this session's connection.
pub(super) fn connection(session: &Session) -> Option<&Connection> {
    session.as_downstream().digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
}

/// Sets up the proxy for HTTP/2: the framework's bounds, tightened.
pub(super) fn bounded(mut proxy: HttpProxy<Proxy>) -> HttpProxy<Proxy> {
    proxy.h2_options = Some(h2_options());
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(IDLE);
    proxy.server_options = Some(options);
    proxy
}

fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    let list = u32::try_from(MAX_HEADER_BYTES + MAX_FIELDS * PER_FIELD).unwrap_or(u32::MAX);
    options.max_concurrent_streams(STREAMS).max_header_list_size(list).initial_window_size(WINDOW);
    options.max_local_error_reset_streams(Some(ERRORS));
    options.initial_connection_window_size(16 * WINDOW).max_send_buffer_size(WINDOW as usize);
    options
}

/// One listener's connections.
pub(super) struct Accept {
    proxy: Arc<HttpProxy<Proxy>>,
    live: Arc<Live>,
    connections: Arc<Connections>,
    bound: Listener,
    nth: usize,
}

impl Accept {
    pub(super) fn new(proxy: &Arc<HttpProxy<Proxy>>, live: &Arc<Live>, connections: &Arc<Connections>, bound: &Bound) -> Self {
        let (proxy, live, connections) = (Arc::clone(proxy), Arc::clone(live), Arc::clone(connections));
        Self { proxy, live, connections, bound: bound.listener.clone(), nth: bound.nth }
    }

    /// A place for one more. Trusted proxies carry many clients and count in all only.
    fn seat(&self, peer: Peer, snapshot: &Snapshot) -> Option<Seat> {
        let server = &snapshot.settings.server;
        let client = match peer {
            Peer::Address(address) if !server.trusted.contains(peer) => Some(address),
            Peer::Address(_) | Peer::Unix | Peer::Unknown => None,
        };
        self.connections.open(client, &server.limits)
    }

    async fn open(&self, mut socket: Socket, mut peer: Peer, seat: Seat, snapshot: &Snapshot) -> io::Result<Watched> {
        let server = &snapshot.settings.server;
        let mut same = server.listeners.iter().filter(|listener| listener.place == self.bound.place);
        // One that was taken out of the configuration goes on as it was until the restart.
        let listener = same.nth(self.nth).unwrap_or(&self.bound);
        if listener.proxy_protocol {
            if !server.trusted.contains(peer) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a trusted proxy"));
            }
            peer = proxy_protocol::read(&mut socket, peer).await?;
        }
        let Some(tls) = &listener.tls else {
            let (protocol, read) = if listener.h2c { sniff(&mut socket).await? } else { (Protocol::Http1, Bytes::new()) };
            let connection = Connection { peer, secure: false, certificate: None, forward_auth: listener.forward_auth };
            return Watched::new(Box::new(socket), (protocol, read), connection, seat, server.limits).map_err(io::Error::other);
        };
        let acceptor = Acceptor::from_server_config(tls.config());
        let mut stream = acceptor.tls_handshake(socket).await.map_err(io::Error::other)?;
        let certificate = stream.get_ssl().and_then(|tls| tls.peer_certificate_der()).and_then(tls::name_of);
        let connection = Connection { peer, secure: true, certificate, forward_auth: listener.forward_auth };
        if stream.selected_alpn_proto() != Some(ALPN::H2) {
            let nothing = (Protocol::Http1, Bytes::new());
            return Watched::new(Box::new(stream), nothing, connection, seat, server.limits).map_err(io::Error::other);
        }
        match sniff(&mut stream).await? {
            told @ (Protocol::Http2, _) => Watched::new(Box::new(stream), told, connection, seat, server.limits).map_err(io::Error::other),
            (Protocol::Http1, _) => Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP/2 preface")),
        }
    }
}

/// Closes what is too much before it waits for anything.
pub(super) struct Door {
    live: Arc<Live>,
    connections: Arc<Connections>,
}

impl Door {
    pub(super) fn new(live: &Arc<Live>, connections: &Arc<Connections>) -> Self {
        Self { live: Arc::clone(live), connections: Arc::clone(connections) }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

#[async_trait]
impl ConnectionFilter for Door {
    /// Every connection that may stay comes to [`Accept::process_new`] next.
    async fn should_accept(&self, _: Option<&SocketAddr>) -> bool {
        self.connections.arrive(&self.live.load().0.settings.server.limits)
    }
}

#[async_trait]
impl ServerApp for Accept {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        self.connections.arrived();
        let (snapshot, _) = self.live.load();
        let Ok(socket) = stream.into_any().downcast::<Socket>() else {
            tracing::error!(listener = %self.bound.place, "a connection is not a socket");
            return None;
        };
        let peer = peer(&socket, &self.bound.place);
        let seat = self.seat(peer, &snapshot)?; // one too many: dropped, and so closed
        match tokio::time::timeout(OPENING, self.open(*socket, peer, seat, &snapshot)).await {
            Ok(Ok(stream)) => self.proxy.process_new(Box::new(stream), shutdown).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, listener = %self.bound.place, "a connection did not open");
                None
            }
            Err(_) => {
                tracing::debug!(listener = %self.bound.place, "a connection did not open in time");
                None
            }
        }
    }

    /// Nothing: the framework's would drop connections that wait for a request, one that is on its way included. They leave by
    /// themselves ([`super::drain`]).
    async fn cleanup(&self) {}
}

fn peer(socket: &Socket, place: &Place) -> Peer {
    use pingora::protocols::l4::socket::SocketAddr;
    match (place, socket.get_socket_digest().as_ref().and_then(|digest| digest.peer_addr())) {
        (Place::Unix { .. }, _) => Peer::Unix, // whoever connects has no name
        (Place::Tcp(_), Some(SocketAddr::Inet(address))) => Peer::Address(address.ip().to_canonical()),
        (Place::Tcp(_), Some(SocketAddr::Unix(_)) | None) => Peer::Unknown,
    }
}

/// Reads until it is clear whether the client speaks HTTP/2, and gives back what was read.
async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(Protocol, Bytes)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        let both = read.len().min(PREFACE.len());
        if read.get(..both) != PREFACE.get(..both) {
            return Ok((Protocol::Http1, read.freeze()));
        }
        if both == PREFACE.len() {
            return Ok((Protocol::Http2, read.freeze()));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_tells_http_2_from_http_1() {
        for (bytes, http2) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(false)),
            (b"GET / HTTP/1.1\r\n", Some(false)),
            (b"P", None),
            (b"POST / HTTP/1.1\r\n", Some(false)),
            (b"", None),
        ] {
            let mut stream = bytes;
            let told = sniff(&mut stream).await.ok();
            assert_eq!(told.as_ref().map(|(protocol, _)| *protocol == Protocol::Http2), http2, "{bytes:?}");
            if let Some((_, read)) = told {
                assert_eq!([&read[..], stream].concat(), bytes);
            }
        }
    }
}
