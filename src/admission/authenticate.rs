//! Who is talking, and is that enough here: the decision table, then route policy. Signatures and claims are judged in
//! [`crate::token`]; this puts their verdict, the ids beside it and the tenant's mode together.

use std::sync::Arc;

use super::evidence::{Evidence, Proof, StepUpAge};
use super::identify::AllowedOrigin;
use super::shown::Shown;
use super::{Admitted, Caller, CallerSummary, ClaimedId, Refused};
use crate::clock::UnixTime;
use crate::policy::{Level, Mode, RequiredClaim, Requirement};
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::credential::Form;
use crate::request::origin::Origin;
use crate::revocations::Revocations;
use crate::tenant::{MissingOrigin, OnExpired, Tenant, UnsignedId};
use crate::token::claims::VerifiedSubject;
use crate::token::keys::IdentityKey;
use crate::token::session::{GrantLevel, Session};
use crate::token::{FORMATS, FormatName};

/// A caller whose token, if any, was judged.
pub(super) struct Authenticated<'a> {
    page: AllowedOrigin<'a>,
    caller: Caller,
    proof: Proof,
    /// What enforce would deny; `None` in enforce, where it was denied.
    would_deny: Option<Denied>,
    /// The token was good but for its expiry and the tenant goes on anonymously.
    expired: bool,
}

impl<'a> Authenticated<'a> {
    pub(super) fn authenticate(
        page: AllowedOrigin<'a>,
        shown: Shown<'_>,
        revocations: &Revocations,
        now: UnixTime,
    ) -> Result<Self, Refused> {
        let tenant = &page.known.tenant;
        let judged = match (&page.session, tenant.mode, &shown.unread) {
            (Some(session), Mode::Off, _) => {
                let caller = by_session(session, page.parent.as_ref()).map_err(Refused::from);
                caller.map(|caller| match caller {
                    verified @ Caller::Verified(..) => Judged::Caller(verified),
                    // An id beside it counts as it does beside nothing: alone, or not at all.
                    Caller::Claimed(_) | Caller::Anonymous => Judged::Caller(unproven(Some(session), &shown)),
                })
            }
            (None, Mode::Off, _) => Ok(Judged::Caller(shown.unproven())),
            (_, _, Some(unread)) => Err(unread.clone().into()),
            (Some(session), _, None) => judge_session(tenant, session, page.parent.as_ref(), &shown),
            (None, _, None) => judge(tenant, &shown, revocations, now),
        };
        let proof = Proof::of(tenant.mode, page.session.as_ref(), &shown, &judged);
        let noting = |refused: Refused| refused.noting(|evidence| evidence.proof = Some(proof));
        let weighed = weigh(tenant.mode, judged, Caller::Anonymous, || unproven(page.session.as_ref(), &shown)).map_err(noting)?;
        let Weighed { caller, would_deny, expired } = weighed;
        allow_missing_origin(tenant, page.origin, caller.level()).map_err(|why| noting(Refused::of(caller.summary(), why)))?;
        let would_deny = would_deny.map(|refused| refused.why);
        Ok(Self { page, caller, proof, would_deny, expired })
    }

    /// Route policy, which follows the mode.
    pub(super) fn admit(self, head: &RequestHead<'_>, now: UnixTime) -> Result<Admitted, Refused> {
        let tenant = self.page.known.tenant;
        let requirement = tenant.policy.requirement(head.method, &head.path, head.upgrade);
        let shown = self.caller.verified().and_then(VerifiedSubject::stepped_up);
        let evidence = Evidence {
            embed_key: None,
            proof: Some(self.proof),
            rule: Some(requirement.rule),
            step_up: shown.map(|shown| StepUpAge { seconds: now.as_secs_f64() - shown.at, aal: shown.aal.clone() }),
        };
        let caller = step_up(self.caller, &requirement, now);
        let claims = caller.verified().map(VerifiedSubject::claims);
        let has = |claim: &RequiredClaim| claim.met_by(claims.and_then(|all| all.get(&claim.name)));
        let would_deny = match under(tenant.mode, self.would_deny, || unmet(caller.level(), has, &requirement, self.expired)) {
            Ok(would_deny) => would_deny,
            Err(why) => return Err(Refused::of(caller.summary(), why).noting(|noted| *noted = evidence)),
        };
        let origin = self.page.origin.map(|o| o.as_str().to_owned());
        let session = self.page.session;
        let step_up_ends_at = match &caller {
            Caller::Verified(_, Some(step_up)) if requirement.level == Level::SteppedUp => {
                Some(step_up.at + requirement.max_age.as_secs_f64())
            }
            Caller::Verified(..) | Caller::Claimed(_) | Caller::Anonymous => None,
        };
        let upstream = tenant.policy.upstream(head.method, &head.path, head.upgrade);
        Ok(Admitted { tenant, origin, caller, session, step_up_ends_at, would_deny, upstream, evidence })
    }
}

