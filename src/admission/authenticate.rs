//! Who is talking, and is that enough here: the decision table, then route policy. Signatures and claims are judged in
//! [`crate::token`]; this puts their verdict, the ids beside it and the tenant's mode together.

use std::sync::Arc;

use super::identify::AllowedOrigin;
use super::shown::Shown;
use super::{Admitted, Caller, CallerSummary, ClaimedId, Refused};
use crate::clock::UnixTime;
use crate::policy::{Level, Mode, Requirement};
use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::credential::Form;
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
        let (caller, would_deny, expired) = match judged {
            Ok(Judged::Caller(caller)) => (caller, None, false),
            Ok(Judged::Expired) => (Caller::Anonymous, None, true),
            Err(refused) if tenant.mode == Mode::Monitor => (unproven(page.session.as_ref(), &shown), Some(refused.why), false),
            Err(refused) => return Err(refused),
        };
        if page.origin.is_none() && tenant.missing_origin == MissingOrigin::Verified && caller.level() < Level::Verified {
            return Err(Refused::of(caller.summary(), Reason::OriginMissing));
        }
        Ok(Self { page, caller, would_deny, expired })
    }

    /// Route policy, which follows the mode.
    pub(super) fn admit(self, head: &RequestHead<'_>, now: UnixTime) -> Result<Admitted, Refused> {
        let tenant = self.page.known.tenant;
        let requirement = tenant.policy.requirement(head.method, &head.path, head.upgrade);
        let caller = step_up(self.caller, &requirement, now);
        let refused = match tenant.mode {
            Mode::Off => None,
            Mode::Monitor | Mode::Enforce => unmet(&caller, &requirement, self.expired),
        };
        let would_deny = match (refused, tenant.mode) {
            (Some(why), Mode::Enforce) => return Err(Refused::of(caller.summary(), why)),
            (refused, _) => self.would_deny.or(refused),
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
        Ok(Admitted { tenant, origin, caller, session, step_up_ends_at, would_deny, upstream })
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

/// What the decision table says in `enforce`, before route policy.
pub(super) enum Judged {
    Caller(Caller),
    /// Authentic but expired, and the tenant takes that for anonymous.
    Expired,
}

pub(super) fn judge(tenant: &Tenant, shown: &Shown<'_>, revocations: &Revocations, now: UnixTime) -> Result<Judged, Refused> {
    let Some(token) = &shown.token else { return Ok(judge_unproven(tenant, shown.unproven(), !shown.ids.is_empty())?) };
    match verify(tenant, token, shown, revocations, now) {
        Ok(subject) => Ok(Judged::Caller(Caller::Verified(subject, None))),
        Err(refused) if refused.why.reason == Reason::TokenExpired && tenant.on_expired == OnExpired::Anonymous => Ok(Judged::Expired),
        Err(refused) => Err(refused),
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
fn judge_unproven(tenant: &Tenant, caller: Caller, has_id: bool) -> Result<Judged, Denied> {
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
    let fresh = subject.stepped_up().filter(|s| {
        let strong = requirement.aal.is_empty() || s.aal.as_ref().is_some_and(|aal| requirement.aal.contains(aal));
        strong && now.as_secs_f64() - s.at <= requirement.max_age.as_secs_f64()
    });
    let fresh = fresh.cloned();
    Caller::Verified(subject, fresh)
}

/// What a route asks and the caller has not. A missing token is named before a missing step-up.
fn unmet(caller: &Caller, requirement: &Requirement<'_>, expired: bool) -> Option<Denied> {
    let verified = caller.verified();
    let wants_user = requirement.level >= Level::Verified || !requirement.claims.is_empty();
    if wants_user && verified.is_none() || caller.level() < requirement.level.min(Level::Verified) {
        let reason = if expired { Reason::TokenExpired } else { Reason::TokenMissing };
        return Some(Denied::new(reason, "the route or audience asks for a verified user"));
    }
    if caller.level() < requirement.level {
        let mut why = Denied::new(Reason::StepUpRequired, "no step-up that is fresh and strong enough for the route");
        why.step_up = Some(Box::new(requirement.demand()));
        return Some(why);
    }
    let claims = verified.map(VerifiedSubject::claims);
    let lacking = requirement.claims.iter().find(|c| !c.met_by(claims.and_then(|all| all.get(&c.name))))?;
    Some(Denied::new(Reason::ClaimNotAllowed, format!("claim {}", lacking.name)))
}
