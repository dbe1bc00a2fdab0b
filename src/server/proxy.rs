//! The framework's phases, each a few lines: hygiene, parse, decide, sign, own, log. Decisions are made elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::accept::connection;
use super::exchange::{Exchange, Forwarding, State};
use super::hold::{self, Held, Replay};
use super::limits::Places;
use super::stream::Parting;
use super::{respond, streams, upstream, wire};
use crate::admission::{self, Admitted, Body, Decision, Denial, Rules};
use crate::assertion::{Fields, Target};
use crate::client;
use crate::clock::{self, UnixTime};
use crate::limits::Store;
use crate::limits::memory::Memory;
use crate::limits::meter::Meter;
use crate::observe::audit;
use crate::observe::metrics::{InFlight, Metrics, Outcome, seconds};
use crate::policy::Level;
use crate::reason::{Denied, Reason};
use crate::request::forwarded::{self, Client};
use crate::request::origin::Origin;
use crate::request::trace::{TRACEPARENT, TRACESTATE, Trace};
use crate::request::{OWN_SUBPROTOCOL, RequestHead, TOKEN_SUBPROTOCOL, subprotocols};
use crate::resolver::Resolver;
use crate::snapshot::{Live, Snapshot};
use crate::tenant::{Endpoint, OnStreamExpiry, Place, Tenant};

/// Longest that a denied request's body is read and thrown away so that its connection can go on.
const DRAIN: Duration = Duration::from_secs(5);
/// Longest silence of a client that is sending a body.
const CLIENT_SILENCE: Duration = Duration::from_secs(60);

