//! Answers that the gateway writes itself, and the gateway's own fields on those it passes on.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use pingora::Result;
use pingora::proxy::Session;
use serde::Serialize;

use super::forward_auth;
use super::outgoing::{internal, value};
use crate::admission::{Admitted, Denial, OwnAnswer};
use crate::assertion::reserved::Reserved;
use crate::client::Script;
use crate::cors::{self, PreflightAnswer};
use crate::limits::meter::Fields;
use crate::policy::Level;
use crate::reason::{Challenge, Reason};
use crate::request::{OWN_SUBPROTOCOL, TOKEN_SUBPROTOCOL, subprotocols};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REASON: HeaderName = HeaderName::from_static("x-doorward-reason");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const PRIVATE: HeaderValue = HeaderValue::from_static("private");
/// What a shed client waits, in seconds.
const SHED_WAIT: HeaderValue = HeaderValue::from_static("1");

/// RFC 9457, in the order of its names.
#[derive(Serialize)]
struct Problem<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'p str>,
    reason: &'static str,
    request_id: &'p str,
    status: u16,
    title: &'static str,
}

/// Answers a denial as RFC 9457 problem+json.
pub(super) async fn deny(session: &mut Session, denial: &Denial, limits: Option<&Fields>, request_id: &str) -> Result<()> {
    let row = denial.why.reason.row();
    let tenant = denial.tenant.as_deref();
    let status = forward_auth::status(session, tenant.map_or(row.status, |t| t.status(denial.why.reason)));
    let error = tenant.and_then(|t| t.answers.error.get(&denial.why.reason)).map(String::as_str);
    // Clients of the daily cap look for it there, whatever the preset.
    let error = error.or((denial.why.reason == Reason::LimitReached).then_some(row.code));
    let problem = serde_json::to_vec(&Problem { error, reason: row.code, request_id, status, title: row.title });
    let problem = problem.map_err(|_| internal("a problem cannot be written"))?;
    let mut fields = ours(request_id, limits)?;
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(REASON, HeaderValue::from_static(row.code));
    if matches!(denial.why.reason, Reason::GatewayOverloaded | Reason::KeysMissing) {
        fields.insert(header::RETRY_AFTER, SHED_WAIT);
    }
    if let Some(challenge) = challenge(denial) {
        fields.insert(header::WWW_AUTHENTICATE, challenge?);
    }
    if let Some(origin) = &denial.readable_by {
        cors::readable_by(origin, tenant, &mut fields);
    }
    // What could not be framed cannot be skipped either: whatever follows on the connection is not a request.
    let unframed = matches!(denial.why.reason, Reason::RequestMalformed | Reason::BodyTooLarge | Reason::BodyTimeout | Reason::BodyTooSlow);
    // Nor is there time to read a body that is thrown away.
    if unframed || denial.why.reason == Reason::GatewayOverloaded {
        session.set_keepalive(None);
    }
    write(session, status, fields, problem.into()).await
}

/// The fields of an answer of ours that nobody may store.
pub(super) fn ours(request_id: &str, limits: Option<&Fields>) -> Result<HeaderMap> {
    let mut fields = HeaderMap::with_capacity(16);
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(REQUEST_ID, value(request_id)?);
    fields.insert(header::VARY, BY_ORIGIN);
    if let Some(limits) = limits {
        say_limits(&mut fields, limits)?;
    }
    Ok(fields)
}

/// What the limits that a request met have to say, in place of the upstream's own words.
pub(super) fn say_limits(answer: &mut HeaderMap, fields: &Fields) -> Result<()> {
    answer.insert(RATE_LIMIT_POLICY, value(&fields.policy)?);
    answer.insert(RATE_LIMIT, value(&fields.state)?);
    if let Some(seconds) = fields.retry_after {
        answer.insert(header::RETRY_AFTER, seconds.into());
    }
    Ok(())
}

/// Serves the page's script. It is nobody's secret, so any page may load it, and check it by its hash.
pub(super) async fn script(session: &mut Session, script: &Script, request_id: &str) -> Result<()> {
    let known = session.req_header().headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let unchanged = known.flat_map(|v| v.split(',')).any(|tag| matches!(tag.trim(), "*") || tag.trim() == script.etag);
    let mut fields = HeaderMap::new();
    fields.insert(header::ETAG, value(&script.etag)?);
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    fields.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    fields.insert(REQUEST_ID, value(request_id)?);
    fields.insert(header::VARY, BY_ORIGIN);
    if unchanged {
        return write(session, 304, fields, Bytes::new()).await;
    }
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(script.content_type));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    write(session, 200, fields, Bytes::from_static(script.text.as_bytes())).await
}

/// Answers one of our own endpoints.
pub(super) async fn own_answer(session: &mut Session, own: &OwnAnswer, limits: Option<&Fields>, request_id: &str) -> Result<()> {
    let mut fields = ours(request_id, limits)?;
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(origin) = &own.readable_by {
        cors::readable_by(origin, Some(&own.tenant), &mut fields);
    }
    write(session, 200, fields, own.body.to_string().into()).await
}