/// Who a caller is whose proof does not count (`off`) or did not hold (`monitor`): somebody by their own word if exactly one
/// id is asserted, in the session or beside it.
fn unproven(session: Option<&Session>, shown: &Shown<'_>) -> Caller {
    let by_session = session.map(Session::grant).filter(|grant| grant.level == GrantLevel::Claimed).and_then(|grant| grant.sub.as_ref());
    match by_session {
        _ if shown.unread.is_some() => Caller::Anonymous,
        Some(id) if shown.ids.iter().all(|other| other == id) => Caller::Claimed(ClaimedId(id.clone())),
        Some(_) => Caller::Anonymous,
        None => shown.unproven(),
    }
}

/// What the decision table says in `enforce`, before route policy. `C` is a caller, or as much as is known of one.
pub(super) enum Judged<C = Caller> {
    Caller(C),
    /// Authentic but expired, and the tenant takes that for anonymous.
    Expired,
}

pub(super) fn judge(tenant: &Tenant, shown: &Shown<'_>, revocations: &Revocations, now: UnixTime) -> Result<Judged, Refused> {
    let Some(token) = &shown.token else { return Ok(judge_unproven(tenant, shown.unproven(), !shown.ids.is_empty())?) };
    let verified = verify(tenant, token, shown, revocations, now).map(|subject| Caller::Verified(subject, None));
    forgive(tenant, verified, |refused| refused.why.reason)
}

/// What an expired token is worth to the tenant.
pub(super) fn forgive<C, E>(tenant: &Tenant, verified: Result<C, E>, reason: impl FnOnce(&E) -> Reason) -> Result<Judged<C>, E> {
    match verified {
        Ok(caller) => Ok(Judged::Caller(caller)),
        Err(why) if tenant.on_expired == OnExpired::Anonymous && reason(&why) == Reason::TokenExpired => Ok(Judged::Expired),
        Err(why) => Err(why),
    }
}

/// A verdict as the mode takes it.
pub(super) struct Weighed<C, E> {
    pub(super) caller: C,
    /// In `monitor`: what was wrong.
    pub(super) would_deny: Option<E>,
    /// The token was good but for its expiry and the tenant goes on anonymously.
    pub(super) expired: bool,
}

/// Enforce stops where the verdict does; monitor goes on with what the caller is without proof.
pub(super) fn weigh<C, E>(mode: Mode, judged: Result<Judged<C>, E>, nobody: C, unproven: impl FnOnce() -> C) -> Result<Weighed<C, E>, E> {
    match judged {
        Ok(Judged::Caller(caller)) => Ok(Weighed { caller, would_deny: None, expired: false }),
        Ok(Judged::Expired) => Ok(Weighed { caller: nobody, would_deny: None, expired: true }),
        Err(why) if mode == Mode::Monitor => Ok(Weighed { caller: unproven(), would_deny: Some(why), expired: false }),
        Err(why) => Err(why),
    }
}

/// What a request without Origin must show, in every mode.
pub(super) fn allow_missing_origin(tenant: &Tenant, origin: Option<Origin<'_>>, level: Level) -> Result<(), Reason> {
    if origin.is_none() && tenant.missing_origin == MissingOrigin::Verified && level < Level::Verified {
        return Err(Reason::OriginMissing);
    }
    Ok(())
}

/// Route policy as the mode takes it, after what the mode found wrong `earlier`.
pub(super) fn under(mode: Mode, earlier: Option<Denied>, unmet: impl FnOnce() -> Option<Denied>) -> Result<Option<Denied>, Denied> {
    match mode {
        Mode::Off => Ok(earlier),
        Mode::Monitor => Ok(earlier.or_else(unmet)),
        Mode::Enforce => unmet().map_or(Ok(earlier), Err),
    }
}

/// Who a session says is talking, at its own level.
fn by_session(session: &Session, parent: Option<&Arc<IdentityKey>>) -> Result<Caller, Denied> {
    let grant = session.grant();
    match (grant.level, &grant.sub, parent) {
        (GrantLevel::Anonymous, _, _) => Ok(Caller::Anonymous),
        (GrantLevel::Claimed, Some(id), _) => Ok(Caller::Claimed(ClaimedId(id.clone()))),
        (GrantLevel::Verified, _, Some(parent)) => Ok(Caller::Verified(VerifiedSubject::of_session(session, Arc::clone(parent))?, None)),
        (GrantLevel::Claimed | GrantLevel::Verified, _, _) => Err(Reason::SessionInvalid.into()),
    }
}

