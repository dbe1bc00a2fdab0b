//! What a request leaves behind and takes along on its way upstream: the client's credentials and its word about where it
//! came from go, the trace goes on, and the assertion is applied last.

use http::header::{self, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::assertion::Fields;
use crate::request::forwarded::{self, Client};
use crate::request::trace::{TRACEPARENT, TRACESTATE, Trace};
use crate::request::{OWN_SUBPROTOCOL, RequestHead, TOKEN_SUBPROTOCOL, subprotocols};
use crate::tenant::{OnStreamExpiry, Place, Tenant};

/// A state that must not be: the request stops.
pub(super) fn internal(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, why)
}

/// Streams are silent for as long as they like: they are exempt from the upstream's read timeout by this rule.
pub(super) fn is_stream(session: &Session) -> bool {
    let head = session.req_header();
    let accepts = head.headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    head.headers.contains_key(header::UPGRADE) || accepts.flat_map(|v| v.split(',')).any(|t| t.trim().starts_with("text/event-stream"))
}

/// How long the body will be, where that is said; there is at most one who says it.
pub(super) fn announced_length(request: &RequestHeader) -> Option<usize> {
    request.headers.get_all(header::CONTENT_LENGTH).iter().next()?.to_str().ok()?.parse().ok()
}

/// A handshake gets a connection of its own, which nothing else was sent on. Where the framework reads the answer before it has
/// passed on that the request has no body, it takes the one for the end of the other, and hangs up right after the 101 (decision
/// record 0017). On a connection that was kept this happens, since the thread that opened it may see the answer first; a new one
/// belongs to this request's thread, which is busy with it until both are under way.
pub(super) fn alone(peer: &mut HttpPeer) {
    peer.group_key = rand::random(); // nobody else has it, nor gets the connection where the backend refuses the handshake
}

/// Query parameters that are credentials or embed keys of this tenant.
pub(super) fn credential_queries(tenant: &Tenant) -> impl Iterator<Item = &str> {
    let places = tenant.places.embed_key.iter().chain(&tenant.places.token);
    let placed = places.filter_map(|place| if let Place::Query(name) = place { Some(name.as_str()) } else { None });
    placed.chain(tenant.sessions.in_query.then_some(RequestHead::SESSION_PARAMETER))
}

/// The client's credentials and its own word about who it is stop here; `Expect` was answered here.
pub(super) fn remove_credentials(request: &mut RequestHeader, tenant: &Tenant) -> Result<()> {
    request.remove_header(&header::AUTHORIZATION);
    request.remove_header(&header::EXPECT);
    let places = &tenant.places;
    for place in places.embed_key.iter().chain(&places.token).chain(&places.asserted_id) {
        if let Place::Header(name) = place {
            request.remove_header(name);
        }
    }
    if request.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        let ours = |offered: &&str| *offered == OWN_SUBPROTOCOL || offered.starts_with(TOKEN_SUBPROTOCOL);
        let others = subprotocols(&request.headers).filter(|offered| !ours(offered)).collect::<Vec<_>>().join(", ");
        request.remove_header(&header::SEC_WEBSOCKET_PROTOCOL);
        if !others.is_empty() {
            request.insert_header(header::SEC_WEBSOCKET_PROTOCOL, others)?;
        }
    }
    if tenant.streams.events == OnStreamExpiry::Close {
        request.remove_header(&header::ACCEPT_ENCODING); // an encoded stream could only be cut
    }
    Ok(())
}

/// The trace goes on with the gateway as parent. What vendors said of a trace that could not be read is not passed on.
pub(super) fn continue_trace(request: &mut RequestHeader, trace: &Trace) -> Result<()> {
    request.remove_header(&TRACEPARENT);
    if !trace.is_continued() {
        request.remove_header(&TRACESTATE);
    }
    request.insert_header(TRACEPARENT, trace.header())
}

/// What anybody said about where the request came from is replaced by what can be believed of it.
pub(super) fn rebuild_forwarded(request: &mut RequestHeader, client: Option<&Client>) -> Result<()> {
    for name in forwarded::FAMILY {
        request.remove_header(name);
    }
    let Some(client) = client else { return Ok(()) };
    if let Some(chain) = client.chain() {
        request.insert_header("x-forwarded-for", chain)?;
    }
    if let Some(host) = &client.host {
        request.insert_header("x-forwarded-host", host.as_str())?;
    }
    request.insert_header("x-forwarded-proto", client.scheme())
}

/// An answer to HEAD has no body; where a backend sends one all the same, it would be read as the answer to the next request
/// on the connection. So there is none.
pub(super) fn end_after_head(request: &mut RequestHeader) -> Result<()> {
    if request.method == http::Method::HEAD { request.insert_header(header::CONNECTION, "close") } else { Ok(()) }
}

/// HTTP/2 may split cookies; HTTP/1.1 has one field for them (RFC 9113 §8.2.3).
pub(super) fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let crumbs: Vec<_> = request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return Ok(());
    }
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| internal("cookies cannot be joined"))?;
    request.insert_header(header::COOKIE, joined)
}

/// The framework's header section, as something an assertion can be applied to.
pub(super) struct Sent<'r>(pub(super) &'r mut RequestHeader);

impl Fields for Sent<'_> {
    fn names(&self) -> Vec<HeaderName> {
        self.0.headers.keys().cloned().collect()
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        // Fails only for a name that is not one; ours all are, and a missing header fails the signature.
        let _ = self.0.insert_header(name, value);
    }
}
