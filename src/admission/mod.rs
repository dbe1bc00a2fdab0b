//! THE order of checks. [`decide`] is a synchronous function: no I/O, no clock, no framework, and pure but for the
//! [`Meter`], which counts (decision record 0011). It walks states that
//! only the state before can make (`KnownTenant` → `AllowedOrigin` → `Authenticated` → [`Admitted`]), so the order cannot
//! change without changing types. Called by the server for every request; only an [`Admitted`] can be signed.

pub mod again;
mod authenticate;
mod check;
pub mod evidence;
mod identify;
mod own;
mod shown;
pub mod standing;

use std::sync::Arc;

use serde_json::Value;

use crate::clock::UnixTime;
use crate::cors::{self, PreflightAnswer};
use crate::limits::meter::{Met, Meter};
use crate::policy::{Level, UpstreamId};
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::origin::Origin;
use crate::revocations::Revocations;
use crate::tenant::{Tenant, Tenants};
use crate::token::claims::{SteppedUp, VerifiedSubject};
use crate::token::keys::IdentityKey;
use crate::token::session::{Session, Sessions};
use authenticate::Authenticated;
pub use check::decide_check;
use evidence::Evidence;
use identify::{AllowedOrigin, KnownTenant};
use shown::Shown;

/// What decisions are made by: one consistent set.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'w> {
    /// All tenants.
    pub tenants: &'w Tenants,
    /// What is revoked.
    pub revocations: &'w Revocations,
    /// Our own session tokens.
    pub sessions: &'w Sessions,
    /// This request before its tenant's limits: the one collaborator that remembers.
    pub meter: &'w Meter,
    /// This request's id; a session that it mints gets the same.
    pub request_id: &'w str,
}

/// How far a body got before this decision.
#[derive(Clone, Copy, Debug)]
pub enum Body<'b> {
    /// Not asked for yet.
    NotRead,
    /// All of it.
    Held(&'b [u8]),
    /// Larger than may be held.
    TooLarge,
    /// Did not arrive in time.
    TooSlow,
}

/// What to do with a request.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // made once per request and taken apart at once: a box would cost an allocation
pub enum Decision {
    /// Forward it, with this signed.
    Forward(Admitted),
    /// Answer the preflight.
    Preflight(PreflightAnswer),
    /// Hold the body, then decide again.
    NeedBody,
    /// Answer it here: one of the gateway's own endpoints.
    Own(OwnAnswer),
    /// Stop.
    Deny(Denial),
}

/// A stop, with what its answer needs.
#[derive(Debug)]
pub struct Denial {
    /// Why.
    pub why: Denied,
    /// The tenant, where it was known by then.
    pub tenant: Option<Arc<Tenant>>,
    /// The origin whose page may read the answer.
    pub readable_by: Option<String>,
    /// Who was denied, where that was known by then: for the audit record, never for the answer.
    pub caller: Option<CallerSummary>,
}

/// Who was talking, for the record.
#[derive(Clone, Debug)]
pub struct CallerSummary {
    /// How sure we were.
    pub level: Level,
    /// The subject: verified or claimed, by the level.
    pub subject: Option<String>,
    /// The key that verified it.
    pub key: Option<Arc<IdentityKey>>,
    /// What other rules could judge it by.
    pub evidence: Evidence,
}

impl CallerSummary {
    fn nobody() -> Self {
        Self { level: Level::Anonymous, subject: None, key: None, evidence: Evidence::default() }
    }

    fn verified(subject: &VerifiedSubject) -> Self {
        let key = Some(Arc::clone(subject.key()));
        Self { level: Level::Verified, subject: Some(subject.subject().to_owned()), key, evidence: Evidence::default() }
    }
}

/// A stop on the way, with the caller where it was known by then.
#[derive(Debug)]
struct Refused {
    why: Denied,
    caller: Option<Box<CallerSummary>>,
}

impl Refused {
    fn of(caller: CallerSummary, why: impl Into<Denied>) -> Self {
        Self { why: why.into(), caller: Some(Box::new(caller)) }
    }

    /// The same with what was found out on the way.
    fn noting(mut self, note: impl FnOnce(&mut Evidence)) -> Self {
        note(&mut self.caller.get_or_insert_with(|| Box::new(CallerSummary::nobody())).evidence);
        self
    }
}

impl From<Denied> for Refused {
    fn from(why: Denied) -> Self {
        Self { why, caller: None }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Denied::from(reason).into()
    }
}

/// The answer of one of the gateway's own endpoints: a 200 with a JSON body, never stored by anybody.
#[derive(Debug)]
pub struct OwnAnswer {
    /// The body, in the vendor's shape.
    pub body: Value,
    /// Whose.
    pub tenant: Arc<Tenant>,
    /// Who was proven, or whom a token was granted.
    pub caller: CallerSummary,
    /// The origin whose page may read it.
    pub readable_by: Option<String>,
}

/// An id that exactly one place outside a token asserts. Nobody signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedId(String);

impl ClaimedId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who is talking.
#[derive(Debug)]
pub enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// Somebody by their own word.
    Claimed(ClaimedId),
    /// Somebody by the host's word, with the step-up that is fresh enough for this request.
    Verified(VerifiedSubject, Option<SteppedUp>),
}

