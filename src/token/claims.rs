//! What authentic claims must say before they name a subject. The only maker of [`VerifiedSubject`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::FormatName;
use super::keys::IdentityKey;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// All but the registered time and issuer ones.
    #[default]
    All,
    /// These only.
    Only(Vec<String>),
}

/// A JWT claim that shows a step-up, by the tenant's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUpClaim {
    /// `acr`, `amr`, `aal` or the tenant's own.
    pub claim: String,
    /// The values that count.
    pub values: Vec<String>,
    /// The claim that says when (OpenID Connect's `auth_time`).
    pub time_claim: String,
}

/// A tenant's claim rules (`product` 6).
#[derive(Clone, Debug)]
pub struct ClaimRules {
    /// Subject claims in order; a later one counts only where the earlier are absent, and must not differ.
    pub subject: Vec<String>,
    /// Whether a JWT must have `exp`.
    pub expiry_required: bool,
    /// `exp` may lie at most this far (plus leeway) ahead.
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
    format: FormatName,
    key: Arc<IdentityKey>,
    issued_at: Option<f64>,
    expires_at: Option<f64>,
    stepped_up: Option<SteppedUp>,
}

/// Largest JSON of forwarded claims, in bytes.
pub const MAX_CLAIMS_BYTES: usize = 4096;

impl ClaimRules {
    /// Judges authentic claims.
    ///
    /// # Errors
    /// A `token_*` or `subject_*` denial; `token_expired` only when nothing else is wrong.
    pub fn accept(&self, _authentic: AuthenticClaims, _now: UnixTime) -> Result<VerifiedSubject, Denied> {
        Err(Reason::GatewayInternal.into())
    }
}

impl VerifiedSubject {
    /// The subject, exactly as signed (integers as decimal).
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The signed claims that go upstream.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The format that proved it.
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
