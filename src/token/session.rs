//! Doorward's own session tokens: short-lived JWTs with a `typ` of their own, bound to a tenant, an embed key, an origin and
//! a level. Decides whether a token is ours and still lasts; whether what it came from is still good is judged by
//! [`crate::admission`], on every call. A session is never an identity token and the reverse (`threats` 13).

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::FormatName;
use super::claims::SteppedUp;
use super::segment::{MAX_TOKEN_BYTES, base64url, json_object};
use crate::clock::UnixTime;
use crate::json;
use crate::reason::{Denied, Reason};
use crate::request::credential::SESSION_TYP;
use crate::secret::{Fingerprint, KeyBytes};

/// One of `[session] keys`.
pub struct SessionKey {
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl SessionKey {
    /// Prepares a key.
    pub fn new(id: String, material: &KeyBytes) -> Self {
        let bytes = material.expose();
        Self { id, encoding: EncodingKey::from_secret(bytes), decoding: DecodingKey::from_secret(bytes) }
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionKey({})", self.id)
    }
}

/// `[session]`: without keys, sessions are off.
#[derive(Debug, Default)]
pub struct Sessions {
    keys: Vec<SessionKey>,
    lifetime: Duration,
}

/// What a session was granted for. Serialised as the token's claims.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Session id: the id of the request that minted it.
    pub jti: String,
    /// Tenant.
    pub tenant: String,
    /// The embed key it was minted with; a removed one revokes its sessions.
    pub embed_key: String,
    /// The page's origin; absent where it was minted without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// `anonymous`, `claimed` or `verified`.
    pub level: GrantLevel,
    /// The subject: claimed or verified, by the level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// What proved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Signed claims of the identity token, as they go upstream.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds.
    pub exp: u64,
}

/// A session's own level; step-up is in its [`Proof`] and ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantLevel {
    /// Nobody in particular.
    Anonymous,
    /// An id that nobody signed.
    Claimed,
    /// A subject that the host's backend signed.
    Verified,
}

/// The identity token that a verified session came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Its format.
    pub format: String,
    /// Fingerprint of the secret that signed it: the session dies with it.
    pub key: String,
    /// When it was issued, where it says so (Unix seconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<f64>,
    /// When the user was stepped up, where the token shows it (Unix seconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stepped_up_at: Option<f64>,
    /// The authentication level of that step-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aal: Option<String>,
}

impl Proof {
    /// The parent secret.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.key.parse().ok()
    }

    /// The parent's format.
    pub fn format(&self) -> Option<FormatName> {
        FormatName::ALL.into_iter().find(|f| f.as_str() == self.format)
    }

    /// The step-up that the parent showed.
    pub fn stepped_up(&self) -> Option<SteppedUp> {
        self.stepped_up_at.map(|at| SteppedUp { at, aal: self.aal.clone() })
    }
}

/// A session that we signed: it names its tenant, and nobody yet. Made by [`Sessions::authenticate`] only.
#[derive(Debug)]
pub struct SignedSession {
    grant: Grant,
}

impl SignedSession {
    /// What it was granted for.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Judges whether it still lasts.
    ///
    /// # Errors
    /// `session_expired`.
    pub fn accept(self, now: UnixTime) -> Result<Session, Denied> {
        if now >= UnixTime::from_secs(self.grant.exp) {
            return Err(Reason::SessionExpired.into());
        }
        Ok(Session { grant: self.grant })
    }
}

/// A session whose signature and expiry hold. Made by [`SignedSession::accept`] only.
#[derive(Debug)]
pub struct Session {
    grant: Grant,
}

impl Session {
    /// What it was granted for.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// A freshly minted session token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// How long it lasts, in seconds.
    pub expires_in: u64,
}

impl Sessions {
    /// Prepares `[session]`. The first key signs; all verify.
    pub fn new(keys: Vec<SessionKey>, lifetime: Duration) -> Self {
        Self { keys, lifetime }
    }

    /// Whether sessions are on.
    pub fn are_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// When a session that starts now ends (Unix seconds): after its lifetime, and never after what it came from.
    pub fn end(&self, now: UnixTime, parent_expires_at: Option<f64>) -> u64 {
        let own = now.secs().saturating_add(self.lifetime.as_secs());
        parent_expires_at.map_or(own, |parent| own.min(parent.max(0.0).floor() as u64))
    }

    /// Signs a grant.
    ///
    /// # Errors
    /// `token_expired` when it would end at once, `gateway_internal` when no key can sign.
    pub fn mint(&self, grant: &Grant) -> Result<Minted, Denied> {
        let expires_in = grant.exp.saturating_sub(grant.iat);
        if expires_in == 0 {
            return Err(Denied::new(Reason::TokenExpired, "a session from this token would end at once"));
        }
        let key = self.keys.first().ok_or(Reason::GatewayInternal)?;
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(SESSION_TYP.to_owned());
        header.kid = Some(key.id.clone());
        let token = jsonwebtoken::encode(&header, grant, &key.encoding).map_err(|_| Reason::GatewayInternal)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TokenClaimsTooLarge.into());
        }
        Ok(Minted { token, expires_in })
    }

    /// Reads a token that has our `typ`.
    ///
    /// # Errors
    /// `session_invalid` when it is not ours.
    pub fn authenticate(&self, token: &str) -> Result<SignedSession, Denied> {
        let invalid = |why: &'static str| Denied::new(Reason::SessionInvalid, why);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("longer than 16 KiB"));
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(invalid("not three segments"))?;
        let (header, payload) = signing_input.split_once('.').ok_or(invalid("not three segments"))?;
        let header = json_object(header).and_then(Result::ok).ok_or(invalid("the header is not a JSON object"))?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        if text("typ") != Some(SESSION_TYP) || text("alg") != Some("HS256") || header.len() != 3 {
            return Err(invalid("not a header that we write"));
        }
        let key = self.keys.iter().find(|key| text("kid") == Some(&key.id)).ok_or(invalid("kid names no key of ours"))?;
        let signed = base64url(signature).is_some()
            && jsonwebtoken::crypto::verify(signature, signing_input.as_bytes(), &key.decoding, Algorithm::HS256).unwrap_or(false);
        if !signed {
            return Err(invalid("the signature does not match"));
        }
        let claims = base64url(payload).and_then(|bytes| json::object(&bytes).ok()).ok_or(invalid("the payload is not a JSON object"))?;
        let grant: Grant = serde_json::from_value(Value::Object(claims)).map_err(|_| invalid("not claims that we write"))?;
        Ok(SignedSession { grant })
    }
}
