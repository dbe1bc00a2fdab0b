//! Judges a request of the past by other rules, from what its audit record tells: `doorward check --against`. The verdict on
//! its credential is taken from the record, since no record holds a credential; origin, mode, audience and routes are judged
//! by the functions that judge live requests. What a record does not tell is [`Again::Unknown`], never guessed.

use std::cell::Cell;

use http::Method;

use super::authenticate::{Judged, Weighed, allow_missing_origin, forgive, is_enough, judge_unproven, under, unmet, weigh};
use super::evidence::{Proof, StepUpAge};
use super::identify::allow_page;
use crate::clock::UnixTime;
use crate::policy::{Level, Mode};
use crate::reason::{Denied, Reason, Stage};
use crate::request::origin::Origin;
use crate::request::path::Path;
use crate::secret::Fingerprint;
use crate::tenant::prints::Prints;
use crate::tenant::{MissingOrigin, Tenant, Tenants};
use crate::token::FormatName;

/// A request as its audit record tells it.
#[derive(Clone, Debug)]
pub struct Past {
    /// When it was over.
    pub at: UnixTime,
    /// The tenant, where it was known.
    pub tenant: Option<String>,
    /// Its mode then.
    pub mode: Option<Mode>,
    /// The page's origin.
    pub origin: Option<String>,
    /// The method.
    pub method: Method,
    /// The path as it was sent.
    pub path: String,
    /// Whether it was a WebSocket handshake.
    pub upgrade: bool,
    /// How it ended.
    pub ended: Ended,
    /// Names the embed key.
    pub embed_key: Option<Fingerprint>,
    /// What its credential was worth.
    pub proof: Option<Proof>,
    /// The key that verified it.
    pub key: Option<Fingerprint>,
    /// Its step-up.
    pub step_up: Option<StepUpAge>,
    /// What the route asked, in words.
    pub requires: Option<String>,
    /// By which rules credentials were read and judged.
    pub prints: Option<Prints>,
}

/// How a request ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Forwarded, whatever became of it then; with what enforce would have denied it for.
    Admitted(Option<Reason>),
    /// Denied.
    Denied(Reason),
    /// A preflight that was answered.
    Preflight,
    /// Answered by an endpoint of the gateway's own.
    Answered,
}

/// What other rules make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// They admit it; with what enforce would deny it for, where they do not enforce.
    Admitted(Option<Reason>),
    /// They deny it.
    Denied(Reason),
    /// The record does not tell enough; why.
    Unknown(&'static str),
}

const OWN: &str = "answered by the gateway itself: mints, its own endpoints, its script";
const LIMITS: &str = "stopped by a limit, which depends on what else was asked";
const LOAD: &str = "stopped by load, the clock, or a failure: no rule of a tenant";
const UNNAMED: &str = "no tenant: the record does not tell what was sent to name one";
const EARLIER: &str = "written by a version that recorded less";
const AT_ORIGIN: &str = "stopped at its origin: its credential was not looked at";
const UNLOOKED: &str = "mode off: tokens and bodies were not looked at";
const BODY: &str = "its body could not be read: nothing else was looked at";
const PATH: &str = "its path is none that is ever admitted";
const PLACES: &str = "where credentials, ids or names stand has changed";
const CLAIMS: &str = "the rules for claims or sessions have changed";
const KEYS: &str = "the keys have changed, and tokens are not recorded";
const ISSUER: &str = "an issuer's keys: what it publishes is not looked at";
const CLAIM: &str = "the route asks for a claim, and claims are not recorded";
const REVOKED: &str = "its session was revoked, and revocations are not looked at";

/// Judges by the rules of `tenants`, each under `mode` where one is given, else under its own. `sessions` is whether the
/// gateway's own endpoints are on. Limits, revocations and session keys are not looked at.
pub fn judge(past: &Past, tenants: &Tenants, sessions: bool, mode: Option<Mode>) -> Again {
    let judged = match past.tenant {
        None => Err(before_a_tenant(past, tenants)),
        Some(_) => by_tenant(past, tenants, sessions, mode),
    };
    judged.map_or_else(|stopped| stopped, Again::Admitted)
}

/// What stopped before a tenant was known: syntax is nobody's rule, preflights are everybody's.
fn before_a_tenant(past: &Past, tenants: &Tenants) -> Again {
    let origin = past.origin.as_deref().and_then(Origin::parse);
    match past.ended {
        Ended::Preflight | Ended::Denied(Reason::OriginNotAllowed) => match origin.filter(|origin| tenants.any_allows(*origin)) {
            Some(_) => Again::Admitted(None),
            None => Again::Denied(Reason::OriginNotAllowed),
        },
        Ended::Denied(Reason::ForwardAuthUnanswerable) => Again::Unknown(OWN),
        Ended::Denied(reason) => match reason.row().stage {
            Stage::Request => Again::Denied(reason),
            Stage::Origin if reason == Reason::OriginMalformed => Again::Denied(reason),
            Stage::Tenant | Stage::Session | Stage::Origin => Again::Unknown(UNNAMED),
            Stage::Body | Stage::Token | Stage::Subject | Stage::Policy => Again::Unknown(OWN),
            Stage::Gateway if matches!(reason, Reason::RateLimited | Reason::LimitReached) => Again::Unknown(LIMITS),
            Stage::Gateway | Stage::Upstream | Stage::Client => Again::Unknown(LOAD),
        },
        Ended::Answered | Ended::Admitted(_) => Again::Unknown(OWN),
    }
}