impl Caller {
    /// How sure we are.
    pub fn level(&self) -> Level {
        match self {
            Self::Anonymous => Level::Anonymous,
            Self::Claimed(_) => Level::Claimed,
            Self::Verified(_, None) => Level::Verified,
            Self::Verified(_, Some(_)) => Level::SteppedUp,
        }
    }

    /// The verified subject, where there is one.
    pub fn verified(&self) -> Option<&VerifiedSubject> {
        if let Self::Verified(subject, _) = self { Some(subject) } else { None }
    }

    /// The subject, verified or claimed.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Claimed(id) => Some(id.as_str()),
            Self::Verified(subject, _) => Some(subject.subject()),
        }
    }

    /// The key that verified it.
    pub fn key(&self) -> Option<&Arc<IdentityKey>> {
        self.verified().map(VerifiedSubject::key)
    }

    fn summary(&self) -> CallerSummary {
        let (subject, key) = (self.subject().map(str::to_owned), self.key().cloned());
        CallerSummary { level: self.level(), subject, key, evidence: Evidence::default() }
    }
}

/// The permit: this request may go to this tenant's upstream as this caller.
#[derive(Debug)]
pub struct Admitted {
    tenant: Arc<Tenant>,
    origin: Option<String>,
    caller: Caller,
    session: Option<Session>,
    /// When the step-up that the route asked for is over (Unix seconds).
    step_up_ends_at: Option<f64>,
    would_deny: Option<Denied>,
    evidence: Evidence,
    upstream: UpstreamId,
}

impl Admitted {
    /// Whose.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The page's origin, where there was one.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Who is talking.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The id of the session that it came with, where it came with one: tells anonymous visitors apart.
    pub fn session(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.grant().jti.as_str())
    }

    /// In `monitor`: what `enforce` would have denied it for.
    pub fn would_deny(&self) -> Option<&Denied> {
        self.would_deny.as_ref()
    }

    /// What other rules could judge it by.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Where it may go.
    pub fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    /// Gives the permit back: the request has no way to its upstream.
    pub fn stop(self, why: Denied) -> Denial {
        Denial {
            why,
            caller: Some(CallerSummary { evidence: self.evidence, ..self.caller.summary() }),
            tenant: Some(self.tenant),
            readable_by: self.origin,
        }
    }
}

/// Decides about one request.
pub fn decide(head: &RequestHead<'_>, body: Body<'_>, rules: Rules<'_>, now: UnixTime) -> Decision {
    if head.is_preflight() {
        return preflight(head, rules.tenants);
    }
    if let Some(decision) = own::decide(head, body, rules, now) {
        return decision;
    }
    let known = match KnownTenant::identify(head, rules) {
        Ok(known) => known,
        Err(why) => return Decision::Deny(unknown(why, head.origin, rules.tenants)),
    };
    let tenant = Arc::clone(&known.tenant);
    let embed_key = rules.tenants.fingerprint_of(&known.embed_key);
    let walk = || -> Result<Option<Admitted>, Refused> {
        rules.meter.arrive(met(&tenant), &known.embed_key, head, now)?; // before any token is looked at
        let page = AllowedOrigin::allow(known, head, rules.revocations, now)?;
        let Some(shown) = Shown::collect(&page, head, body)? else { return Ok(None) };
        let authenticated = Authenticated::authenticate(page, shown, rules.revocations, now)?;
        let mut admitted = authenticated.admit(head, now)?;
        admitted.evidence.embed_key = embed_key;
        let subject = admitted.caller.verified().map(VerifiedSubject::subject);
        let passed = rules.meter.pass(met(&tenant), subject, true, head, now); // last: what is denied is not charged
        passed.map_err(|why| Refused::of(admitted.caller.summary(), why).noting(|evidence| *evidence = admitted.evidence.clone()))?;
        Ok(Some(admitted))
    };
    match walk() {
        Ok(Some(admitted)) => Decision::Forward(admitted),
        Ok(None) => Decision::NeedBody,
        Err(why) => {
            let why = why.noting(|evidence| evidence.embed_key = embed_key);
            Decision::Deny(denied(why, head, Arc::clone(&tenant)))
        }
    }
}

/// A tenant's limits, for the meter.
fn met(tenant: &Tenant) -> Met<'_> {
    Met { tenant: &tenant.id, limits: &tenant.limits }
}

/// A stop before any tenant was known: readable by any tenant's pages.
pub fn unknown(why: Denied, origin: Option<Origin<'_>>, tenants: &Tenants) -> Denial {
    let readable_by = origin.filter(|o| tenants.any_allows(*o)).map(|o| o.as_str().to_owned());
    Denial { why, tenant: None, readable_by, caller: None }
}

/// A stop afterwards: readable by this tenant's pages only.
fn denied(refused: Refused, head: &RequestHead<'_>, tenant: Arc<Tenant>) -> Denial {
    let readable_by = head.origin.filter(|o| tenant.allows(*o)).map(|o| o.as_str().to_owned());
    let caller = refused.caller.map(|caller| *caller);
    Denial { why: refused.why, tenant: Some(tenant), readable_by, caller }
}

fn preflight(head: &RequestHead<'_>, tenants: &Tenants) -> Decision {
    match head.origin.filter(|origin| tenants.any_allows(*origin)) {
        Some(origin) => Decision::Preflight(cors::preflight(origin, tenants)),
        None => Decision::Deny(unknown(Reason::OriginNotAllowed.into(), head.origin, tenants)),
    }
}