/// The proxy.
pub(super) struct Proxy {
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) buckets: Arc<Memory>,
    pub(super) places: Places,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.live.load(), InFlight::new(&self.metrics.in_flight))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let limits = &exchange.snapshot.settings.server.limits;
        exchange.trace = Some(Trace::of(&session.req_header().headers, rand::random(), rand::random()));
        let client = session.as_downstream_mut();
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
            State::Received => return Error::e_explain(ErrorType::InternalError, "undecided"),
        }
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        match &exchange.state {
            State::Admitted(forwarding) => {
                let silence = if is_stream(session) { streams::longest_silence(session, &forwarding.admitted) } else { None };
                upstream::peer(&self.resolver, &exchange.snapshot.settings.upstream, is_stream(session), silence)
            }
            State::Received | State::Denied(_) | State::Preflight(_) | State::Own(_) | State::Script(_) => {
                Error::e_explain(ErrorType::InternalError, "not admitted")
            }
        }
    }

    async fn upstream_request_filter(&self, session: &mut Session, request: &mut RequestHeader, exchange: &mut Exchange) -> Result<()> {
        let snapshot = Arc::clone(&exchange.snapshot);
        let (request_id, trace, client) = (exchange.request_id.clone(), exchange.trace, exchange.client.clone());
        let Some(forwarding) = exchange.forwarding() else {
            return Error::e_explain(ErrorType::InternalError, "not admitted");
        };
        forwarding.first_piece = true;
        let target = forwarding.query.as_ref().map_or_else(|| forwarding.path.clone(), |q| format!("{}?{q}", forwarding.path));
        request.set_uri(target.parse().map_err(|_| internal("target does not parse"))?);
        remove_credentials(request, forwarding.admitted.tenant())?;
        rebuild_forwarded(request, client.as_ref())?;
        if session.as_downstream().is_http2() {
            join_cookies(request)?;
        }
        if let Some(trace) = trace {
            continue_trace(request, &trace)?;
        }
        let body = forwarding.replay.as_ref().filter(|_| forwarding.whole).map(|replay| replay.bytes().as_ref());
        let target = Target {
            method: request.method.as_str(),
            path: &forwarding.path,
            query: forwarding.query.as_deref(),
            body,
            request_id: &request_id,
        };
        let now = clock::read().map_err(|_| internal("the clock shows a time before 2020"))?;
        let signed = match snapshot.signer.sign(&forwarding.admitted, &target, now) {
            Ok(signed) => signed,
            Err(why) => {
                forwarding.failed = Some(why);
                return Err(internal("cannot be signed"));
            }
        };
        signed.apply(snapshot.signer.reserved(), &mut Sent(request));
        Ok(())
    }

    async fn request_body_filter(&self, _: &mut Session, body: &mut Option<Bytes>, _: bool, exchange: &mut Exchange) -> Result<()> {
        if let Some(forwarding) = exchange.forwarding()
            && std::mem::take(&mut forwarding.first_piece)
            && let Some(replay) = forwarding.replay.clone()
        {
            replay.complete(body);
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
        let request_id = exchange.request_id.clone();
        let (snapshot, limits) = (Arc::clone(&exchange.snapshot), exchange.limits.clone());
        let Some(forwarding) = exchange.forwarding() else { return Ok(()) };
        answer.set_version(http::Version::HTTP_11); // ours, whatever the upstream speaks (RFC 9110 §2.5)
        respond::own(answer, &forwarding.admitted, snapshot.signer.reserved(), &request_id)?;
        if let Some(fields) = limits.as_ref().filter(|_| !answer.status.is_informational()) {
            respond::say_limits(answer, fields)?;
        }
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            respond::choose_subprotocol(session, answer)?;
            session.as_downstream_mut().set_read_timeout(None); // an idle WebSocket is no slow client
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
        _: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        if let Some(forwarding) = exchange.forwarding()
            && let (Some(stream), Some(piece)) = (&forwarding.stream, piece)
        {
            stream.passes(piece);
            if session.as_downstream().is_http2() && !forwarding.parting.passes(stream, piece, Instant::now()) {
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
        _: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if let Some(forwarding) = exchange.forwarding() {
            forwarding.failed = None; // an earlier try's
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        // A client that broke the body's framing is still there to be told.
        let mut why = wire::broken(session).unwrap_or_else(|| Denied::from(respond::reason_of(error)));
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
            State::Received | State::Denied(_) | State::Preflight(_) | State::Own(_) | State::Script(_) => (None, None),
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
        let certificate = connection(session).and_then(|connection| connection.certificate.as_deref());
        self.log(session.req_header(), certificate, status, error.is_some(), exchange);
    }
}

impl Proxy {
    async fn judge(&self, session: &mut Session, exchange: &mut Exchange) -> Result<State> {
        let goes_on = session.as_downstream().as_http2().is_some_and(|stream| !stream.is_body_empty());
        let wire = wire::head(session);
        if wire.as_ref().map_or(true, |head| head.opaque) {
            session.set_keepalive(None); // what follows is not watched
        }
        let clean = wire.map(|_| goes_on);
        exchange.place = self.places.take(exchange.snapshot.settings.server.limits.max_in_flight);
        if exchange.place.is_none() {
            let origin = Origin::of(&session.req_header().headers).ok().flatten();
            return Ok(State::Denied(admission::unknown(Reason::GatewayOverloaded.into(), origin, &exchange.snapshot.tenants)));
        }
        let meter = Meter::new(Arc::clone(&self.buckets) as Arc<dyn Store>, exchange.client_address());
        let judged = self.judge_by(session, clean, exchange, &meter).await;
        exchange.limits = meter.fields();
        judged
    }

    async fn judge_by(&self, session: &mut Session, clean: Result<bool, Denied>, exchange: &Exchange, meter: &Meter) -> Result<State> {
        let mut held: Option<Held> = None;
        loop {
            let body = match &held {
                None => Body::NotRead,
                Some(Held::Whole(replay)) => Body::Held(replay.bytes()),
                Some(Held::TooLarge(_)) => Body::TooLarge,
                Some(Held::TooSlow) => Body::TooSlow,
            };
            match self.decide(session, clean.clone(), body, exchange, meter) {
                Judgement::Settled(Settled::Forward(forwarding)) => {
                    let (replay, whole) = replay_of(held);
                    return Ok(State::Admitted(Box::new(Forwarding { replay, whole, ..*forwarding })));
                }
                Judgement::Settled(Settled::Stop(state)) => return Ok(state),
                Judgement::NeedBody(_) if held.is_some() => {
                    return Error::e_explain(ErrorType::InternalError, "body asked for twice");
                }
                Judgement::NeedBody(length) => {
                    let server = &exchange.snapshot.settings.server;
                    held = Some(hold::hold(session, length, server.body_hold, server.body_timeout).await?);
                }
            }
        }
    }

    /// One pass of the pure part: hygiene, parse, decide.
    fn decide(&self, session: &Session, clean: Result<bool, Denied>, body: Body<'_>, exchange: &Exchange, meter: &Meter) -> Judgement {
        let started = Instant::now();
        let tenants = &exchange.snapshot.tenants;
        let parts = session.req_header();
        let origin = Origin::of(&parts.headers).ok().flatten();
        let stop = |why: Denied| Judgement::Settled(Settled::Stop(State::Denied(admission::unknown(why, origin, tenants))));
        let Ok(now) = clock::read() else { return stop(Reason::ClockBehind.into()) };
        let head = match clean.and_then(|goes_on| RequestHead::parse_stream(parts, goes_on)) {
            Ok(head) => head,
            Err(why) => return stop(why),
        };
        if let Some(own) = before_deciding(&head, &exchange.snapshot, meter, now) {
            return Judgement::Settled(Settled::Stop(own));
        }
        let (sessions, request_id) = (&exchange.snapshot.sessions, &exchange.request_id);
        let rules = Rules { tenants, revocations: &exchange.revocations, sessions, meter, request_id };
        let decision = admission::decide(&head, body, rules, now);
        self.metrics.decision.observe(seconds(started.elapsed()));
        match decision {
            Decision::NeedBody => Judgement::NeedBody(head.content_length),
            Decision::Own(answer) => Judgement::Settled(Settled::Stop(State::Own(answer))),
            Decision::Preflight(answer) => Judgement::Settled(Settled::Stop(State::Preflight(answer))),
            Decision::Deny(denial) => Judgement::Settled(Settled::Stop(State::Denied(denial))),
            Decision::Forward(admitted) => {
                let names: Vec<_> = credential_queries(admitted.tenant()).collect();
                let query = head.query.without(&names).map(std::borrow::Cow::into_owned);
                Judgement::Settled(Settled::Forward(Box::new(Forwarding {
                    path: head.path.as_str().to_owned(),
                    query,
                    admitted,
                    replay: None,
                    whole: false,
                    first_piece: false,
                    stream: None,
                    parting: Parting::default(),
                    since: Instant::now(),
                    failed: None,
                })))
            }
        }
    }

    fn log(&self, request: &RequestHeader, certificate: Option<&str>, status: Option<u16>, failed: bool, exchange: &Exchange) {
        let mut caller = None; // a permit has its own
        let (outcome, tenant, admitted, denied) = match &exchange.state {
            State::Admitted(forwarding) => {
                self.metrics.upstream.observe(seconds(forwarding.since.elapsed()));
                let level = forwarding.admitted.caller().level();
                let reason = forwarding.failed.as_ref().map(|why| why.reason).or(failed.then_some(Reason::ClientDisconnected));
                let outcome = reason.map_or(Outcome::Forwarded(level), |reason| Outcome::Failed(reason, level));
                (outcome, Some(forwarding.admitted.tenant()), Some(&forwarding.admitted), forwarding.failed.as_ref())
            }
            State::Denied(denial) => {
                caller = denial.caller.as_ref();
                (Outcome::Denied(denial.why.reason), denial.tenant.as_ref(), None, Some(&denial.why))
            }
            State::Own(answer) => {
                caller = Some(&answer.caller);
                (Outcome::Answered(answer.caller.level), Some(&answer.tenant), None, None)
            }
            State::Script(_) => (Outcome::Answered(Level::Anonymous), None, None, None),
            State::Preflight(_) => (Outcome::Preflight, None, None, None),
            State::Received => (Outcome::Denied(Reason::ClientDisconnected), None, None, None),
        };
        let would_deny = admitted.and_then(Admitted::would_deny).map(|d| d.reason);
        self.metrics.tenant(tenant.map(|t| t.id.as_str())).count(outcome, would_deny);
        if let Some(key) = admitted.and_then(|a| a.caller().verified()).map(|v| v.key())
            && let Ok(now) = clock::read()
        {
            key.usage.hit(now);
        }
        audit::record(&audit::Record {
            request_id: &exchange.request_id,
            generation: exchange.snapshot.generation,
            tenant: tenant.map(|t| t.id.as_str()),
            origin: Origin::of(&request.headers).ok().flatten().map(Origin::as_str),
            client: exchange.client_address(),
            client_certificate: certificate,
            method: request.method.as_str(),
            path: request.uri.path(),
            status,
            outcome,
            denied,
            admitted,
            caller,
            trace: exchange.trace.as_ref(),
            subject: &exchange.snapshot.settings.audit_subject,
            latency: exchange.received.elapsed(),
        });
    }
}

/// What needs no tenant: the page's script, and the limit of the server-to-server mint.
fn before_deciding(head: &RequestHead<'_>, snapshot: &Snapshot, meter: &Meter, now: UnixTime) -> Option<State> {
    if !snapshot.sessions.are_on() {
        return None;
    }
    if matches!(*head.method, Method::GET | Method::HEAD)
        && let Some(script) = client::at(head.path.as_str())
    {
        return Some(State::Script(script));
    }
    if snapshot.tenants.endpoint(head.method, &head.path) != Some(Endpoint::UserToken) {
        return None;
    }
    let why = meter.mint(now).err()?;
    Some(State::Denied(admission::unknown(why, head.origin, &snapshot.tenants)))
}

enum Judgement {
    Settled(Settled),
    /// With the body's length, where it is known.
    NeedBody(Option<u64>),
}

enum Settled {
    Forward(Box<Forwarding>),
    Stop(State),
}

/// What to send before the rest of the body, and whether it is all of it.
fn replay_of(held: Option<Held>) -> (Option<Replay>, bool) {
    match held {
        Some(Held::Whole(replay)) => (Some(replay), true),
        Some(Held::TooLarge(replay)) => (replay, false),
        Some(Held::TooSlow) | None => (None, false),
    }
}

fn internal(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, why)
}

/// Streams are silent for as long as they like: they are exempt from the upstream's read timeout by this rule.
fn is_stream(session: &Session) -> bool {
    let head = session.req_header();
    let accepts = head.headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    head.headers.contains_key(header::UPGRADE) || accepts.flat_map(|v| v.split(',')).any(|t| t.trim().starts_with("text/event-stream"))
}

/// Query parameters that are credentials or embed keys of this tenant.
fn credential_queries(tenant: &Tenant) -> impl Iterator<Item = &str> {
    let places = tenant.places.embed_key.iter().chain(&tenant.places.token);
    let placed = places.filter_map(|place| if let Place::Query(name) = place { Some(name.as_str()) } else { None });
    placed.chain(tenant.sessions.in_query.then_some(RequestHead::SESSION_PARAMETER))
}

/// The client's credentials and its own word about who it is stop here; `Expect` was answered here.
fn remove_credentials(request: &mut RequestHeader, tenant: &Tenant) -> Result<()> {
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
fn continue_trace(request: &mut RequestHeader, trace: &Trace) -> Result<()> {
    request.remove_header(&TRACEPARENT);
    if !trace.is_continued() {
        request.remove_header(&TRACESTATE);
    }
    request.insert_header(TRACEPARENT, trace.header())
}

/// What anybody said about where the request came from is replaced by what can be believed of it.
fn rebuild_forwarded(request: &mut RequestHeader, client: Option<&Client>) -> Result<()> {
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

/// HTTP/2 may split cookies; HTTP/1.1 has one field for them (RFC 9113 §8.2.3).
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let crumbs: Vec<_> = request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return Ok(());
    }
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| internal("cookies cannot be joined"))?;
    request.insert_header(header::COOKIE, joined)
}

/// The framework's header section, as something an assertion can be applied to.
struct Sent<'r>(&'r mut RequestHeader);

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
