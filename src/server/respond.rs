//! Answers that the gateway writes itself, and the gateway's own fields on those it passes on.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use serde_json::json;

use super::forward_auth;
use crate::admission::{Admitted, Denial, OwnAnswer};
use crate::assertion::reserved::Reserved;
use crate::client::Script;
use crate::cors::{self, PreflightAnswer};
use crate::limits::meter::Fields;
use crate::policy::Level;
use crate::reason::{Challenge, Reason};
use crate::request::{OWN_SUBPROTOCOL, TOKEN_SUBPROTOCOL, subprotocols};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REASON: HeaderName = HeaderName::from_static("x-doorward-reason");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What a shed client waits, in seconds.
const SHED_WAIT: u64 = 1;

/// Answers a denial as RFC 9457 problem+json.
pub(super) async fn deny(session: &mut Session, denial: &Denial, limits: Option<&Fields>, request_id: &str) -> Result<()> {
    let row = denial.why.reason.row();
    let tenant = denial.tenant.as_deref();
    let status = forward_auth::status(session, tenant.map_or(row.status, |t| t.status(denial.why.reason)));
    let mut problem = json!({ "status": status, "title": row.title, "reason": row.code, "request_id": request_id });
    let error = tenant.and_then(|t| t.answers.error.get(&denial.why.reason)).map(String::as_str);
    // Clients of the daily cap look for it there, whatever the preset.
    let error = error.or((denial.why.reason == Reason::LimitReached).then_some(row.code));
    if let (Some(error), Some(members)) = (error, problem.as_object_mut()) {
        members.insert("error".to_owned(), json!(error));
    }
    let body = Bytes::from(problem.to_string());
    let mut answer = ResponseHeader::build(status, Some(12))?;
    answer.insert_header(header::CONTENT_TYPE, "application/problem+json")?;
    answer.insert_header(header::CONTENT_LENGTH, body.len())?;
    answer.insert_header(header::CACHE_CONTROL, "no-store")?;
    answer.insert_header(REASON, row.code)?;
    answer.insert_header(REQUEST_ID, request_id)?;
    answer.insert_header(header::VARY, "Origin")?;
    if let Some(fields) = limits {
        say_limits(&mut answer, fields)?;
    }
    if matches!(denial.why.reason, Reason::GatewayOverloaded | Reason::KeysMissing) {
        answer.insert_header(header::RETRY_AFTER, SHED_WAIT)?;
    }
    if let Some(challenge) = challenge(denial) {
        answer.insert_header(header::WWW_AUTHENTICATE, challenge)?;
    }
    if let Some(origin) = &denial.readable_by {
        for (name, value) in cors::readable_by(origin, tenant) {
            answer.insert_header(name, value)?;
        }
    }
    // What could not be framed cannot be skipped either: whatever follows on the connection is not a request.
    let unframed = matches!(denial.why.reason, Reason::RequestMalformed | Reason::BodyTooLarge | Reason::BodyTimeout | Reason::BodyTooSlow);
    // Nor is there time to read a body that is thrown away.
    if unframed || denial.why.reason == Reason::GatewayOverloaded {
        session.set_keepalive(None);
    }
    write(session, answer, body).await
}

/// What the limits that a request met have to say, in place of the upstream's own words.
pub(super) fn say_limits(answer: &mut ResponseHeader, fields: &Fields) -> Result<()> {
    answer.insert_header(RATE_LIMIT_POLICY, fields.policy.as_str())?;
    answer.insert_header(RATE_LIMIT, fields.state.as_str())?;
    if let Some(seconds) = fields.retry_after {
        answer.insert_header(header::RETRY_AFTER, seconds)?;
    }
    Ok(())
}

/// Serves the page's script. It is nobody's secret, so any page may load it, and check it by its hash.
pub(super) async fn script(session: &mut Session, script: &Script, request_id: &str) -> Result<()> {
    let known = session.req_header().headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let unchanged = known.flat_map(|v| v.split(',')).any(|tag| matches!(tag.trim(), "*") || tag.trim() == script.etag);
    let mut answer = ResponseHeader::build(if unchanged { 304 } else { 200 }, Some(10))?;
    answer.insert_header(header::ETAG, script.etag.as_str())?;
    answer.insert_header(header::CACHE_CONTROL, "public, max-age=3600")?;
    answer.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")?;
    answer.insert_header("cross-origin-resource-policy", "cross-origin")?;
    answer.insert_header(REQUEST_ID, request_id)?;
    answer.insert_header(header::VARY, "Origin")?;
    if unchanged {
        return write(session, answer, Bytes::new()).await;
    }
    answer.insert_header(header::CONTENT_TYPE, script.content_type)?;
    answer.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    answer.insert_header(header::CONTENT_LENGTH, script.text.len())?;
    write(session, answer, Bytes::from_static(script.text.as_bytes())).await
}

