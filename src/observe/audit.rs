//! The one audit record per request: a JSON line through `tracing`, target `doorward::audit`. Written off the request's
//! thread; when the pipe is broken or slow, records are dropped and traffic goes on.

use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::metrics::Outcome;
use crate::admission::evidence::Proof;
use crate::admission::{Admitted, CallerSummary};
use crate::policy::Level;
use crate::reason::Denied;
use crate::request::trace::Trace;
use crate::snapshot::AuditSubject;
use crate::tenant::Tenant;
use crate::tenant::prints::Prints;

/// What is known about a request when it is over.
#[derive(Debug)]
pub struct Record<'r> {
    /// The request's id.
    pub request_id: &'r str,
    /// Generation of the configuration it was judged by.
    pub generation: u64,
    /// The tenant, where it was known.
    pub tenant: Option<&'r Tenant>,
    /// By which rules its credentials were read and judged.
    pub rules: Option<Prints>,
    /// The Origin header's value, where there was one.
    pub origin: Option<&'r str>,
    /// Whom it came from: the rightmost address that is not a trusted proxy's.
    pub client: Option<IpAddr>,
    /// What the client's certificate calls it, where it showed one.
    pub client_certificate: Option<&'r str>,
    /// The convention in which an ingress asked about it, where one did.
    pub forward_auth: Option<&'r str>,
    /// The method.
    pub method: &'r str,
    /// The path, without the query: tokens may travel there.
    pub path: &'r str,
    /// Whether it asked for a WebSocket.
    pub upgrade: bool,
    /// The status that was answered, where one was.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// The denial, for its detail.
    pub denied: Option<&'r Denied>,
    /// The upstream that it was for, where it came to that.
    pub upstream: Option<&'r str>,
    /// The permit, where one was given.
    pub admitted: Option<&'r Admitted>,
    /// Who was talking, where that was known without a permit.
    pub caller: Option<&'r CallerSummary>,
    /// The trace that it belongs to, where its head was read.
    pub trace: Option<&'r Trace>,
    /// How subjects are named.
    pub subject: &'r AuditSubject,
    /// From the parsed head to the end.
    pub latency: Duration,
}

/// Writes the record.
pub fn record(record: &Record<'_>) {
    let (level, subject, key) = match (record.admitted.map(Admitted::caller), record.caller) {
        (Some(caller), _) => (caller.level(), caller.subject(), caller.key()),
        (None, Some(caller)) => (caller.level, caller.subject.as_deref(), caller.key.as_ref()),
        (None, None) => (Level::Anonymous, None, None),
    };
    let evidence = record.admitted.map(Admitted::evidence).or(record.caller.map(|caller| &caller.evidence));
    let rule = record.tenant.zip(evidence.and_then(|evidence| evidence.rule));
    let requires = rule.map(|(tenant, rule)| tenant.policy.requirement_of(rule).described());
    let step_up = evidence.and_then(|evidence| evidence.step_up.as_ref());
    let would_deny = record.admitted.and_then(Admitted::would_deny);
    let detail = record.denied.or(would_deny).map(|d| d.detail.as_ref()).filter(|d| !d.is_empty());
    let subject = subject.and_then(|subject| named(record.subject, subject));
    tracing::info!(
        target: "doorward::audit",
        request_id = record.request_id,
        trace_id = record.trace.map(Trace::id),
        generation = record.generation,
        tenant = record.tenant.map(|tenant| tenant.id.as_str()),
        mode = record.tenant.map(|tenant| tenant.mode.as_str()),
        embed_key = evidence.and_then(|evidence| evidence.embed_key).map(tracing::field::display),
        origin = record.origin,
        client = record.client.map(tracing::field::display),
        client_certificate = record.client_certificate,
        proof = evidence.and_then(|evidence| evidence.proof).map(Proof::as_str),
        rules = record.rules.map(tracing::field::display),
        forward_auth = record.forward_auth,
        caller_level = level.as_str(),
        subject,
        method = record.method,
        path = record.path,
        upgrade = record.upgrade.then_some(true),
        requires = requires.as_deref(),
        step_up_age_seconds = step_up.map(|shown| shown.seconds),
        step_up_aal = step_up.and_then(|shown| shown.aal.as_deref()),
        upstream = record.upstream,
        status = record.status,
        outcome = record.outcome.as_str(),
        reason = record.outcome.reason().map(|r| r.code()),
        detail,
        would_deny = would_deny.map(|d| d.reason.code()),
        secret = key.map(|key| key.id.as_str()),
        secret_fingerprint = key.map(|key| tracing::field::display(key.fingerprint)),
        latency_seconds = record.latency.as_secs_f64(),
    );
}

fn named(how: &AuditSubject, subject: &str) -> Option<String> {
    match how {
        AuditSubject::Plain => Some(subject.to_owned()),
        AuditSubject::Omitted => None,
        AuditSubject::Hashed(key) => {
            let mac = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
            Some(hex::encode(mac.chain_update(subject).finalize().into_bytes()))
        }
    }
}
