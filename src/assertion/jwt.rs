//! The `jwt` scheme: the same statement as one compact JWS (RFC 7515), bound to this request by `htm` and `htu`. Host
//! claims are nested under `claims`, so that none can pass for one of ours. Called by [`super::Signer`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::headers::{Identity, Who, unsignable, whole_seconds};
use super::{AssertionKey, KeyAlgorithm, Target, nonce};
use crate::clock::UnixTime;
use crate::reason::Denied;

/// The `typ` of assertions (RFC 8725 §3.11): no identity token and no session token passes for one, or the reverse.
pub const TYP: &str = "doorward-assertion+jwt";

pub(super) const ASSERTION: HeaderName = HeaderName::from_static("x-identity-assertion");

/// A key that signs JWTs, with its encoded JOSE header.
#[derive(Debug)]
pub(super) struct JwtKey {
    algorithm: Algorithm,
    encoding: EncodingKey,
    /// The first segment and its dot: the same for every assertion.
    head: String,
}

impl JwtKey {
    /// Prepares a key.
    ///
    /// # Errors
    /// A sentence with the fix.
    pub(super) fn new(key: &AssertionKey) -> Result<Self, String> {
        let material = key.material.expose();
        let pem = |kind: &str, how: &str| format!("is no {kind} private key in PKCS#8 PEM; make one with `{how}`");
        let ec = || pem("P-256", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256");
        let ed = || pem("Ed25519", "openssl genpkey -algorithm ed25519");
        let (algorithm, encoding) = match key.algorithm {
            KeyAlgorithm::Hs256 => (Algorithm::HS256, EncodingKey::from_secret(material)),
            KeyAlgorithm::Es256 => (Algorithm::ES256, EncodingKey::from_ec_pem(material).map_err(|_| ec())?),
            KeyAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_pem(material).map_err(|_| ed())?),
        };
        // A PEM is only taken apart above: a key of another curve would fail at the first request.
        let usable = crypto::sign(b"", &encoding, algorithm).is_ok();
        let header = Header { typ: Some(TYP.to_owned()), kid: Some(key.id.clone()), ..Header::new(algorithm) };
        let json = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
        let prepared = Self { algorithm, encoding, head: format!("{}.", URL_SAFE_NO_PAD.encode(json)) };
        match key.algorithm {
            KeyAlgorithm::Es256 if !usable || prepared.public(&key.id).is_none() => Err(ec()),
            KeyAlgorithm::EdDsa if !usable || prepared.public(&key.id).is_none() => Err(ed()),
            _ => Ok(prepared),
        }
    }

    /// The public half (RFC 7517 §4); `None` for a shared secret, which has none.
    pub(super) fn public(&self, id: &str) -> Option<Jwk> {
        if self.algorithm == Algorithm::HS256 {
            return None;
        }
        let mut jwk = Jwk::from_encoding_key(&self.encoding, self.algorithm).ok()?;
        jwk.common.key_id = Some(id.to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(jwk)
    }

    /// The assertion about one request.
    pub(super) fn sign(
        &self,
        identity: &Identity<'_>,
        target: &Target<'_>,
        issuer: &str,
        audience: &str,
        now: UnixTime,
        lifetime_secs: u64,
    ) -> Result<(HeaderName, HeaderValue), Denied> {
        let verified = identity.verified();
        let stepped_up = verified.and_then(|v| v.stepped_up);
        let host_claims = verified.filter(|v| !v.claims.is_empty()).map(|v| serde_json::from_str(&v.claims_json));
        let iat = now.secs();
        let claims = Claims {
            iss: issuer,
            aud: audience,
            sub: verified.map(|v| v.subject),
            iat,
            exp: iat.saturating_add(lifetime_secs),
            jti: nonce(),
            level: identity.level().as_str(),
            tenant: identity.tenant,
            origin: identity.origin,
            sid: identity.session,
            method: verified.map(|v| v.method),
            htm: target.method,
            htu: Htu(target),
            request_id: target.request_id,
            stepped_up_at: stepped_up.map(whole_seconds),
            aal: stepped_up.and_then(|s| s.aal.as_deref()),
            claimed_subject: if let Who::Claimed(id) = &identity.who { Some(id) } else { None },
            claims: host_claims.transpose().map_err(|_| unsignable("claims"))?,
        };
        let json = serde_json::to_vec(&claims).map_err(|_| unsignable("assertion claims"))?;
        let mut token = String::with_capacity(self.head.len() + json.len() * 4 / 3 + 100);
        token.push_str(&self.head);
        URL_SAFE_NO_PAD.encode_string(&json, &mut token);
        let signature = crypto::sign(token.as_bytes(), &self.encoding, self.algorithm).map_err(|_| unsignable("the assertion key"))?;
        token.push('.');
        token.push_str(&signature);
        Ok((ASSERTION, HeaderValue::try_from(token).map_err(|_| unsignable("the assertion"))?))
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    iat: u64,
    exp: u64,
    jti: super::Nonce,
    level: &'static str,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    /// Session id (OpenID Connect Front-Channel Logout §3).
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    htm: &'a str,
    htu: Htu<'a>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stepped_up_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a RawValue>,
}

/// Path and query as sent (after RFC 9449 §4.2's `htu`, which leaves the query out: it decides what a backend does).
struct Htu<'a>(&'a Target<'a>);

impl fmt::Display for Htu<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.path)?;
        self.0.query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

impl Serialize for Htu<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
