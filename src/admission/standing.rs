//! Whether what a stream was admitted for still holds, long after its request was decided: the identity may end, and what it
//! came from may be revoked. Looked at once a second per stream, by the server.

use super::Admitted;
use crate::clock::UnixTime;
use crate::policy::Mode;
use crate::reason::Reason;
use crate::revocations::Revocations;
use crate::secret::Fingerprint;
use crate::tenant::Tenants;
use crate::token::session::Grant;

/// What a stream stands on.
#[derive(Clone, Debug)]
pub struct Standing {
    tenant: String,
    session: Option<Grant>,
    verified: Option<Verified>,
    /// When it ends by itself (Unix seconds), and how that is called.
    end: Option<(f64, Reason)>,
}

#[derive(Clone, Debug)]
struct Verified {
    subject: String,
    key: Fingerprint,
    issued_at: Option<f64>,
}

impl Standing {
    /// What this request's stream stands on. In `monitor` and `off` an identity token's expiry ends nothing, as it would
    /// deny nothing; sessions never follow the mode.
    pub fn of(admitted: &Admitted) -> Self {
        let session = admitted.session.as_ref().map(|session| session.grant().clone());
        let subject = admitted.caller.verified();
        let expiry = match (&session, subject) {
            (Some(grant), _) => Some((grant.exp as f64, Reason::SessionExpired)),
            (None, Some(subject)) if admitted.tenant.mode == Mode::Enforce => subject.expires_at().map(|exp| (exp, Reason::TokenExpired)),
            (None, _) => None,
        };
        let step_up = admitted.step_up_ends_at.map(|at| (at, Reason::StepUpRequired));
        let end = expiry.into_iter().chain(step_up).min_by(|a, b| a.0.total_cmp(&b.0));
        let verified = subject.map(|subject| Verified {
            subject: subject.subject().to_owned(),
            key: subject.key().fingerprint,
            issued_at: subject.issued_at(),
        });
        Self { tenant: admitted.tenant.id.clone(), session, verified, end }
    }

    /// When it ends by itself (Unix seconds).
    pub fn ends_at(&self) -> Option<f64> {
        self.end.map(|(at, _)| at)
    }

    /// Whether anything could end it: an anonymous caller without a session has nothing to lose.
    pub fn can_end(&self) -> bool {
        self.end.is_some() || self.session.is_some() || self.verified.is_some()
    }

    /// Why it does not hold any more, if it does not.
    pub fn ended(&self, tenants: &Tenants, revocations: &Revocations, now: UnixTime) -> Option<Reason> {
        if let Some((_, reason)) = self.end.filter(|(at, _)| now.as_secs_f64() >= *at) {
            return Some(reason);
        }
        let revoked = if self.session.is_some() { Reason::SessionRevoked } else { Reason::TokenRevoked };
        let Some(tenant) = tenants.by_id(&self.tenant) else { return Some(revoked) };
        let session_gone = self.session.as_ref().is_some_and(|grant| {
            revocations.session(&grant.jti)
                || tenant.sessions.not_before.is_some_and(|from| UnixTime::from_secs(grant.iat) < from)
                || !tenant.embed_keys.iter().any(|key| key.as_str() == grant.embed_key)
        });
        let identity_gone = self.verified.as_ref().is_some_and(|verified| {
            // A session's subject is revoked by when the session was minted.
            let issued_at = self.session.as_ref().map_or(verified.issued_at, |grant| Some(grant.iat as f64));
            revocations.secret(verified.key)
                || revocations.subject(&tenant.id, &verified.subject, issued_at)
                || !tenant.keys.all().iter().any(|key| key.fingerprint == verified.key && key.is_live(now))
        });
        (session_gone || identity_gone).then_some(revoked)
    }
}