/// Answers a preflight.
pub(super) async fn preflight(session: &mut Session, preflight: &PreflightAnswer, request_id: &str) -> Result<()> {
    let mut fields = HeaderMap::with_capacity(8);
    fields.insert(header::VARY, HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"));
    fields.insert(REQUEST_ID, value(request_id)?);
    fields.extend(preflight.headers.iter().cloned());
    write(session, 204, fields, Bytes::new()).await
}

/// Writes an answer of ours.
pub(super) async fn write(session: &mut Session, status: u16, mut fields: HeaderMap, body: Bytes) -> Result<()> {
    if !body.is_empty() {
        fields.insert(header::CONTENT_LENGTH, body.len().into());
    }
    let mut answer = http::Response::new(()).into_parts().0;
    answer.status = StatusCode::from_u16(status).map_err(|_| internal("no status"))?;
    answer.headers = fields;
    let head_only = body.is_empty() || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(answer.into()), head_only).await?;
    if head_only { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

/// RFC 6750 §3 and RFC 9470 §3.
fn challenge(denial: &Denial) -> Option<Result<HeaderValue>> {
    let row = denial.why.reason.row();
    let with_error = |error: &str| format!("Bearer realm=\"doorward\", error=\"{error}\", error_description=\"{}\"", row.title);
    match row.challenge {
        Challenge::No => None,
        Challenge::Bearer => Some(Ok(HeaderValue::from_static("Bearer realm=\"doorward\""))),
        Challenge::InvalidToken => Some(value(&with_error("invalid_token"))),
        Challenge::StepUp => {
            let mut text = with_error("insufficient_user_authentication");
            if let Some(demand) = &denial.why.step_up {
                text.push_str(&format!(", max_age={}", demand.max_age));
                if !demand.acr_values.is_empty() {
                    text.push_str(&format!(", acr_values=\"{}\"", demand.acr_values.join(" ")));
                }
            }
            Some(value(&text))
        }
    }
}

/// Makes the upstream's answer ours: its CORS fields, reserved names and hop-by-hop fields go; ours come.
pub(super) fn own(answer: &mut Parts, admitted: &Admitted, reserved: &Reserved, request_id: &str) -> Result<()> {
    let alien = |name: &HeaderName| cors::is_ours(name) || reserved.contains(name) || is_hop_by_hop(name);
    let names: Vec<_> = answer.headers.keys().filter(|name| alien(name)).cloned().collect();
    for name in names {
        answer.headers.remove(&name);
    }
    if answer.status.is_informational() {
        return Ok(());
    }
    answer.headers.insert(REQUEST_ID, value(request_id)?);
    answer.headers.append(header::VARY, BY_ORIGIN);
    if let Some(origin) = admitted.origin() {
        cors::readable_by(origin, Some(admitted.tenant()), &mut answer.headers);
    }
    // A session tells visitors apart, so its answer may be one visitor's.
    if admitted.caller().level() > Level::Anonymous || admitted.session().is_some() {
        keep_private(&mut answer.headers)?;
    }
    Ok(())
}

/// Chrome fails a handshake that offered subprotocols and got none (WebSockets Standard §3.1): where the upstream chose none
/// and ours was offered, the answer is ours. The one that carries a token is never echoed.
pub(super) fn choose_subprotocol(session: &Session, answer: &mut HeaderMap) {
    let chosen = subprotocols(answer).any(|chosen| !chosen.starts_with(TOKEN_SUBPROTOCOL));
    if !chosen {
        answer.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if subprotocols(&session.req_header().headers).any(|offered| offered == OWN_SUBPROTOCOL) {
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(OWN_SUBPROTOCOL));
        }
    }
}

/// An identified answer must not be served to somebody else by a shared cache (RFC 9111 §5.2.2; `threats` 42).
fn keep_private(answer: &mut HeaderMap) -> Result<()> {
    if !answer.contains_key(header::CACHE_CONTROL) {
        answer.insert(header::CACHE_CONTROL, PRIVATE);
        return Ok(());
    }
    let values: Vec<_> = answer.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).collect();
    let joined = values.join(",");
    let directives: Vec<_> = joined.split(',').map(str::trim).filter(|d| !d.is_empty()).collect();
    let named = |d: &&str, name: &str| d.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(name);
    // `private="field"` is about that field only (RFC 9111 §5.2.2.7).
    if directives.iter().any(|d| d.eq_ignore_ascii_case("private") || named(d, "no-store")) {
        return Ok(());
    }
    // `s-maxage` speaks to shared caches too.
    let kept = directives.iter().filter(|d| !named(d, "public") && !named(d, "s-maxage"));
    let kept = std::iter::once("private").chain(kept.copied()).collect::<Vec<_>>().join(", ");
    answer.insert(header::CACHE_CONTROL, value(&kept)?);
    Ok(())
}

/// RFC 9110 §7.6.1; `Connection`, `Upgrade` and `Transfer-Encoding` are the framework's.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(name.as_str(), "keep-alive" | "proxy-authenticate" | "proxy-authentication-info" | "proxy-connection" | "te")
}

/// The reason for what the framework could not do.
pub(super) fn reason_of(error: &pingora::Error) -> Reason {
    use pingora::{ErrorSource, ErrorType};
    if is_out_of_descriptors(error) {
        return Reason::GatewayOverloaded; // ours, whatever it was about
    }
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) => Reason::ClientDisconnected,
        (_, ErrorType::ConnectTimedout | ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout) => {
            Reason::UpstreamTimeout
        }
        (
            _,
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
            | ErrorType::BindError
            | ErrorType::ConnectProxyFailure,
        ) => Reason::UpstreamUnreachable,
        (_, ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError) => Reason::UpstreamTls,
        (ErrorSource::Upstream, _) => Reason::UpstreamProtocol,
        _ => Reason::GatewayInternal,
    }
}

/// EMFILE and ENFILE.
fn is_out_of_descriptors(error: &pingora::Error) -> bool {
    let system = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|errno| system == Some(errno.raw_os_error()))
}
