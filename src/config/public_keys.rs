//! Public keys from PEM files and JWK Sets (RFC 7517), each bound to the one algorithm it may be used for (RFC 8725 §3.1).
//! Refuses private keys, symmetric keys, and keys that are too weak.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::secret::KeyBytes;

/// RFC 7518 §3.3: 2048 bits or more.
const MIN_RSA_BYTES: usize = 256;
/// Longer than any `kid` that an issuer makes.
const MAX_KID: usize = 256;

/// A public key.
pub(super) struct PublicKey {
    pub(super) decoding: DecodingKey,
    pub(super) algorithm: Algorithm,
    /// RFC 7638: the same for every encoding of one key.
    pub(super) thumbprint: KeyBytes,
}

/// Reads a PEM file's public key. The error goes on after the key's name.
pub(super) fn from_pem(text: &str, algorithm: Algorithm) -> Result<PublicKey, String> {
    if text.contains("PRIVATE KEY") {
        return Err("is a private key: the gateway verifies and needs the public half only".to_owned());
    }
    let decoding = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(text.as_bytes()),
        Algorithm::ES256 => DecodingKey::from_ec_pem(text.as_bytes()),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(text.as_bytes()),
        other => return Err(format!("cannot be used with {other:?}, which wants a shared secret")),
    };
    bound(decoding.map_err(|_| format!("is no PEM public key for {algorithm:?}"))?, algorithm)
}

/// Reads a JWK Set's keys with their `kid`. All can be used, or none is.
pub(super) fn from_jwks(text: &str) -> Result<Vec<(String, PublicKey)>, String> {
    let set = crate::json::object(text.as_bytes()).map_err(|_| "is no strict JSON object (RFC 7517 section 5)")?;
    let Some(Value::Array(keys)) = set.get("keys") else { return Err("is no JWK Set: it has no list named keys".to_owned()) };
    if keys.is_empty() {
        return Err("is a JWK Set without keys".to_owned());
    }
    keys.iter().enumerate().map(|(index, key)| from_jwk(key).map_err(|why| format!("entry {} {why}", index + 1))).collect()
}

fn from_jwk(value: &Value) -> Result<(String, PublicKey), String> {
    let text = |member: &str| value.get(member).and_then(Value::as_str);
    if text("kty") == Some("oct") || value.get("k").is_some() {
        return Err("is a symmetric key, which never belongs into a JWK Set; name it by env or file".to_owned());
    }
    if value.get("d").is_some() {
        return Err("is a private key: publish and list the public half only".to_owned());
    }
    if text("use").is_some_and(|used| used != "sig") {
        return Err("is not for signatures (use is not \"sig\")".to_owned());
    }
    let kid = text("kid").filter(|kid| (1..=MAX_KID).contains(&kid.len())).ok_or("has no kid that a token could name")?;
    let algorithm = match text("alg") {
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        Some(_) | None => return Err("has no alg of RS256, ES256 or EdDSA".to_owned()),
    };
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|_| "is no JWK (RFC 7517)")?;
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "has parameters that do not decode")?;
    Ok((kid.to_owned(), bound(decoding, algorithm)?))
}

/// Proves that a key is of its algorithm's kind and strong enough.
fn bound(decoding: DecodingKey, algorithm: Algorithm) -> Result<PublicKey, String> {
    let jwk = Jwk::from_decoding_key(&decoding, Some(algorithm)).map_err(|_| format!("is no usable key for {algorithm:?}"))?;
    let fits = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), Algorithm::RS256) => {
            if rsa.n.len() * 3 / 4 < MIN_RSA_BYTES {
                return Err("is an RSA key of fewer than 2048 bits (RFC 7518 section 3.3)".to_owned());
            }
            true
        }
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES256) => ec.curve == EllipticCurve::P256,
        (AlgorithmParameters::OctetKeyPair(okp), Algorithm::EdDSA) => okp.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    if !fits {
        return Err(format!("is not a key for {algorithm:?}"));
    }
    let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| "has no thumbprint")?;
    Ok(PublicKey { decoding, algorithm, thumbprint: KeyBytes::new(thumbprint.into_bytes()) })
}
