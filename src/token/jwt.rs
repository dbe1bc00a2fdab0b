//! Format `jwt`: a signed JWT in compact serialization (RFC 7515 §3.1, RFC 7519, RFC 8725). Decides whether one of the
//! tenant's keys signed it with that key's own algorithm; the token never chooses an algorithm or a key source. Claims are
//! judged by [`super::claims`].

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::claims::{AuthenticBody, AuthenticClaims};
use super::hmac::signed;
use super::keys::{IdentityKey, KeyRing, Keys, Material};
use super::segment::{MAX_TOKEN_BYTES, base64url, json_object, matching};
use super::{Format, FormatName};
use crate::clock::UnixTime;
use crate::json;
use crate::reason::{Denied, Reason};

/// Longest encoded header that is looked at: room for an `x5c` chain, which is then ignored.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Longest `kid`.
const MAX_KID_BYTES: usize = 256;
/// Header members that change how a token must be read (RFC 7515 §4.1.11, RFC 7797, RFC 7516 §4.1.3). None is understood here, so all
/// are refused, whatever their value.
const REFUSED_MEMBERS: [&str; 3] = ["crit", "b64", "zip"];
/// `{"alg":"HS256","typ":"JWT"}` and `{"typ":"JWT","alg":"HS256"}`, as nearly every library writes them: read once, here, and not
/// again per request.
const PLAIN_HS256: [&str; 2] = ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9"];
/// Media types of what the gateway itself signs begin like this; none of them is a host's word about its user.
const OWN_TYP_PREFIX: &str = "doorward-";

/// The format.
pub struct Jwt;

impl Format for Jwt {
    fn name(&self) -> FormatName {
        FormatName::Jwt
    }

    fn authenticate(&self, token: &str, _asserted: Option<&str>, keys: &KeyRing, now: UnixTime) -> Result<AuthenticClaims, Denied> {
        let parts = Parts::split(token)?;
        let header = Header::parse(parts.header)?;
        let all = keys.all();
        let candidates = candidates(&header, keys, &all, now)?;
        let key = matching(candidates.into_iter(), |key| parts.signed_by(key)).ok_or(Reason::TokenSignatureInvalid)?;
        let claims = json::object(&parts.claims).map_err(|problem| Denied::new(Reason::TokenClaimMalformed, problem.sentence()))?;
        Ok(AuthenticClaims { body: AuthenticBody::Jwt(claims), key: Arc::clone(key) })
    }
}

/// Whether this text could stand as the signed part of a token, `header.payload`: what a user id must not look like where
/// one secret signs ids too.
pub(in crate::token) fn is_signing_input(text: &str) -> bool {
    text.split_once('.')
        .is_some_and(|(header, payload)| Header::parse(header).is_ok() && json_object(payload).is_some_and(|claims| claims.is_ok()))
}

/// A token taken apart; nothing is proven yet.
struct Parts<'t> {
    header: &'t str,
    /// Decoded payload: not looked into before the signature holds.
    claims: Vec<u8>,
    /// `header.payload`, what the signature covers.
    signing_input: &'t str,
    /// Encoded, for `jsonwebtoken`.
    signature_text: &'t str,
    signature: Vec<u8>,
}

impl<'t> Parts<'t> {
    fn split(token: &'t str) -> Result<Self, Denied> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed("longer than 16 KiB"));
        }
        let three = || malformed("not three segments");
        let (signing_input, signature_text) = token.rsplit_once('.').ok_or_else(three)?;
        let (header, payload) = signing_input.split_once('.').ok_or_else(three)?;
        let signature = base64url(signature_text).ok_or_else(|| malformed("the signature is not canonical unpadded base64url"))?;
        let claims = base64url(payload).ok_or_else(|| malformed("the payload is not canonical unpadded base64url"))?;
        Ok(Self { header, claims, signing_input, signature_text, signature })
    }

    /// Whether this key made the signature, with the key's own algorithm.
    fn signed_by(&self, key: &IdentityKey) -> bool {
        match (key.material(), key.algorithm) {
            // The same MAC as `hmac`, whose key schedule is done: no allocation and half the time.
            (Material::Secret { .. }, Algorithm::HS256) => signed(key, self.signing_input, &self.signature),
            (Material::Secret { decoding, .. } | Material::Public { decoding }, algorithm) => {
                jsonwebtoken::crypto::verify(self.signature_text, self.signing_input.as_bytes(), decoding, algorithm).unwrap_or(false)
            }
        }
    }
}

