//! The framework's phases, each a few lines: hygiene, parse, decide, sign, own, log. Decisions are made elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::accept::connection;
use super::drain::Drain;
use super::exchange::{Exchange, State};
use super::forward_auth;
use super::hold::{self};
use super::limits::Places;
use super::outgoing::{
    alone, announced_length, continue_trace, end_after_head, internal, is_stream, join_cookies, rebuild_forwarded, remove_credentials,
    take_answer, take_head,
};
use super::upstream::line::Lines;
use super::{incoming, respond, streams, upstream, wire};
use crate::admission::Denial;
use crate::assertion::Target;
use crate::clock::{self};
use crate::limits::memory::Memory;
use crate::observe::audit::Journal;
use crate::observe::metrics::{InFlight, Metrics};
use crate::observe::telemetry::Telemetry;
use crate::reason::{Denied, Reason};
use crate::request::trace::Trace;
use crate::snapshot::Live;

/// Longest that a denied request's body is read and thrown away so that its connection can go on.
const DRAIN: Duration = Duration::from_secs(5);
/// Longest silence of a client that is sending a body.
const CLIENT_SILENCE: Duration = Duration::from_secs(60);

/// The proxy.
pub(super) struct Proxy {
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lines: Arc<Lines>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) journal: Journal,
    pub(super) buckets: Arc<Memory>,
    pub(super) places: Places,
    pub(super) drain: Arc<Drain>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.live.load(), InFlight::new(&self.metrics.in_flight))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let (limits, telemetry) = (&exchange.snapshot.settings.server.limits, &exchange.snapshot.settings.telemetry);
        let trace = Trace::of(&session.req_header().headers, rand::random(), rand::random());
        exchange.trace = Some(telemetry.as_ref().map_or(trace, |telemetry| trace.sampled_by(telemetry.sample_ratio)));
        let version = session.req_header().version;
        let client = session.as_downstream_mut();
        client.set_ignore_info_resp(version == http::Version::HTTP_10); // it knows none (RFC 9110 §15.2)
        // Not where the client (HTTP/1.0, or `Connection: close`) or a drain already said no.
        if client.get_keepalive().is_some() {
            client.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
        }
        if client.get_keepalive_reuses_remaining().is_none() {
            client.set_keepalive_reuses_remaining(Some(limits.keepalive_requests - 1)); // this is the first of them
        }
        client.set_close_on_response_before_downstream_finish(false);
        client.set_total_drain_timeout(Some(DRAIN));
        client.set_pipelining_enabled(true); // else the second request's first byte cuts off the first one's answer
        client.set_read_timeout(Some(CLIENT_SILENCE));
        client.set_write_timeout(Some(limits.send_timeout));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let (snapshot, headers) = (&exchange.snapshot, &session.req_header().headers);
        exchange.client = connection(session).map(|c| snapshot.settings.server.trusted.client(c.peer, c.secure, headers));
        exchange.state = self.judge(session, exchange).await?;
        match &exchange.state {
            State::Admitted(forwarding) => {
                // Neither the framework nor an upstream that never saw the header would tell the client to go on.
                if forwarding.replay.is_none() {
                    hold::tell_to_continue(session).await?;
                }
                return Ok(false);
            }
            State::Script(script) => respond::script(session, script, &exchange.request_id).await?,
            State::Own(answer) => respond::own_answer(session, answer, exchange.limits.as_ref(), &exchange.request_id).await?,
            State::Preflight(answer) => respond::preflight(session, answer, &exchange.request_id).await?,
            State::Denied(denial) => respond::deny(session, denial, exchange.limits.as_ref(), &exchange.request_id).await?,
            State::Vouched(vouched) => {
                forward_auth::vouch(session, vouched, exchange.limits.as_ref(), &exchange.request_id).await?;
            }
            State::Received => return Error::e_explain(ErrorType::InternalError, "undecided"),
        }
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        match &mut exchange.state {
            State::Admitted(forwarding) => {
                let silence = if is_stream(session) { streams::longest_silence(session, &forwarding.admitted) } else { None };
                let mut peer = forwarding.errand.peer(&self.lines, silence, session.is_upgrade_req())?;
                if session.is_upgrade_req() {
                    alone(&mut peer);
                }
                Ok(peer)
            }
            State::Received | State::Denied(_) | State::Preflight(_) | State::Own(_) | State::Script(_) | State::Vouched(_) => {
                Error::e_explain(ErrorType::InternalError, "not admitted")
            }
        }
    }

    async fn upstream_request_filter(&self, session: &mut Session, request: &mut RequestHeader, exchange: &mut Exchange) -> Result<()> {
        let Exchange { request_id, trace, client, state, .. } = exchange;
        let State::Admitted(forwarding) = state else {
            return Error::e_explain(ErrorType::InternalError, "not admitted");
        };
        forwarding.first_piece = true;
        let mut head = take_head(request); // where anything fails, nothing is sent
        head.uri = forwarding.target()?;
        remove_credentials(&mut head.headers, forwarding.admitted.tenant())?;
        rebuild_forwarded(&mut head.headers, client.as_ref())?;
        end_after_head(&mut head);
        forwarding.errand.set_host(&mut head.headers)?;
        if session.as_downstream().is_http2() {
            join_cookies(&mut head.headers)?;
        }
        if let Some(trace) = trace {
            continue_trace(&mut head.headers, trace)?;
        }
        let body = forwarding.replay.as_ref().filter(|_| forwarding.whole).map(|replay| replay.bytes().as_ref());
        let target = Target { method: head.method.as_str(), path: &forwarding.path, query: forwarding.query.as_deref(), body, request_id };
        let now = clock::read().map_err(|_| internal("the clock shows a time before 2020"))?;
        let signer = &forwarding.errand.upstream().signer;
        let signed = match signer.sign(&forwarding.admitted, &target, now) {
            Ok(signed) => signed,
            Err(why) => {
                forwarding.failed = Some(why);
                return Err(internal("cannot be signed"));
            }
        };
        signed.apply(signer.reserved(), &mut head.headers);
        if session.is_body_empty() || session.is_upgrade_req() {
            forwarding.errand.sent();
        } else {
            forwarding.errand.gather(announced_length(&head.headers));
        }
        *request = head.into();
        Ok(())
    }

    async fn request_body_filter(&self, _: &mut Session, body: &mut Option<Bytes>, is_end: bool, exchange: &mut Exchange) -> Result<()> {
        let Some(forwarding) = exchange.forwarding() else { return Ok(()) };
        if std::mem::take(&mut forwarding.first_piece)
            && let Some(replay) = forwarding.replay.clone()
        {
            replay.complete(body);
        }
        if body.is_some() {
            forwarding.errand.sends();
        }
        if is_end {
            forwarding.errand.sent();
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
        let Exchange { request_id, limits, state, .. } = exchange;
        let State::Admitted(forwarding) = state else { return Ok(()) };
        if let Err(why) = incoming::accept(session, answer, &mut forwarding.interim) {
            let error = Error::explain(ErrorType::InvalidHTTPHeader, why.detail.to_string());
            forwarding.failed = Some(why);
            return Err(error.into_up());
        }
        let mut head = take_answer(answer);
        head.version = http::Version::HTTP_11; // ours, whatever the upstream speaks (RFC 9110 §2.5)
        respond::own(&mut head, &forwarding.admitted, forwarding.errand.upstream().signer.reserved(), request_id)?;
        if let Some(fields) = limits.as_ref().filter(|_| !head.status.is_informational()) {
            respond::say_limits(&mut head.headers, fields)?;
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            respond::choose_subprotocol(session, &mut head.headers);
        }
        *answer = head.into();
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            session.as_downstream_mut().set_read_timeout(None); // an idle WebSocket is no slow client
        } else if self.drain.begun().is_some() {
            session.set_keepalive(None); // the answer says so; to later requests the framework does
        }
        if !answer.status.is_informational() || answer.status == StatusCode::SWITCHING_PROTOCOLS {
            let over = streams::has_no_body(session, answer);
            forwarding.errand.answered(answer.status.as_u16(), is_stream(session), over);
        }
        forwarding.stream = streams::of(session, answer, &forwarding.admitted, &self.live);
        if let Some(stream) = &forwarding.stream {
            wire::end_in_time(session, Arc::clone(stream));
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        is_end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        let Some(forwarding) = exchange.forwarding() else { return Ok(None) };
        forwarding.errand.piece(is_end)?;
        if let (Some(stream), Some(piece)) = (&forwarding.stream, piece) {
            stream.passes(piece);
            if session.as_downstream().is_http2() && !forwarding.parting.passes(stream, piece, Instant::now(), self.drain.begun()) {
                return Err(internal("the identity behind the stream has ended"));
            }
        }
        Ok(None)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if let Some(forwarding) = exchange.forwarding() {
            forwarding.failed = None; // an earlier try's
            forwarding.errand.connected(digest)?;
        }
        Ok(())
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, exchange: &mut Exchange, error: Box<Error>) -> Box<Error> {
        match exchange.forwarding() {
            Some(forwarding) => forwarding.errand.could_not_connect(error),
            None => error,
        }
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        let unanswered = session.response_written().is_none();
        match exchange.forwarding() {
            Some(forwarding) => forwarding.errand.broke_off(error, reused, forwarding.harmless && unanswered),
            None => {
                error.set_retry(false);
                error
            }
        }
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        // A client that broke the body's framing is still there to be told.
        let cut = exchange.forwarding().and_then(|forwarding| forwarding.errand.cut());
        let mut why = wire::broken(session).unwrap_or_else(|| upstream::why(error, cut, respond::reason_of(error)));
        let (tenant, readable_by) = match &mut exchange.state {
            State::Admitted(forwarding) => {
                // On HTTP/2 nobody looked since the last piece.
                let look = session.as_downstream().is_http2() && why.reason != Reason::ClientDisconnected;
                let ended = forwarding.stream.as_ref().and_then(|stream| if look { stream.ended() } else { stream.was_ended() });
                if let Some(reason) = ended {
                    why = Denied::new(reason, "the stream was ended");
                }
                why = forwarding.failed.get_or_insert(why).clone();
                (Some(Arc::clone(forwarding.admitted.tenant())), forwarding.admitted.origin().map(str::to_owned))
            }
            State::Received | State::Denied(_) | State::Preflight(_) | State::Own(_) | State::Script(_) | State::Vouched(_) => (None, None),
        };
        let denial = Denial { why, tenant, readable_by, caller: None };
        let reason = denial.why.reason;
        let unanswered = session.response_written().is_none_or(|answer| answer.status.is_informational());
        if reason != Reason::ClientDisconnected && unanswered {
            session.set_keepalive(None);
            if let Err(error) = respond::deny(session, &denial, exchange.limits.as_ref(), &exchange.request_id).await {
                tracing::debug!(%error, "the client did not take the error");
            }
        }
        if matches!(exchange.state, State::Received) {
            exchange.state = State::Denied(denial);
        }
        FailToProxy { error_code: reason.row().status, can_reuse_downstream: false }
    }

    /// Without the query: tokens may travel there.
    fn request_summary(&self, session: &Session, exchange: &Exchange) -> String {
        let head = session.req_header();
        format!("{} {} request_id={}", head.method, head.uri.path(), exchange.request_id)
    }

    /// The audit record says the same, with the reason.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        wire::end(session);
        let status = session.response_written().map(|answer| answer.status.as_u16());
        if let Some(error) = error {
            tracing::debug!(request_id = exchange.request_id, %error, "the exchange failed");
        }
        if let Some(forwarding) = exchange.forwarding() {
            forwarding.errand.end(error.is_none());
        }
        self.record(session.req_header(), connection(session), status, error.is_some(), exchange);
    }
}
