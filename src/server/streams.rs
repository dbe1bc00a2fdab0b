//! Which answers are streams, and by which rule they end: the tenant's, for what the stream stands on, and with the process.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::stream::{Kind, Rule, Stream};
use crate::admission::Admitted;
use crate::admission::standing::Standing;
use crate::clock;
use crate::snapshot::Live;
use crate::tenant::OnStreamExpiry;

/// Added to the silence, so that a stream whose end is near still begins.
const AT_LEAST: Duration = Duration::from_secs(1);

/// The stream that this answer begins, where it may have to be ended: in time, where the tenant's rule says so, or with the
/// process. One that its client opens again (a WebSocket, or events that were asked for by GET, as `EventSource` does) is told of
/// the process's end at its next pause. The answer to a POST is one that somebody waits for: it has until the last call.
pub(super) fn of(session: &Session, answer: &ResponseHeader, admitted: &Admitted, live: &Arc<Live>) -> Option<Arc<Stream>> {
    let rules = &admitted.tenant().streams;
    let kind = kind(session, answer)?;
    let word = if kind == Kind::WebSocket { rules.websocket } else { rules.events };
    let standing = Standing::of(admitted);
    let resumes = kind == Kind::WebSocket || session.req_header().method == Method::GET;
    if word == OnStreamExpiry::Finish || !standing.can_end() {
        return (kind != Kind::Opaque).then(|| Arc::new(Stream::new(kind, None, resumes)));
    }
    let live = Arc::clone(live);
    let judge = move || {
        let (snapshot, revocations) = live.load();
        standing.ended(&snapshot.tenants, &revocations, clock::read().ok()?)
    };
    Some(Arc::new(Stream::new(kind, Some(Rule { grace: rules.grace, judge: Box::new(judge) }), resumes)))
}

/// Whether nothing follows an answer's head (RFC 9112 §6.3).
pub(super) fn has_no_body(session: &Session, answer: &ResponseHeader) -> bool {
    let empty = |v: &http::HeaderValue| v.as_bytes() == b"0";
    let none = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    none || session.req_header().method == http::Method::HEAD || answer.headers.get_all(CONTENT_LENGTH).iter().any(empty)
}

/// How long a stream's backend may be silent: on HTTP/2, where a silent stream cannot be ended between its pieces, until what
/// it stands on ends by itself.
pub(super) fn longest_silence(session: &Session, admitted: &Admitted) -> Option<Duration> {
    let rules = &admitted.tenant().streams;
    if !session.as_downstream().is_http2() || rules.events == OnStreamExpiry::Finish {
        return None;
    }
    let left = Standing::of(admitted).ends_at()? - clock::read().ok()?.as_secs_f64();
    Some(Duration::try_from_secs_f64(left.max(0.0)).ok()? + rules.grace + AT_LEAST)
}

/// `None` for an answer whose length is known, or that has no body: it ends by itself.
fn kind(session: &Session, answer: &ResponseHeader) -> Option<Kind> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Some(Kind::WebSocket);
    }
    if answer.status.is_informational() || answer.headers.contains_key(CONTENT_LENGTH) || answer.status == StatusCode::NO_CONTENT {
        return None;
    }
    let mut types = answer.headers.get_all(CONTENT_TYPE).iter().filter_map(|v| v.to_str().ok());
    let events = types.any(|t| t.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("text/event-stream")));
    // What is encoded cannot be added to: no boundary of it is known.
    let plain = !answer.headers.contains_key(CONTENT_ENCODING);
    let chunked = session.req_header().version == Version::HTTP_11;
    Some(if events && plain { Kind::Events { chunked } } else { Kind::Opaque })
}