/// The order of checks of a live request. `Ok` has what enforce would deny it for.
fn by_tenant(past: &Past, tenants: &Tenants, sessions: bool, mode: Option<Mode>) -> Result<Option<Reason>, Again> {
    let unknown = |why| Err(Again::Unknown(why));
    let Ok(path) = Path::parse(&past.path) else { return unknown(PATH) };
    let endpoint = tenants.endpoint(&past.method, &path).filter(|_| sessions);
    let own = |tenant: &Tenant| endpoint.is_some_and(|endpoint| tenant.has_endpoint(endpoint, &path));
    if past.ended == Ended::Answered || past.tenant.as_ref().and_then(|id| tenants.by_id(id)).is_some_and(|tenant| own(tenant)) {
        return unknown(OWN);
    }
    if past.ended == Ended::Denied(Reason::SessionRevoked) {
        return unknown(REVOKED);
    }
    let (Some(key), Some(prints), Some(past_mode)) = (past.embed_key, past.prints, past.mode) else { return unknown(EARLIER) };
    let gone = if matches!(past.proof, Some(Proof::Session)) { Reason::SessionRevoked } else { Reason::EmbedKeyUnknown };
    let tenant = tenants.by_fingerprint(key).ok_or(Again::Denied(gone))?;
    let mode = mode.unwrap_or(tenant.mode);
    if let Ended::Denied(reason) = past.ended {
        match reason.row().stage {
            Stage::Gateway if matches!(reason, Reason::RateLimited | Reason::LimitReached) => return unknown(LIMITS),
            Stage::Gateway | Stage::Upstream | Stage::Client => return unknown(LOAD),
            Stage::Request | Stage::Tenant | Stage::Origin | Stage::Body | Stage::Token => {}
            Stage::Session | Stage::Subject | Stage::Policy => {}
        }
    }
    let origin = past.origin.as_deref().and_then(Origin::parse);
    allow_page(tenant, origin).map_err(Again::Denied)?;
    let rules = Changed::between(prints, tenants.prints_of(&tenant.id));
    if rules.places {
        return unknown(PLACES);
    }
    let Some(proof) = past.proof else { return Err(unproven(past, mode, &rules)) };
    let judged = match mode {
        Mode::Off => unlooked(past, proof, tenant, origin)?,
        Mode::Monitor | Mode::Enforce => proven(past, proof, tenant, &rules)?,
    };
    let weighed = weigh(mode, judged, Level::Anonymous, || Level::Anonymous).map_err(Again::Denied)?;
    let Weighed { caller: level, would_deny, expired } = weighed;
    allow_missing_origin(tenant, origin, level).map_err(Again::Denied)?;

    let requirement = tenant.policy.requirement(&past.method, &path, past.upgrade);
    let stepped_up = past.step_up.as_ref().is_some_and(|shown| is_enough(shown.seconds, shown.aal.as_ref(), &requirement));
    let level = if level == Level::Verified && stepped_up { Level::SteppedUp } else { level };
    let same = past_mode != Mode::Off && past.requires.as_deref() == Some(&*requirement.described());
    let lacked = matches!(past.ended, Ended::Denied(Reason::ClaimNotAllowed) | Ended::Admitted(Some(Reason::ClaimNotAllowed)));
    let guessed = Cell::new(false);
    let has = |_: &_| {
        guessed.set(!same);
        !lacked
    };
    let judged = under(mode, would_deny.map(Denied::from), || unmet(level, has, &requirement, expired));
    if guessed.get() {
        return unknown(CLAIM);
    }
    judged.map(|why| why.map(|why| why.reason)).map_err(|why| Again::Denied(why.reason))
}

/// Which rules differ from those of then.
struct Changed {
    places: bool,
    claims: bool,
    keys: bool,
}

impl Changed {
    fn between(then: Prints, now: Option<Prints>) -> Self {
        let differs = |same: fn(&Prints, &Prints) -> bool| !now.is_some_and(|now| same(&then, &now));
        Self {
            places: differs(|a, b| a.places == b.places),
            claims: differs(|a, b| a.claims == b.claims),
            keys: differs(|a, b| a.keys == b.keys),
        }
    }
}

