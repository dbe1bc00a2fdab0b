//! The identity header fields: which exist at which level, and how any subject becomes a safe header value. Never signs
//! and never decides a level: it writes down what an [`Admitted`] says. Called by [`super::Signer`].

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value};

use super::Mapped;
use crate::admission::{Admitted, Caller};
use crate::policy::Level;
use crate::reason::{Denied, Reason};
use crate::token::claims::SteppedUp;

/// `%` and every byte outside 0x21–0x7E; non-ASCII bytes are always encoded.
const INVISIBLE: AsciiSet = CONTROLS.add(b' ').add(b'%');
/// Longest encoded subject or claimed id. Ids in bodies are bounded by `body_hold` only, and backends by their header limits.
const MAX_ID_BYTES: usize = 2048;
/// Most bytes of names and values that an assertion may add (`threats` 4): half of what common backends take in all.
const MAX_BYTES: usize = 16 * 1024;

pub(super) const LEVEL: HeaderName = HeaderName::from_static("x-identity-level");
pub(super) const TENANT: HeaderName = HeaderName::from_static("x-identity-tenant");
pub(super) const AUDIENCE: HeaderName = HeaderName::from_static("x-identity-audience");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-identity-request-id");
pub(super) const ORIGIN: HeaderName = HeaderName::from_static("x-identity-origin");
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("x-identity-session-id");
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("x-identity-subject");
pub(super) const CLAIMS: HeaderName = HeaderName::from_static("x-identity-claims");
pub(super) const METHOD: HeaderName = HeaderName::from_static("x-identity-method");
pub(super) const STEPPED_UP_AT: HeaderName = HeaderName::from_static("x-identity-stepped-up-at");
pub(super) const AAL: HeaderName = HeaderName::from_static("x-identity-aal");
pub(super) const CLAIMED_SUBJECT: HeaderName = HeaderName::from_static("x-identity-claimed-subject");

/// Every reserved name that has a meaning, those of the signature aside: here, or to whoever verifies one.
pub(super) static KNOWN: [HeaderName; 14] = [
    LEVEL,
    TENANT,
    AUDIENCE,
    REQUEST_ID,
    ORIGIN,
    SESSION_ID,
    SUBJECT,
    CLAIMS,
    METHOD,
    STEPPED_UP_AT,
    AAL,
    CLAIMED_SUBJECT,
    super::jwt::ASSERTION,
    HeaderName::from_static("accept-signature"),
];

/// What an [`Admitted`] says, as plain data: schemes write it down without knowing how it was decided. Built from an
/// [`Admitted`] only; tests build it by hand.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) origin: Option<&'a str>,
    pub(crate) session: Option<&'a str>,
    pub(crate) who: Who<'a>,
}

/// Who is talking. The level is derived from it, so the two cannot differ.
#[derive(Debug)]
pub(crate) enum Who<'a> {
    Anonymous,
    Claimed(&'a str),
    Verified(Verified<'a>),
}

/// A subject that the host vouches for.
#[derive(Debug)]
pub(crate) struct Verified<'a> {
    pub(crate) subject: &'a str,
    pub(crate) claims: &'a Map<String, Value>,
    /// The same as compact JSON, which was made once already to judge its size.
    pub(crate) claims_json: Cow<'a, str>,
    pub(crate) method: &'static str,
    pub(crate) stepped_up: Option<&'a SteppedUp>,
}

impl<'a> From<&'a Admitted> for Identity<'a> {
    fn from(admitted: &'a Admitted) -> Self {
        let who = match admitted.caller() {
            Caller::Anonymous => Who::Anonymous,
            Caller::Claimed(id) => Who::Claimed(id.as_str()),
            Caller::Verified(subject, stepped_up) => Who::Verified(Verified {
                subject: subject.subject(),
                claims: subject.claims(),
                claims_json: Cow::Borrowed(subject.claims_json()),
                method: subject.method(),
                stepped_up: stepped_up.as_ref(),
            }),
        };
        Self { tenant: &admitted.tenant().id, origin: admitted.origin(), session: admitted.session(), who }
    }
}

impl<'a> Identity<'a> {
    pub(crate) fn level(&self) -> Level {
        match &self.who {
            Who::Anonymous => Level::Anonymous,
            Who::Claimed(_) => Level::Claimed,
            Who::Verified(verified) if verified.stepped_up.is_none() => Level::Verified,
            Who::Verified(_) => Level::SteppedUp,
        }
    }

    pub(crate) fn verified(&self) -> Option<&Verified<'a>> {
        if let Who::Verified(verified) = &self.who { Some(verified) } else { None }
    }
}

/// Header fields that are being collected. Not applicable is absent, but where [`Collected::complete`] is asked for.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    bytes: usize,
}

impl Collected {
    /// Room for every field of a stepped-up caller under both schemes.
    pub(super) fn new() -> Self {
        Self { fields: Vec::with_capacity(16), bytes: 0 }
    }