/// Answers one of our own endpoints.
pub(super) async fn own_answer(session: &mut Session, own: &OwnAnswer, limits: Option<&Fields>, request_id: &str) -> Result<()> {
    let body = Bytes::from(own.body.to_string());
    let mut answer = ResponseHeader::build(200, Some(10))?;
    answer.insert_header(header::CONTENT_TYPE, "application/json")?;
    answer.insert_header(header::CONTENT_LENGTH, body.len())?;
    answer.insert_header(header::CACHE_CONTROL, "no-store")?;
    answer.insert_header(REQUEST_ID, request_id)?;
    answer.insert_header(header::VARY, "Origin")?;
    if let Some(fields) = limits {
        say_limits(&mut answer, fields)?;
    }
    if let Some(origin) = &own.readable_by {
        for (name, value) in cors::readable_by(origin, Some(&own.tenant)) {
            answer.insert_header(name, value)?;
        }
    }
    write(session, answer, body).await
}

/// Answers a preflight.
pub(super) async fn preflight(session: &mut Session, preflight: &PreflightAnswer, request_id: &str) -> Result<()> {
    let mut answer = ResponseHeader::build(204, Some(8))?;
    answer.insert_header(header::VARY, "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")?;
    answer.insert_header(REQUEST_ID, request_id)?;
    for (name, value) in &preflight.headers {
        answer.insert_header(name, value)?;
    }
    write(session, answer, Bytes::new()).await
}

pub(super) async fn write(session: &mut Session, answer: ResponseHeader, body: Bytes) -> Result<()> {
    let head_only = body.is_empty() || session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(answer), head_only).await?;
    if head_only { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

/// RFC 6750 §3 and RFC 9470 §3.
fn challenge(denial: &Denial) -> Option<String> {
    let row = denial.why.reason.row();
    let with_error = |error: &str| format!("Bearer realm=\"doorward\", error=\"{error}\", error_description=\"{}\"", row.title);
    match row.challenge {
        Challenge::No => None,
        Challenge::Bearer => Some("Bearer realm=\"doorward\"".to_owned()),
        Challenge::InvalidToken => Some(with_error("invalid_token")),
        Challenge::StepUp => {
            let mut text = with_error("insufficient_user_authentication");
            if let Some(demand) = &denial.why.step_up {
                text.push_str(&format!(", max_age={}", demand.max_age));
                if !demand.acr_values.is_empty() {
                    text.push_str(&format!(", acr_values=\"{}\"", demand.acr_values.join(" ")));
                }
            }
            Some(text)
        }
    }
}

/// Makes the upstream's answer ours: its CORS fields, reserved names and hop-by-hop fields go; ours come.
pub(super) fn own(answer: &mut ResponseHeader, admitted: &Admitted, reserved: &Reserved, request_id: &str) -> Result<()> {
    let alien = |name: &HeaderName| cors::is_ours(name) || reserved.contains(name) || is_hop_by_hop(name);
    let names: Vec<_> = answer.headers.keys().filter(|name| alien(name)).cloned().collect();
    for name in names {
        answer.remove_header(&name);
    }
    if answer.status.is_informational() {
        return Ok(());
    }
    answer.insert_header(REQUEST_ID, request_id)?;
    answer.append_header(header::VARY, HeaderValue::from_static("Origin"))?;
    if let Some(origin) = admitted.origin() {
        for (name, value) in cors::readable_by(origin, Some(admitted.tenant())) {
            answer.insert_header(name, value)?;
        }
    }
    // A session tells visitors apart, so its answer may be one visitor's.
    if admitted.caller().level() > Level::Anonymous || admitted.session().is_some() {
        keep_private(answer)?;
    }
    Ok(())
}

/// Chrome fails a handshake that offered subprotocols and got none (WebSockets Standard §3.1): where the upstream chose none
/// and ours was offered, the answer is ours. The one that carries a token is never echoed.
pub(super) fn choose_subprotocol(session: &Session, answer: &mut ResponseHeader) -> Result<()> {
    let chosen = subprotocols(&answer.headers).any(|chosen| !chosen.starts_with(TOKEN_SUBPROTOCOL));
    if !chosen {
        answer.remove_header(&header::SEC_WEBSOCKET_PROTOCOL);
        if subprotocols(&session.req_header().headers).any(|offered| offered == OWN_SUBPROTOCOL) {
            answer.insert_header(header::SEC_WEBSOCKET_PROTOCOL, OWN_SUBPROTOCOL)?;
        }
    }
    Ok(())
}

/// An identified answer must not be served to somebody else by a shared cache (RFC 9111 §5.2.2; `threats` 42).
fn keep_private(answer: &mut ResponseHeader) -> Result<()> {
    let values: Vec<_> = answer.headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).collect();
    let joined = values.join(",");
    let directives: Vec<_> = joined.split(',').map(str::trim).filter(|d| !d.is_empty()).collect();
    let named = |d: &&str, name: &str| d.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(name);
    // `private="field"` is about that field only (RFC 9111 §5.2.2.7).
    if directives.iter().any(|d| d.eq_ignore_ascii_case("private") || named(d, "no-store")) {
        return Ok(());
    }
    // `s-maxage` speaks to shared caches too.
    let kept = directives.iter().filter(|d| !named(d, "public") && !named(d, "s-maxage"));
    let value = std::iter::once("private").chain(kept.copied()).collect::<Vec<_>>().join(", ");
    answer.insert_header(header::CACHE_CONTROL, value)
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
