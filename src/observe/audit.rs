//! The one audit record per request: a JSON line, made here once and handed to a [`Journal`], which writes it off the request's
//! thread; when the pipe is broken or slow, records are dropped and traffic goes on.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Not;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Serialize, Serializer};
use sha2::Sha256;
use tracing_appender::non_blocking::NonBlocking;

use super::metrics::Outcome;
use crate::admission::evidence::Proof;
use crate::admission::{Admitted, CallerSummary};
use crate::clock::UnixTime;
use crate::policy::Level;
use crate::reason::Denied;
use crate::request::trace::Trace;
use crate::secret::Fingerprint;
use crate::snapshot::AuditSubject;
use crate::tenant::Tenant;
use crate::tenant::prints::Prints;

/// What every record says it is: the lines may be mixed with others on their way.
pub const TARGET: &str = "doorward::audit";
/// Bytes that a record has room for before it grows: most have some 600.
const USUAL: usize = 1024;

thread_local! {
    /// The record that is being made.
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(USUAL));
}

/// Where audit records go: a queue that never waits, and its thread.
#[derive(Clone, Debug)]
pub struct Journal(NonBlocking);

impl Journal {
    /// A journal that ends in this queue.
    pub fn new(queue: NonBlocking) -> Self {
        Self(queue)
    }

    /// Writes the record of a request that is over.
    pub fn write(&self, record: &Record<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            if record.write_to(line).is_ok() {
                let _ = self.0.clone().write_all(line); // what it cannot take, it counts
            }
            line.shrink_to(4 * USUAL);
        });
    }
}

/// What is known about a request when it is over.
#[derive(Debug)]
pub struct Record<'r> {
    /// When it was over.
    pub at: UnixTime,
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

impl Record<'_> {
    /// Adds the record's line to `to`.
    ///
    /// # Errors
    /// None that a record can cause: memory takes every byte.
    pub fn write_to(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *to, &Line::of(self))?;
        to.push(b'\n');
        Ok(())
    }
}

/// A record as it is written, one field after the other; what is not known is left out.
#[derive(Serialize)]
struct Line<'r> {
    #[serde(serialize_with = "rfc3339")]
    timestamp: UnixTime,
    target: &'static str,
    request_id: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embed_key: Option<Shown<Fingerprint>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Shown<Prints>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward_auth: Option<&'r str>,
    caller_level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'r, str>>,
    method: &'r str,
    path: &'r str,
    #[serde(skip_serializing_if = "Not::not")]
    upgrade: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    requires: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_up_age_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_up_aal: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_deny: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_fingerprint: Option<Shown<Fingerprint>>,
    latency_seconds: f64,
}

impl<'r> Line<'r> {
    fn of(record: &Record<'r>) -> Self {
        let (level, subject, key) = match (record.admitted.map(Admitted::caller), record.caller) {
            (Some(caller), _) => (caller.level(), caller.subject(), caller.key()),
            (None, Some(caller)) => (caller.level, caller.subject.as_deref(), caller.key.as_ref()),
            (None, None) => (Level::Anonymous, None, None),
        };
        let evidence = record.admitted.map(Admitted::evidence).or(record.caller.map(|caller| &caller.evidence));
        let rule = record.tenant.zip(evidence.and_then(|evidence| evidence.rule));
        let step_up = evidence.and_then(|evidence| evidence.step_up.as_ref());
        let would_deny = record.admitted.and_then(Admitted::would_deny);
        Self {
            timestamp: record.at,
            target: TARGET,
            request_id: record.request_id,
            trace_id: record.trace.map(Trace::id),
            generation: record.generation,
            tenant: record.tenant.map(|tenant| tenant.id.as_str()),
            mode: record.tenant.map(|tenant| tenant.mode.as_str()),
            embed_key: evidence.and_then(|evidence| evidence.embed_key).map(Shown),
            origin: record.origin,
            client: record.client,
            client_certificate: record.client_certificate,
            proof: evidence.and_then(|evidence| evidence.proof).map(Proof::as_str),
            rules: record.rules.map(Shown),
            forward_auth: record.forward_auth,
            caller_level: level.as_str(),
            subject: subject.and_then(|subject| named(record.subject, subject)),
            method: record.method,
            path: record.path,
            upgrade: record.upgrade,
            requires: rule.map(|(tenant, rule)| tenant.policy.requirement_of(rule).described()),
            step_up_age_seconds: step_up.map(|shown| shown.seconds),
            step_up_aal: step_up.and_then(|shown| shown.aal.as_deref()),
            upstream: record.upstream,
            status: record.status,
            outcome: record.outcome.as_str(),
            reason: record.outcome.reason().map(|reason| reason.code()),
            detail: record.denied.or(would_deny).map(|denied| denied.detail.as_ref()).filter(|detail| !detail.is_empty()),
            would_deny: would_deny.map(|denied| denied.reason.code()),
            secret: key.map(|key| key.id.as_str()),
            secret_fingerprint: key.map(|key| Shown(key.fingerprint)),
            latency_seconds: record.latency.as_secs_f64(),
        }
    }
}

/// A value as its `Display` says it.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// RFC 3339 with milliseconds. Beyond the year 9999 it has no digits: a record is worth more than such a clock's time.
fn rfc3339<S: Serializer>(time: &UnixTime, to: S) -> Result<S::Ok, S::Error> {
    let millis = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    to.collect_str(&format_args!("{time:.3}"))
}

fn named<'s>(how: &AuditSubject, subject: &'s str) -> Option<Cow<'s, str>> {
    match how {
        AuditSubject::Plain => Some(Cow::Borrowed(subject)),
        AuditSubject::Omitted => None,
        AuditSubject::Hashed(key) => {
            let mac = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
            Some(Cow::Owned(hex::encode(mac.chain_update(subject).finalize().into_bytes())))
        }
    }
}