    /// Adds a value that is known to be visible ASCII, unless it is empty.
    pub(super) fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Denied> {
        self.bytes += name.as_str().len() + value.len();
        if self.bytes > MAX_BYTES {
            return Err(Denied::new(Reason::HeaderFieldsTooLarge, "the assertion would exceed 16 KiB"));
        }
        if !value.is_empty() {
            self.fields.push((name, value));
        }
        Ok(())
    }

    /// Adds those of `names` that are not there yet, empty.
    pub(super) fn complete<'n>(&mut self, names: impl IntoIterator<Item = &'n HeaderName>) {
        for name in names {
            if !self.fields.iter().any(|(there, _)| there == name) {
                self.fields.push((name.clone(), HeaderValue::from_static("")));
            }
        }
    }

    /// Adds any text, percent-encoded.
    pub(super) fn add_encoded(&mut self, name: HeaderName, text: &str) -> Result<(), Denied> {
        let encoded: Cow<'_, str> = utf8_percent_encode(text, &INVISIBLE).into();
        let value = match encoded {
            Cow::Borrowed(text) => HeaderValue::from_str(text),
            Cow::Owned(text) => HeaderValue::try_from(text),
        };
        self.add(name, value.map_err(|_| unsignable("an encoded value"))?)
    }

    /// The fields that say who is talking.
    pub(super) fn add_identity(&mut self, identity: &Identity<'_>, audience: &HeaderValue) -> Result<(), Denied> {
        self.add(LEVEL, HeaderValue::from_static(identity.level().as_str()))?;
        self.add_encoded(TENANT, identity.tenant)?;
        self.add(AUDIENCE, audience.clone())?;
        if let Some(origin) = identity.origin {
            self.add_encoded(ORIGIN, origin)?;
        }
        if let Some(session) = identity.session {
            self.add_encoded(SESSION_ID, session)?;
        }
        match &identity.who {
            Who::Anonymous => Ok(()),
            Who::Claimed(id) => self.add_encoded(CLAIMED_SUBJECT, id),
            Who::Verified(verified) => self.add_verified(verified),
        }
    }

    fn add_verified(&mut self, verified: &Verified<'_>) -> Result<(), Denied> {
        self.add_encoded(SUBJECT, verified.subject)?;
        self.add(METHOD, HeaderValue::from_static(verified.method))?;
        if !verified.claims.is_empty() {
            let encoded = URL_SAFE_NO_PAD.encode(verified.claims_json.as_bytes());
            self.add(CLAIMS, HeaderValue::try_from(encoded).map_err(|_| unsignable("claims"))?)?;
        }
        if let Some(stepped_up) = verified.stepped_up {
            self.add(STEPPED_UP_AT, HeaderValue::from(whole_seconds(stepped_up)))?;
            self.add_encoded(AAL, stepped_up.aal.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    /// The names that a backend reads itself, at `verified` and above only: such a backend never looks at a level
    /// (`threats` 5).
    pub(super) fn add_mapped(&mut self, identity: &Identity<'_>, mapped: &[(HeaderName, Mapped)]) -> Result<(), Denied> {
        let Some(verified) = identity.verified() else { return Ok(()) };
        for (name, from) in mapped {
            let text = match from {
                Mapped::Subject => Some(Cow::Borrowed(verified.subject)),
                Mapped::Claim(claim) => verified.claims.get(claim).and_then(scalar),
            };
            if let Some(text) = text {
                self.add_encoded(name.clone(), &text)?;
            }
        }
        Ok(())
    }
}

/// Refuses an id that no backend would take in a header.
///
/// # Errors
/// `token_claims_too_large` for a verified subject, `request_header_too_large` for a claimed one.
pub(super) fn refuse_long_ids(identity: &Identity<'_>) -> Result<(), Denied> {
    match &identity.who {
        Who::Verified(verified) if encoded_len(verified.subject) > MAX_ID_BYTES => {
            Err(Denied::new(Reason::TokenClaimsTooLarge, "the subject exceeds 2 KiB"))
        }
        Who::Claimed(id) if encoded_len(id) > MAX_ID_BYTES => {
            Err(Denied::new(Reason::HeaderFieldsTooLarge, "the claimed id exceeds 2 KiB"))
        }
        _ => Ok(()),
    }
}

fn encoded_len(text: &str) -> usize {
    utf8_percent_encode(text, &INVISIBLE).map(str::len).sum()
}

/// Rounded down, never to a later time than the step-up's.
pub(super) fn whole_seconds(stepped_up: &SteppedUp) -> u64 {
    stepped_up.at.floor() as u64 // `as` saturates, and NaN is 0
}

/// An error that no caller can cause: nothing unsigned is ever sent.
pub(super) fn unsignable(what: &'static str) -> Denied {
    Denied::new(Reason::GatewayInternal, what)
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
