//! A request's judgement: the watched head, the places that are left, the parsed request, the decision, and the held body
//! where one is needed. Decides nothing itself: [`crate::admission`] does.

use std::sync::Arc;
use std::time::Instant;

use http::Method;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::accept::connection;
use super::exchange::{Exchange, Forwarding, State};
use super::hold::{self, Held, Replay};
use super::outgoing::{credential_queries, is_stream};
use super::proxy::Proxy;
use super::stream::Parting;
use super::upstream::{self, Errand};
use super::wire;
use crate::admission::{self, Body, Decision, Rules};
use crate::client;
use crate::clock::{self, UnixTime};
use crate::limits::Store;
use crate::limits::meter::Meter;
use crate::observe::metrics::seconds;
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::origin::Origin;
use crate::snapshot::Snapshot;
use crate::tenant::Endpoint;
use crate::token::claims::VerifiedSubject;

impl Proxy {
    pub(super) async fn judge(&self, session: &mut Session, exchange: &mut Exchange) -> Result<State> {
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
        let judged = match connection(session).and_then(|c| Some((c.forward_auth?, c.peer))) {
            Some(asked) => Ok(self.judge_check(session.req_header(), clean.map(drop), asked, exchange, &meter)),
            None => self.judge_by(session, clean, exchange, &meter).await,
        };
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
                Judgement::Settled(Settled::Forward(mut forwarding)) => {
                    (forwarding.replay, forwarding.whole) = replay_of(held);
                    return Ok(State::Admitted(forwarding));
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
                let Some(upstream) = exchange.snapshot.upstreams.get(admitted.upstream()) else {
                    let gone = Denied::new(Reason::GatewayInternal, "the upstream is not configured");
                    return Judgement::Settled(Settled::Stop(State::Denied(admitted.stop(gone))));
                };
                let path = match upstream.settings.path.apply(&head.path) {
                    Ok(path) => path.into_owned(),
                    Err(why) => return Judgement::Settled(Settled::Stop(State::Denied(admitted.stop(why)))),
                };
                let names: Vec<_> = credential_queries(admitted.tenant()).collect();
                let query = head.query.without(&names).map(std::borrow::Cow::into_owned);
                let known = (admitted.caller().verified().map(VerifiedSubject::subject), admitted.session());
                let conversation = upstream::conversation(&upstream.settings, &head, known, exchange.client.as_ref());
                let since = Instant::now();
                Judgement::Settled(Settled::Forward(Box::new(Forwarding {
                    errand: Errand::new(Arc::clone(upstream), conversation, is_stream(session), since),
                    harmless: matches!(*head.method, Method::GET | Method::HEAD) && !head.has_body && !head.upgrade,
                    path,
                    query,
                    admitted,
                    replay: None,
                    whole: false,
                    first_piece: false,
                    stream: None,
                    parting: Parting::default(),
                    since,
                    interim: 0,
                    failed: None,
                })))
            }
        }
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
