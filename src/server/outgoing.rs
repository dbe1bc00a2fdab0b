//! What a request leaves behind and takes along on its way upstream: the client's credentials and its word about where it
//! came from go, the trace goes on, and the assertion is applied last.

use http::header::{self, HeaderMap, HeaderValue};
use http::{request, response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

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
pub(super) fn announced_length(fields: &HeaderMap) -> Option<usize> {
    fields.get_all(header::CONTENT_LENGTH).iter().next()?.to_str().ok()?.parse().ok()
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

/// Takes a request's head out of the framework's hands, to be changed and given back. The framework keeps a second map beside
/// the fields, with the spelling of their names, and looks into both at every change; it is left behind (decision record 0024).
pub(super) fn take_head(request: &mut RequestHeader) -> request::Parts {
    let empty = http::Request::new(()).into_parts().0;
    std::mem::replace(request, empty.into()).into()
}

/// The same of an answer. A reason phrase of the backend's own stays behind as well (RFC 9112 §4: clients ignore it).
pub(super) fn take_answer(answer: &mut ResponseHeader) -> response::Parts {
    let empty = http::Response::new(()).into_parts().0;
    std::mem::replace(answer, empty.into()).into()
}

/// The client's credentials and its own word about who it is stop here; `Expect` was answered here.
pub(super) fn remove_credentials(fields: &mut HeaderMap, tenant: &Tenant) -> Result<()> {
    fields.remove(header::AUTHORIZATION);
    fields.remove(header::EXPECT);
    let places = &tenant.places;
    for place in places.embed_key.iter().chain(&places.token).chain(&places.asserted_id) {
        if let Place::Header(name) = place {
            fields.remove(name);
        }
    }
    if fields.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        let ours = |offered: &&str| *offered == OWN_SUBPROTOCOL || offered.starts_with(TOKEN_SUBPROTOCOL);
        let others = subprotocols(fields).filter(|offered| !ours(offered)).collect::<Vec<_>>().join(", ");
        fields.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if !others.is_empty() {
            fields.insert(header::SEC_WEBSOCKET_PROTOCOL, value(&others)?);
        }
    }
    if tenant.streams.events == OnStreamExpiry::Close {
        fields.remove(header::ACCEPT_ENCODING); // an encoded stream could only be cut
    }
    Ok(())
}

/// The trace goes on with the gateway as parent. What vendors said of a trace that could not be read is not passed on.
pub(super) fn continue_trace(fields: &mut HeaderMap, trace: &Trace) -> Result<()> {
    if !trace.is_continued() {
        fields.remove(TRACESTATE);
    }
    fields.insert(TRACEPARENT, value(&trace.header())?);
    Ok(())
}

/// What anybody said about where the request came from is replaced by what can be believed of it.
pub(super) fn rebuild_forwarded(fields: &mut HeaderMap, client: Option<&Client>) -> Result<()> {
    for name in &forwarded::FAMILY {
        fields.remove(name);
    }
    let Some(client) = client else { return Ok(()) };
    if let Some(chain) = client.chain() {
        fields.insert(forwarded::FOR, value(&chain)?);
    }
    if let Some(host) = &client.host {
        fields.insert(forwarded::HOST, value(host)?);
    }
    fields.insert(forwarded::PROTO, HeaderValue::from_static(client.scheme()));
    Ok(())
}

/// An answer to HEAD has no body; where a backend sends one all the same, it would be read as the answer to the next request
/// on the connection. So there is none.
pub(super) fn end_after_head(head: &mut request::Parts) {
    if head.method == http::Method::HEAD {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// HTTP/2 may split cookies; HTTP/1.1 has one field for them (RFC 9113 §8.2.3).
pub(super) fn join_cookies(fields: &mut HeaderMap) -> Result<()> {
    let crumbs: Vec<_> = fields.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return Ok(());
    }
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| internal("cookies cannot be joined"))?;
    fields.insert(header::COOKIE, joined);
    Ok(())
}

/// A text as the value of a field.
pub(super) fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| internal("no header value"))
}