/// What a header may say here. Everything else in it (`jwk`, `jku`, `x5u`, `x5c` …) is ignored: keys come from configuration only.
struct Header {
    alg: String,
    kid: Option<String>,
}

impl Header {
    fn parse(encoded: &str) -> Result<Self, Denied> {
        if PLAIN_HS256.contains(&encoded) {
            return Ok(Self { alg: "HS256".to_owned(), kid: None });
        }
        if encoded.len() > MAX_HEADER_BYTES {
            return Err(malformed("the header is longer than 8 KiB"));
        }
        let mut members = match json_object(encoded) {
            Some(Ok(members)) => members,
            Some(Err(json::Problem::Duplicate)) => return Err(refused("a header member stands twice")),
            Some(Err(json::Problem::Malformed)) => return Err(malformed("the header is not a JSON object")),
            None => return Err(malformed("the header is not canonical unpadded base64url")),
        };
        if let Some(name) = REFUSED_MEMBERS.into_iter().find(|name| members.contains_key(*name)) {
            return Err(refused(name));
        }
        if string(&mut members, "typ", "typ is not a string")?.is_some_and(|typ| is_own(&typ)) {
            return Err(refused("typ names a token of the gateway's own"));
        }
        let kid = string(&mut members, "kid", "kid is not a string")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(refused("kid is longer than 256 bytes"));
        }
        let no_alg = || Denied::new(Reason::TokenAlgorithmRefused, "the header has no alg string");
        let alg = string(&mut members, "alg", "").map_err(|_| no_alg())?.ok_or_else(no_alg)?;
        Ok(Self { alg, kid })
    }
}

/// A header member that must be a string where it is there.
fn string(members: &mut Map<String, Value>, name: &str, otherwise: &'static str) -> Result<Option<String>, Denied> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(refused(otherwise)),
    }
}

/// Whether a `typ` is one of the gateway's own. Media types ignore case, and `application/` may be left out (RFC 7515 §4.1.9).
fn is_own(typ: &str) -> bool {
    let starts = |text: &str, prefix: &str| text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let name = if starts(typ, "application/") { typ.get("application/".len()..).unwrap_or_default() } else { typ };
    starts(name, OWN_TYP_PREFIX)
}

/// The live keys that may have signed a token with this header: by `kid` where the tenant's keys have any, and only those
/// bound to the token's `alg` (RFC 8725 §3.1).
fn candidates<'k>(header: &Header, ring: &KeyRing, keys: &'k Keys<'_>, now: UnixTime) -> Result<Vec<&'k Arc<IdentityKey>>, Denied> {
    let by_kid = ring.goes_by_kid();
    let mut named: Vec<_> = keys.live(FormatName::Jwt, now).collect();
    if by_kid {
        named.retain(|key| key.kid == header.kid);
    }
    if named.is_empty() {
        return Err(match (&header.kid, by_kid) {
            (Some(_), true) if ring.is_waiting() => Denied::new(Reason::KeysMissing, "the issuer's key set was never fetched"),
            (Some(_), true) => Denied::new(Reason::TokenKeyUnknown, "kid names no live key"),
            (None, true) => Denied::new(Reason::TokenKeyUnknown, "the token has no kid and every live key has one"),
            (_, false) => Denied::new(Reason::TokenSignatureInvalid, "no key is live now"),
        });
    }
    let algorithm: Option<Algorithm> = header.alg.parse().ok(); // exact names only: `none`, `hs256` and the unknown are no algorithm
    named.retain(|key| Some(key.algorithm) == algorithm);
    if named.is_empty() {
        return Err(Denied::new(Reason::TokenAlgorithmRefused, "alg is not the one that the key is bound to"));
    }
    Ok(named)
}

fn malformed(detail: &'static str) -> Denied {
    Denied::new(Reason::TokenMalformed, detail)
}

fn refused(detail: &'static str) -> Denied {
    Denied::new(Reason::TokenHeaderRefused, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_header_is_what_it_is_taken_for() {
        for header in PLAIN_HS256 {
            let members = json_object(header).unwrap().unwrap();
            assert_eq!(Value::Object(members), serde_json::json!({ "alg": "HS256", "typ": "JWT" }));
        }
    }
}