/// A session re-enters the decision table at its own level: a claimed one is an id without a token.
fn judge_session(tenant: &Tenant, session: &Session, parent: Option<&Arc<IdentityKey>>, shown: &Shown<'_>) -> Result<Judged, Refused> {
    let caller = by_session(session, parent)?;
    if caller.subject().is_some_and(|subject| shown.ids.iter().any(|id| id != subject)) {
        return Err(Refused::of(caller.summary(), Reason::SubjectMismatch));
    }
    match caller {
        Caller::Anonymous => Ok(judge_unproven(tenant, shown.unproven(), !shown.ids.is_empty())?),
        claimed @ Caller::Claimed(_) => Ok(judge_unproven(tenant, claimed, true)?),
        verified @ Caller::Verified(..) => Ok(Judged::Caller(verified)),
    }
}

/// Nothing, or an id without a token.
pub(super) fn judge_unproven<C>(tenant: &Tenant, caller: C, has_id: bool) -> Result<Judged<C>, Denied> {
    if has_id && tenant.unsigned_id == UnsignedId::Deny {
        return Err(Denied::new(Reason::TokenMissing, "an id without a token"));
    }
    Ok(Judged::Caller(caller))
}

/// Form, signature, claims, revocation, consistency: in this order.
fn verify(tenant: &Tenant, token: &str, shown: &Shown<'_>, revocations: &Revocations, now: UnixTime) -> Result<VerifiedSubject, Refused> {
    let name = match Form::of(token)? {
        Form::Hmac => FormatName::Hmac,
        Form::KartaV2 => FormatName::KartaV2,
        Form::Jwt => FormatName::Jwt,
        Form::Session => return Err(Reason::SessionInvalid.into()),
    };
    if !tenant.keys.takes(name) {
        return Err(Denied::new(Reason::TokenFormatRefused, name.as_str()).into());
    }
    if name == FormatName::Hmac && shown.ids.len() > 1 {
        return Err(Denied::new(Reason::SubjectMismatch, "two differing ids beside an hmac token").into());
    }
    let format = FORMATS.iter().find(|f| f.name() == name).ok_or(Reason::GatewayInternal)?;
    let authentic = format.authenticate(token, shown.asserted(), &tenant.keys, now)?;
    let subject = tenant.claims.accept(authentic, now)?;
    if revocations.secret(subject.key().fingerprint) {
        return Err(Denied::new(Reason::TokenRevoked, "its secret").into());
    }
    if revocations.subject(&tenant.id, subject.subject(), subject.issued_at()) {
        return Err(Denied::new(Reason::TokenRevoked, "its subject").into());
    }
    if shown.ids.iter().any(|id| id != subject.subject()) {
        return Err(Refused::of(CallerSummary::verified(&subject), Reason::SubjectMismatch));
    }
    Ok(subject)
}

/// Raises a verified caller whose step-up is fresh and strong enough for this request.
fn step_up(caller: Caller, requirement: &Requirement<'_>, now: UnixTime) -> Caller {
    let Caller::Verified(subject, _) = caller else { return caller };
    let fresh = subject.stepped_up().filter(|s| is_enough(now.as_secs_f64() - s.at, s.aal.as_ref(), requirement)).cloned();
    Caller::Verified(subject, fresh)
}

/// Whether a step-up of this age, in seconds, is fresh and strong enough.
pub(super) fn is_enough(age: f64, aal: Option<&String>, requirement: &Requirement<'_>) -> bool {
    let strong = requirement.aal.is_empty() || aal.is_some_and(|aal| requirement.aal.contains(aal));
    strong && age <= requirement.max_age.as_secs_f64()
}

/// What a route asks and the caller has not. A missing token is named before a missing step-up.
pub(super) fn unmet(level: Level, has: impl Fn(&RequiredClaim) -> bool, requirement: &Requirement<'_>, expired: bool) -> Option<Denied> {
    let wants_user = requirement.level >= Level::Verified || !requirement.claims.is_empty();
    if wants_user && level < Level::Verified || level < requirement.level.min(Level::Verified) {
        let reason = if expired { Reason::TokenExpired } else { Reason::TokenMissing };
        return Some(Denied::new(reason, "the route or audience asks for a verified user"));
    }
    if level < requirement.level {
        let mut why = Denied::new(Reason::StepUpRequired, "no step-up that is fresh and strong enough for the route");
        why.step_up = Some(Box::new(requirement.demand()));
        return Some(why);
    }
    let lacking = requirement.claims.iter().find(|claim| !has(claim))?;
    Some(Denied::new(Reason::ClaimNotAllowed, format!("claim {}", lacking.name)))
}
