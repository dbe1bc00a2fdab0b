//! The end of a request: one count, one audit record and, where it is traced, one span, whatever became of it.

use http::header;
use pingora::http::RequestHeader;

use super::accept::Connection;
use super::exchange::{Exchange, State};
use super::proxy::Proxy;
use crate::admission::Admitted;
use crate::clock::{self, UnixTime};
use crate::observe::audit;
use crate::observe::metrics::{Outcome, seconds};
use crate::observe::recent::{Event, Kind};
use crate::observe::telemetry::Ended;
use crate::policy::Level;
use crate::reason::Reason;
use crate::request::forwarded::Client;
use crate::request::origin::Origin;
use crate::request::original::Convention;

impl Proxy {
    /// Counts and records a request that is over. `failed` is whether the framework ended it with an error.
    pub(super) fn record(
        &self,
        request: &RequestHeader,
        connection: Option<&Connection>,
        status: Option<u16>,
        failed: bool,
        exchange: &Exchange,
    ) {
        let request = exchange.original.as_ref().unwrap_or(request); // what an ingress asked about, not its asking
        let mut caller = None; // a permit has its own
        let (outcome, tenant, admitted, denied) = match &exchange.state {
            State::Admitted(forwarding) => {
                self.metrics.upstream.observe(seconds(forwarding.since.elapsed()));
                let level = forwarding.admitted.caller().level();
                let reason = forwarding.failed.as_ref().map(|why| why.reason).or(failed.then_some(Reason::ClientDisconnected));
                let outcome = reason.map_or(Outcome::Forwarded(level), |reason| Outcome::Failed(reason, level));
                (outcome, Some(forwarding.admitted.tenant()), Some(&forwarding.admitted), forwarding.failed.as_ref())
            }
            State::Vouched(vouched) => {
                let level = vouched.admitted.caller().level();
                (Outcome::Forwarded(level), Some(vouched.admitted.tenant()), Some(&vouched.admitted), None)
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
        let stopped = outcome.reason().filter(|reason| *reason != Reason::ClientDisconnected);
        let now = clock::read();
        let noted = stopped.map(|reason| (Kind::Stopped, reason)).or(would_deny.map(|reason| (Kind::WouldDeny, reason)));
        if let Some((kind, reason)) = noted
            && let Ok(at) = now
        {
            let detail = denied.or(admitted.and_then(Admitted::would_deny)).map_or("", |why| &*why.detail);
            let (tenant, request_id) = (tenant.map(|t| t.id.as_str()), exchange.request_id.as_str());
            let (method, path) = (request.method.as_str(), request.uri.path());
            self.metrics.recent.note(Event { at, kind, reason, detail, tenant, method, path, request_id });
        }
        if let Some(key) = admitted.and_then(|a| a.caller().verified()).map(|v| v.key())
            && let Ok(now) = now
        {
            key.usage.hit(now);
        }
        // Somebody showed a key that is not known: perhaps its issuer has just begun to use it.
        let unknown = |reason| matches!(reason, Reason::TokenKeyUnknown | Reason::KeysMissing);
        if outcome.reason().or(would_deny).is_some_and(unknown) {
            tenant.into_iter().for_each(|tenant| tenant.keys.ask());
        }
        let path = request.uri.path();
        let latency = exchange.received.elapsed();
        if exchange.snapshot.settings.telemetry.is_some()
            && let Some(trace) = &exchange.trace
            && let Ok(at) = now
        {
            self.telemetry.ended(&Ended {
                trace,
                request_id: &exchange.request_id,
                tenant: tenant.map(|t| t.id.as_str()),
                method: request.method.as_str(),
                path,
                scheme: exchange.client.as_ref().map(Client::scheme),
                version: request.version,
                status,
                outcome,
                would_deny,
                at,
                latency,
            });
        }
        self.journal.write(&audit::Record {
            at: now.unwrap_or(UnixTime::EPOCH), // a clock that cannot be right says nothing
            request_id: &exchange.request_id,
            generation: exchange.snapshot.generation,
            tenant: tenant.map(|t| &**t),
            rules: tenant.and_then(|t| exchange.snapshot.tenants.prints_of(&t.id)),
            origin: Origin::of(&request.headers).ok().flatten().map(Origin::as_str),
            client: exchange.client_address(),
            client_certificate: connection.and_then(|connection| connection.certificate.as_deref()),
            forward_auth: connection.and_then(|connection| connection.forward_auth).map(Convention::as_str),
            method: request.method.as_str(),
            path,
            upgrade: request.headers.contains_key(header::UPGRADE),
            status,
            outcome,
            denied,
            upstream: match &exchange.state {
                State::Admitted(forwarding) => Some(forwarding.errand.upstream().settings.name.as_str()),
                State::Received | State::Denied(_) | State::Preflight(_) | State::Own(_) | State::Script(_) | State::Vouched(_) => None,
            },
            admitted,
            caller,
            trace: exchange.trace.as_ref(),
            subject: &exchange.snapshot.settings.audit_subject,
            latency,
        });
    }
}
