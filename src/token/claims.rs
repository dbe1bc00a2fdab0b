//! What authentic claims must say before they name a subject. The only maker of [`VerifiedSubject`]; formats only prove
//! signatures. Called by [`crate::admission`] and `token explain`.
//!
//! Expired from `exp + leeway` on; not yet valid while `now + leeway` lies before `nbf`, `iat` or a step-up.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::FormatName;
use super::claim_values::{Clock, id_text, malformed, time, usable_subject};
use super::keys::IdentityKey;
use super::session::{GrantLevel, Session};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};

/// Claims whose signature holds. Made by the formats only; says nothing until [`ClaimRules::accept`] took it.
#[derive(Debug)]
pub struct AuthenticClaims {
    pub(in crate::token) body: AuthenticBody,
    pub(in crate::token) key: Arc<IdentityKey>,
}

/// What was signed.
#[derive(Debug)]
pub(in crate::token) enum AuthenticBody {
    /// A bare user id.
    Id(String),
    /// Karta's structured payload.
    KartaV2(Map<String, Value>),
    /// A JWT claims set.
    Jwt(Map<String, Value>),
}

/// Which claims go upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forward {
    /// All but the registered time and issuer ones.
    #[default]
    All,
    /// These only.
    Only(Vec<String>),
}

impl Forward {
    /// Whether a claim of this name goes upstream, and so can be asked for by a route.
    pub fn passes(&self, name: &str) -> bool {
        match self {
            Self::All => !ABOUT_THE_TOKEN.contains(&name),
            Self::Only(names) => names.iter().any(|listed| listed == name),
        }
    }
}

/// A JWT claim that shows a step-up, by the tenant's word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepUpClaim {
    /// `acr`, `amr`, `aal` or the tenant's own.
    pub claim: String,
    /// The values that count.
    pub values: Vec<String>,
    /// The claim that says when (OpenID Connect's `auth_time`).
    pub time_claim: String,
}

/// A tenant's claim rules (`product` 6).
#[derive(Clone, Debug, Hash)]
pub struct ClaimRules {
    /// Subject claims in order; a later one counts only where the earlier are absent, and must not differ.
    pub subject: Vec<String>,
    /// Whether a JWT must have `exp`.
    pub expiry_required: bool,
    /// `exp` may lie at most this far (plus leeway) ahead. Where this is set, a JWT without `exp` is refused even if
    /// `expiry_required` is not: it would outlive any limit.
    pub max_lifetime: Option<Duration>,
    /// Clock difference that is forgiven.
    pub leeway: Duration,
    /// Accepted `iss`; empty accepts any.
    pub issuers: Vec<String>,
    /// Accepted `aud`; empty accepts tokens without `aud` only.
    pub audiences: Vec<String>,
    /// Which claims go upstream.
    pub forward: Forward,
    /// What counts as step-up in a JWT; empty: nothing does.
    pub step_up: Vec<StepUpClaim>,
}

impl Default for ClaimRules {
    fn default() -> Self {
        Self {
            subject: vec!["sub".to_owned()],
            expiry_required: true,
            max_lifetime: None,
            leeway: Duration::from_secs(60),
            issuers: Vec::new(),
            audiences: Vec::new(),
            forward: Forward::All,
            step_up: Vec::new(),
        }
    }
}

/// When and how a subject was authenticated anew.
#[derive(Clone, Debug, PartialEq)]
pub struct SteppedUp {
    /// Unix seconds.
    pub at: f64,
    /// The authentication level that was reached.
    pub aal: Option<String>,
}

/// A subject that the host's backend vouches for now.
#[derive(Debug)]
pub struct VerifiedSubject {
    subject: String,
    claims: Map<String, Value>,
    claims_json: String,
    format: FormatName,
    key: Arc<IdentityKey>,
    issued_at: Option<f64>,
    expires_at: Option<f64>,
    stepped_up: Option<SteppedUp>,
    by_session: bool,
}