/// Stopped before its credential was judged, by something that these rules have too; but for its origin, which they allow.
fn unproven(past: &Past, mode: Mode, rules: &Changed) -> Again {
    let Ended::Denied(reason) = past.ended else { return Again::Unknown(EARLIER) };
    match reason.row().stage {
        Stage::Session => Again::Denied(reason),
        Stage::Origin if reason == Reason::OriginChanged => Again::Denied(reason),
        Stage::Origin => Again::Unknown(AT_ORIGIN),
        // It may have come with a session, which is judged first.
        Stage::Request | Stage::Tenant | Stage::Body if rules.keys || rules.claims => Again::Unknown(KEYS),
        // What a body shows, alone or beside the head, is not looked at in `off`.
        Stage::Request | Stage::Tenant | Stage::Body if mode == Mode::Off => Again::Unknown(UNLOOKED),
        // Monitor would go on without the body, and what else was shown is not known.
        Stage::Body if mode == Mode::Monitor && reason != Reason::BodyTimeout => Again::Unknown(BODY),
        Stage::Request | Stage::Tenant | Stage::Body => Again::Denied(reason),
        Stage::Token | Stage::Subject | Stage::Policy | Stage::Gateway | Stage::Upstream | Stage::Client => Again::Unknown(LOAD),
    }
}

/// A verdict, and the level of the caller that it leaves.
type Verdict = Result<Judged<Level>, Reason>;

/// In `off`: no token counts, and sessions never follow the mode.
fn unlooked(past: &Past, proof: Proof, tenant: &Tenant, origin: Option<Origin<'_>>) -> Result<Verdict, Again> {
    let needs_proof = origin.is_none() && tenant.missing_origin == MissingOrigin::Verified;
    match proof {
        Proof::Session => session(past, tenant),
        Proof::Bad(reason) if reason.row().stage == Stage::Session => Err(Again::Denied(reason)),
        // Of a session it would stop here too.
        Proof::Bad(Reason::SubjectInvalid) => Err(Again::Unknown(UNLOOKED)),
        Proof::Unlooked | Proof::Bad(Reason::SubjectMismatch) if needs_proof => Err(Again::Unknown(UNLOOKED)),
        Proof::Id => Ok(Ok(Judged::Caller(Level::Claimed))),
        Proof::Nothing | Proof::Ids | Proof::Token(_) | Proof::Bad(_) | Proof::Unlooked => Ok(Ok(Judged::Caller(Level::Anonymous))),
    }
}

fn proven(past: &Past, proof: Proof, tenant: &Tenant, rules: &Changed) -> Result<Verdict, Again> {
    let by_word = |level, has_id| judge_unproven(tenant, level, has_id).map_err(|why| why.reason);
    match proof {
        Proof::Unlooked => Err(Again::Unknown(UNLOOKED)),
        Proof::Nothing => Ok(by_word(Level::Anonymous, false)),
        Proof::Id => Ok(by_word(Level::Claimed, true)),
        Proof::Ids => Ok(by_word(Level::Anonymous, true)),
        _ if rules.claims => Err(Again::Unknown(CLAIMS)),
        Proof::Session => session(past, tenant),
        Proof::Bad(Reason::KeysMissing) => Err(Again::Unknown(ISSUER)),
        Proof::Token(_) if !rules.keys => Ok(Ok(Judged::Caller(Level::Verified))),
        Proof::Token(format) => token(past, format, tenant),
        Proof::Bad(_) if rules.keys => Err(Again::Unknown(KEYS)),
        Proof::Bad(reason) => Ok(forgive(tenant, Err(reason), |reason| *reason)),
    }
}

/// A token that a key verified which may be gone. Key material never stands twice in a configuration, so no other key would
/// have verified it.
fn token(past: &Past, format: FormatName, tenant: &Tenant) -> Result<Verdict, Again> {
    if format == FormatName::Jwt && tenant.keys.goes_by_kid() {
        return Err(Again::Unknown(KEYS)); // they choose by a name that is not recorded
    }
    let verifies = |fingerprint| {
        tenant.keys.own().iter().any(|key| key.fingerprint == fingerprint && key.formats.contains(&format) && key.is_live(past.at))
    };
    if past.key.is_some_and(verifies) {
        return Ok(Ok(Judged::Caller(Level::Verified)));
    }
    Ok(Err(if tenant.keys.takes(format) { Reason::TokenSignatureInvalid } else { Reason::TokenFormatRefused }))
}

/// A session dies with the secret that it came from, in every mode.
fn session(past: &Past, tenant: &Tenant) -> Result<Verdict, Again> {
    if !tenant.keys.remotes().is_empty() {
        return Err(Again::Unknown(ISSUER));
    }
    let parent = |fingerprint| tenant.keys.own().iter().any(|key| key.fingerprint == fingerprint && key.is_live(past.at));
    if past.key.is_some_and(parent) { Ok(Ok(Judged::Caller(Level::Verified))) } else { Err(Again::Denied(Reason::SessionRevoked)) }
}
