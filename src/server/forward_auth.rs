//! The forward-auth listener: an ingress asks about a request, and gets the headers to set on it, or the denial. What it asks
//! about is read by its convention alone and then judged like any other request, by [`admission::decide_check`]; nothing is
//! sent upstream from here, and nothing is answered but yes or no. Called for connections of such listeners.

use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use pingora::proxy::Session;

use super::accept::connection;
use super::exchange::{Exchange, State, Vouched};
use super::proxy::Proxy;
use super::respond;
use crate::admission::{self, Denial, Rules};
use crate::assertion::Target;
use crate::clock;
use crate::cors;
use crate::limits::meter::{Fields, Meter};
use crate::observe::metrics::seconds;
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::forwarded::Peer;
use crate::request::origin::Origin;
use crate::request::original::{self, Convention};
use crate::snapshot::Snapshot;

impl Proxy {
    /// Judges the request that a check is about. `clean` is how the check's own bytes were.
    pub(super) fn judge_check(
        &self,
        check: &Parts,
        clean: Result<(), Denied>,
        asked: (Convention, Peer),
        exchange: &mut Exchange,
        meter: &Meter,
    ) -> State {
        let judged = match asked_about(check, clean, asked, &exchange.snapshot) {
            Ok(original) => {
                let vouched = self.vouch_for(&original, exchange, meter);
                exchange.original = Some(original);
                vouched
            }
            Err(why) => Err(unknown(why, check, &exchange.snapshot)),
        };
        match judged {
            Ok(vouched) => State::Vouched(Box::new(vouched)),
            Err(denial) => State::Denied(*denial),
        }
    }

    fn vouch_for(&self, original: &Parts, exchange: &Exchange, meter: &Meter) -> Result<Vouched, Box<Denial>> {
        let started = Instant::now();
        let snapshot = &exchange.snapshot;
        let stop = |why: Denied| unknown(why, original, snapshot);
        let now = clock::read().map_err(|_| stop(Reason::ClockBehind.into()))?;
        let head = RequestHead::parse(original).map_err(stop)?;
        let (tenants, sessions, revocations) = (&snapshot.tenants, &snapshot.sessions, &*exchange.revocations);
        let rules = Rules { tenants, revocations, sessions, meter, request_id: &exchange.request_id };
        let decided = admission::decide_check(&head, rules, now);
        self.metrics.decision.observe(seconds(started.elapsed()));
        let admitted = decided?;
        let target = Target {
            method: head.method.as_str(),
            path: head.path.as_str(),
            query: head.query.as_sent(),
            body: None,
            request_id: &exchange.request_id,
        };
        // The ingress sends it where it likes: what the backend is told is what its upstream here would be told.
        let upstream = snapshot.upstreams.get(admitted.upstream());
        let signed = upstream.ok_or(Denied::new(Reason::GatewayInternal, "the upstream is not configured"));
        match signed.and_then(|upstream| upstream.signer.sign_every(&admitted, &target, now)) {
            Ok(headers) => Ok(Vouched { admitted, headers }),
            Err(why) => Err(Box::new(admitted.stop(why))),
        }
    }
}

/// The request that a check is about, if a trusted proxy asks and nothing would reach the backend beside our answer.
fn asked_about(check: &Parts, clean: Result<(), Denied>, (convention, peer): (Convention, Peer), by: &Snapshot) -> Result<Parts, Denied> {
    if !by.settings.server.trusted.contains(peer) {
        return Err(Reason::ForwardAuthUntrusted.into());
    }
    clean?;
    let original = original::read(convention, check)?;
    // The same names towards every upstream.
    let any = by.upstreams.all().next().ok_or(Reason::GatewayInternal)?;
    any.signer.reserved().refuse(original.headers.keys())?;
    Ok(original)
}

fn unknown(why: Denied, request: &Parts, by: &Snapshot) -> Box<Denial> {
    Box::new(admission::unknown(why, Origin::of(&request.headers).ok().flatten(), &by.tenants))
}

/// Answers a check with every header that the ingress sets, and those that it may set on the answer for the page.
pub(super) async fn vouch(session: &mut Session, vouched: &Vouched, limits: Option<&Fields>, request_id: &str) -> pingora::Result<()> {
    let mut fields = respond::ours(request_id, limits)?;
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    for (name, value) in vouched.headers.fields() {
        fields.insert(name, value.clone());
    }
    if let Some(origin) = vouched.admitted.origin() {
        cors::readable_by(origin, Some(vouched.admitted.tenant()), &mut fields);
    }
    respond::write(session, 200, fields, Bytes::new()).await
}

/// The status that a denial is answered with: `auth_request` knows 401 and 403 only, and makes 500 of every other refusal.
pub(super) fn status(session: &Session, status: u16) -> u16 {
    let convention = connection(session).and_then(|connection| connection.forward_auth);
    let refusal = (400..500).contains(&status) && status != 401;
    if convention == Some(Convention::Nginx) && refusal { 403 } else { status }
}