/// Largest JSON of forwarded claims, in bytes.
pub const MAX_CLAIMS_BYTES: usize = 4096;

/// Time and issuer claims that end here: they speak about the token, not about the user (RFC 7519 §4.1).
const ABOUT_THE_TOKEN: [&str; 6] = ["exp", "nbf", "iat", "iss", "aud", "jti"];

impl ClaimRules {
    /// Judges authentic claims.
    ///
    /// # Errors
    /// A `token_*` or `subject_*` denial; `token_expired` only when nothing else is wrong.
    pub fn accept(&self, authentic: AuthenticClaims, now: UnixTime) -> Result<VerifiedSubject, Denied> {
        let AuthenticClaims { body, key } = authentic;
        let clock = Clock { now, leeway: self.leeway };
        let (format, accepted) = match body {
            AuthenticBody::Id(id) => (FormatName::Hmac, self.accept_id(id)),
            AuthenticBody::KartaV2(members) => (FormatName::KartaV2, self.accept_karta(members, clock)),
            AuthenticBody::Jwt(claims) => (FormatName::Jwt, self.accept_jwt(claims, clock)),
        };
        let Accepted { subject, claims, times, stepped_up } = accepted?;
        usable_subject(&subject)?;
        let claims_json =
            if claims.is_empty() { "{}".to_owned() } else { serde_json::to_string(&claims).map_err(|_| Reason::GatewayInternal)? };
        if claims_json.len() > MAX_CLAIMS_BYTES {
            return Err(Denied::new(Reason::TokenClaimsTooLarge, format!("{} bytes of JSON", claims_json.len())));
        }
        if times.expires_at.is_some_and(|exp| clock.is_past(exp)) {
            return Err(Reason::TokenExpired.into()); // last: only a token with nothing else wrong is merely expired
        }
        let (issued_at, expires_at) = (times.issued_at, times.expires_at);
        Ok(VerifiedSubject { subject, claims, claims_json, format, key, issued_at, expires_at, stepped_up, by_session: false })
    }

    /// A bare id says nothing but itself.
    fn accept_id(&self, id: String) -> Result<Accepted, Denied> {
        Ok(Accepted { subject: id, claims: Map::new(), times: Times::default(), stepped_up: None })
    }

    /// Karta's payload is itself the step-up. It has no times by convention; a host that adds some means them.
    fn accept_karta(&self, mut members: Map<String, Value>, clock: Clock) -> Result<Accepted, Denied> {
        let mut times = Times::read(&members, clock)?;
        let at = time(&members, "stepped_up_at")?.ok_or_else(|| malformed("stepped_up_at", "is missing"))?;
        clock.refuse_future(at, "stepped_up_at")?;
        times.issued_at = times.issued_at.or(Some(at));
        let aal = match members.remove("aal") {
            None => None,
            Some(Value::String(aal)) => Some(aal).filter(|aal| !aal.is_empty()),
            Some(_) => return Err(malformed("aal", "is not a string")),
        };
        let subject = id_text(members.get("user_id").ok_or(Reason::SubjectMissing)?, "user_id")?.into_owned();
        members.remove("stepped_up_at");
        let stepped_up = Some(SteppedUp { at: clock.not_after_now(at), aal });
        Ok(Accepted { subject, claims: self.forwarded(members), times, stepped_up })
    }

    fn accept_jwt(&self, claims: Map<String, Value>, clock: Clock) -> Result<Accepted, Denied> {
        let times = Times::read(&claims, clock)?;
        let auth_time = time(&claims, "auth_time")?;
        if let Some(at) = auth_time {
            clock.refuse_future(at, "auth_time")?;
        }
        self.allowed_lifetime(times.expires_at, clock)?;
        self.expected_issuer(&claims)?;
        self.expected_audience(&claims)?;
        let subject = self.subject_of(&claims)?.into_owned();
        let stepped_up = self.step_up_of(&claims, clock)?;
        let times = Times { issued_at: times.issued_at.or(auth_time), ..times };
        Ok(Accepted { subject, claims: self.forwarded(claims), times, stepped_up })
    }

