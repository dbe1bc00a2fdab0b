//! Which answers are streams, and by which rule they end: the tenant's, for what the stream stands on.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::stream::{Kind, Stream};
use crate::admission::Admitted;
use crate::admission::standing::Standing;
use crate::clock;
use crate::snapshot::Live;
use crate::tenant::OnStreamExpiry;

/// The stream that this answer begins, where the tenant's rule is to close it in time.
pub(super) fn of(session: &Session, answer: &ResponseHeader, admitted: &Admitted, live: &Arc<Live>) -> Option<Arc<Stream>> {
    let rules = &admitted.tenant().streams;
    let kind = kind(session, answer)?;
    let rule = if kind == Kind::WebSocket { rules.websocket } else { rules.events };
    let standing = Standing::of(admitted);
    if rule == OnStreamExpiry::Finish || !standing.can_end() {
        return None;
    }
    let live = Arc::clone(live);
    let judge = move || {
        let (snapshot, revocations) = live.load();
        standing.ended(&snapshot.tenants, &revocations, clock::read().ok()?)
    };
    Some(Arc::new(Stream::new(kind, rules.grace, judge)))
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