    fn allowed_lifetime(&self, expires_at: Option<f64>, clock: Clock) -> Result<(), Denied> {
        match (expires_at, self.max_lifetime) {
            (None, None) if !self.expiry_required => Ok(()),
            (None, None) => Err(Denied::new(Reason::TokenExpiryMissing, "exp is required")),
            (None, Some(_)) => Err(Denied::new(Reason::TokenExpiryMissing, "exp is required, because max_lifetime is set")),
            (Some(exp), Some(max)) if clock.lies_beyond(exp, max) => {
                Err(Denied::new(Reason::TokenLifetimeTooLong, format!("exp lies more than {} s ahead", max.as_secs())))
            }
            (Some(_), _) => Ok(()),
        }
    }

    fn expected_issuer(&self, claims: &Map<String, Value>) -> Result<(), Denied> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer),
            Some(_) => return Err(malformed("iss", "is not a string")),
        };
        match issuer {
            _ if self.issuers.is_empty() => Ok(()),
            Some(issuer) if self.issuers.contains(issuer) => Ok(()),
            Some(_) => Err(Denied::new(Reason::TokenIssuerUnexpected, "iss is not one that the tenant lists")),
            None => Err(Denied::new(Reason::TokenIssuerUnexpected, "the tenant lists issuers and the token has no iss")),
        }
    }

    /// A token made for somebody is only good there (RFC 7519 §4.1.3), so an `aud` that nobody expects is refused too.
    fn expected_audience(&self, claims: &Map<String, Value>) -> Result<(), Denied> {
        let refused = |detail: &'static str| Err(Denied::new(Reason::TokenAudienceUnexpected, detail));
        let is_listed = |audience: &str| self.audiences.iter().any(|listed| listed == audience);
        let listed = match claims.get("aud") {
            None if self.audiences.is_empty() => return Ok(()),
            None => return refused("the tenant lists audiences and the token has no aud"),
            Some(Value::String(audience)) => is_listed(audience),
            Some(Value::Array(audiences)) => {
                let mut any = false;
                for audience in audiences {
                    any |= is_listed(audience.as_str().ok_or_else(|| malformed("aud", "has a member that is not a string"))?);
                }
                any
            }
            Some(_) => return Err(malformed("aud", "is neither a string nor a list of strings")),
        };
        match listed {
            true => Ok(()),
            false if self.audiences.is_empty() => refused("the token has an aud and the tenant lists none: set claims.audience to it"),
            false => refused("aud names none of the audiences that the tenant lists"),
        }
    }

    /// The first subject claim that is there. Another one that differs would be another user to another reader.
    fn subject_of<'c>(&self, claims: &'c Map<String, Value>) -> Result<Cow<'c, str>, Denied> {
        let mut found: Option<Cow<'c, str>> = None;
        for name in &self.subject {
            let Some(value) = claims.get(name) else { continue };
            let id = id_text(value, name)?;
            match &found {
                None => found = Some(id),
                Some(first) if *first == id => {}
                Some(_) => return Err(Denied::new(Reason::SubjectInvalid, format!("{name} differs from an earlier subject claim"))),
            }
        }
        found.ok_or_else(|| Denied::new(Reason::SubjectMissing, format!("the token has no {}", self.subject.join(" or "))))
    }

    /// The step-up that a JWT shows by the tenant's rules: an accepted value and the time that goes with it.
    fn step_up_of(&self, claims: &Map<String, Value>, clock: Clock) -> Result<Option<SteppedUp>, Denied> {
        for rule in &self.step_up {
            let Some(value) = claims.get(&rule.claim).and_then(|shown| rule.accepted(shown)) else { continue };
            let Some(at) = time(claims, &rule.time_claim)? else { continue };
            clock.refuse_future(at, &rule.time_claim)?;
            return Ok(Some(SteppedUp { at: clock.not_after_now(at), aal: Some(value.clone()) }));
        }
        Ok(None)
    }

    fn forwarded(&self, mut claims: Map<String, Value>) -> Map<String, Value> {
        claims.retain(|name, _| self.forward.passes(name));
        claims
    }
}

impl StepUpClaim {
    /// The listed value that a claim shows, alone or among others (`amr` is a list).
    fn accepted(&self, shown: &Value) -> Option<&String> {
        match shown {
            Value::String(shown) => self.values.iter().find(|value| *value == shown),
            Value::Array(all) => self.values.iter().find(|value| all.iter().any(|shown| shown.as_str() == Some(value))),
            _ => None,
        }
    }
}

impl VerifiedSubject {
    /// The subject of a verified session. `key` is the session's parent, which the caller found among the tenant's live keys.
    ///
    /// # Errors
    /// `session_invalid` when the session is not a verified one.
    pub fn of_session(session: &Session, key: Arc<IdentityKey>) -> Result<Self, Denied> {
        let grant = session.grant();
        let (Some(subject), Some(proof), GrantLevel::Verified) = (&grant.sub, &grant.proof, grant.level) else {
            return Err(Denied::new(Reason::SessionInvalid, "a verified session without subject or proof"));
        };
        usable_subject(subject)?;
        Ok(Self {
            subject: subject.clone(),
            claims_json: serde_json::to_string(&grant.claims).map_err(|_| Reason::GatewayInternal)?,
            claims: grant.claims.clone(),
            format: proof.format().ok_or(Denied::new(Reason::SessionInvalid, "proof of an unknown format"))?,
            key,
            issued_at: proof.issued_at,
            expires_at: Some(grant.exp as f64),
            stepped_up: proof.stepped_up(),
            by_session: true,
        })
    }

    /// What proved it to this request: a format's name, or `session` (`X-Identity-Method`).
    pub fn method(&self) -> &'static str {
        if self.by_session { "session" } else { self.format.as_str() }
    }

    /// The subject, exactly as signed (integers as decimal).
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The signed claims that go upstream.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The same as compact JSON, at most [`MAX_CLAIMS_BYTES`]; `{}` where there are none.
    pub fn claims_json(&self) -> &str {
        &self.claims_json
    }

    /// The format that proved it, to this request or to the mint.
    pub fn format(&self) -> FormatName {
        self.format
    }

    /// The key that proved it.
    pub fn key(&self) -> &Arc<IdentityKey> {
        &self.key
    }

    /// When the token says it was issued (Unix seconds).
    pub fn issued_at(&self) -> Option<f64> {
        self.issued_at
    }

    /// When the token expires (Unix seconds).
    pub fn expires_at(&self) -> Option<f64> {
        self.expires_at
    }

    /// The step-up that the token shows, however old. Never in the future.
    pub fn stepped_up(&self) -> Option<&SteppedUp> {
        self.stepped_up.as_ref()
    }
}

/// What a body says, but for its expiry.
struct Accepted {
    subject: String,
    claims: Map<String, Value>,
    times: Times,
    stepped_up: Option<SteppedUp>,
}

/// The registered times, well-formed and not in the future where they must not be.
#[derive(Default)]
struct Times {
    issued_at: Option<f64>,
    expires_at: Option<f64>,
}

impl Times {
    fn read(claims: &Map<String, Value>, clock: Clock) -> Result<Self, Denied> {
        let (exp, nbf, iat) = (time(claims, "exp")?, time(claims, "nbf")?, time(claims, "iat")?);
        for (at, name) in [(nbf, "nbf"), (iat, "iat")] {
            if let Some(at) = at {
                clock.refuse_future(at, name)?;
            }
        }
        Ok(Self { issued_at: iat, expires_at: exp })
    }
}
