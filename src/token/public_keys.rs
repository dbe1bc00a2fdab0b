//! Public keys from PEM files and JWK Sets (RFC 7517), each bound to the one algorithm it may be used for (RFC 8725 §3.1).
//! Refuses private keys, symmetric keys, and keys that are too weak. A set that stands in a file is the operator's own and
//! is taken whole or not at all; one that an issuer publishes has keys for others too, so what cannot be used is left out.
//! Called by `config` and by [`crate::jwks`].

use std::collections::HashSet;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::json;
use crate::secret::KeyBytes;

/// RFC 7518 §3.3: 2048 bits or more.
const MIN_RSA_BYTES: usize = 256;
/// Longer than any `kid` that an issuer makes.
const MAX_KID: usize = 256;
/// More entries than any issuer publishes: every one is parsed.
const MAX_PUBLISHED: usize = 100;

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    /// What verifies.
    pub decoding: DecodingKey,
    /// What it may be used for.
    pub algorithm: Algorithm,
    /// RFC 7638: the same for every encoding of one key.
    pub thumbprint: KeyBytes,
}

/// A key that an issuer publishes.
#[derive(Clone)]
pub struct PublishedKey {
    /// What tokens call it.
    pub kid: String,
    /// The key.
    pub key: PublicKey,
    /// Whether it says its algorithm itself. Where it does not, the key's kind gave it, and the configuration must agree.
    pub says_algorithm: bool,
}

/// What an issuer publishes.
pub struct Published {
    /// What can be used.
    pub keys: Vec<PublishedKey>,
    /// Why each of the rest cannot.
    pub left_out: Vec<String>,
}

/// Reads a PEM file's public key.
///
/// # Errors
/// Why it cannot be used; goes on after the key's name.
pub fn from_pem(text: &str, algorithm: Algorithm) -> Result<PublicKey, String> {
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
///
/// # Errors
/// Why one cannot be used; goes on after the set's name.
pub fn from_jwks(text: &str) -> Result<Vec<(String, PublicKey)>, String> {
    let one = |key: &Value| match from_jwk(key)? {
        PublishedKey { says_algorithm: false, .. } => Err(NO_ALGORITHM.to_owned()),
        published => Ok((published.kid, published.key)),
    };
    entries(text.as_bytes())?.iter().enumerate().map(|(i, key)| one(key).map_err(|why| format!("entry {} {why}", i + 1))).collect()
}

/// Reads what an issuer publishes. Keys for encryption are passed over without a word.
///
/// # Errors
/// Why it is no JWK Set, or none that any token could be verified with.
pub fn from_published(bytes: &[u8]) -> Result<Published, String> {
    let entries = entries(bytes)?;
    if entries.len() > MAX_PUBLISHED {
        return Err(format!("has {} keys, more than {MAX_PUBLISHED}", entries.len()));
    }
    let mut published = Published { keys: Vec::new(), left_out: Vec::new() };
    let mut seen = HashSet::new();
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| text(entry, "use") != Some("enc")) {
        match from_jwk(entry) {
            Ok(key) if seen.insert(key.kid.clone()) => published.keys.push(key),
            Ok(_) => published.left_out.push(format!("entry {} has the kid of an earlier one", index + 1)),
            Err(why) => published.left_out.push(format!("entry {} {why}", index + 1)),
        }
    }
    if published.keys.is_empty() {
        return Err(format!("has no key that can be used: {}", published.left_out.join("; ")));
    }
    Ok(published)
}

const NO_ALGORITHM: &str = "has no alg of RS256, ES256 or EdDSA";

fn entries(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut set = json::object(bytes).map_err(|_| "is no strict JSON object (RFC 7517 section 5)")?;
    match set.remove("keys") {
        Some(Value::Array(keys)) if keys.is_empty() => Err("is a JWK Set without keys".to_owned()),
        Some(Value::Array(keys)) => Ok(keys),
        _ => Err("is no JWK Set: it has no list named keys".to_owned()),
    }
}

fn text<'v>(value: &'v Value, member: &str) -> Option<&'v str> {
    value.get(member).and_then(Value::as_str)
}

fn from_jwk(value: &Value) -> Result<PublishedKey, String> {
    if text(value, "kty") == Some("oct") || value.get("k").is_some() {
        return Err("is a symmetric key, which never belongs into a JWK Set; name it by env or file".to_owned());
    }
    if value.get("d").is_some() {
        return Err("is a private key: publish and list the public half only".to_owned());
    }
    if text(value, "use").is_some_and(|used| used != "sig") {
        return Err("is not for signatures (use is not \"sig\")".to_owned());
    }
    let verifies = |operations: &Value| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"));
    if value.get("key_ops").is_some_and(|operations| !verifies(operations)) {
        return Err("is not for signatures (key_ops has no \"verify\")".to_owned());
    }
    let usable = |kid: &&str| (1..=MAX_KID).contains(&kid.len()) && !kid.chars().any(char::is_control);
    let kid = text(value, "kid").filter(usable).ok_or("has no kid that a token could name")?;
    let algorithm = match (value.get("alg"), text(value, "kty"), text(value, "crv")) {
        (Some(Value::String(alg)), _, _) => match alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(NO_ALGORITHM.to_owned()),
        },
        (None, Some("RSA"), _) => Algorithm::RS256,
        (None, Some("EC"), Some("P-256")) => Algorithm::ES256,
        (None, Some("OKP"), Some("Ed25519")) => Algorithm::EdDSA,
        _ => return Err(NO_ALGORITHM.to_owned()),
    };
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|_| "is no JWK (RFC 7517)")?;
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "has parameters that do not decode")?;
    Ok(PublishedKey { kid: kid.to_owned(), key: bound(decoding, algorithm)?, says_algorithm: value.get("alg").is_some() })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 8037 appendix A.2, RFC 7515 appendix A.3.
    fn ed() -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
    }

    fn ec() -> Value {
        let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": x, "y": y })
    }

    fn with(mut key: Value, member: &str, value: Value) -> Value {
        key[member] = value;
        key
    }

    fn without(mut key: Value, member: &str) -> Value {
        key.as_object_mut().unwrap().remove(member);
        key
    }

    #[test]
    fn an_issuers_set_gives_what_can_be_used_and_says_what_cannot() {
        for (why, entry) in [
            ("is a symmetric key", json!({ "kty": "oct", "kid": "s", "alg": "HS256", "k": "AAAA" })),
            ("is a symmetric key", with(ed(), "k", json!("AAAA"))),
            ("is a private key", with(ed(), "d", json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))),
            ("use is not", with(ed(), "use", json!("tls"))),
            ("key_ops has no", with(ed(), "key_ops", json!(["encrypt"]))),
            ("key_ops has no", with(ed(), "key_ops", json!("verify"))),
            ("has no kid", without(ed(), "kid")),
            ("has no kid", with(ed(), "kid", json!(""))),
            ("has no kid", with(ed(), "kid", json!(7))),
            ("has no kid", with(ed(), "kid", json!("a\nb"))),
            ("has no kid", with(ed(), "kid", json!("k".repeat(257)))),
            ("has the kid of an earlier one", with(ed(), "kid", json!("ec"))),
            ("has no alg of", with(ed(), "alg", json!("HS256"))),
            ("has no alg of", with(ed(), "alg", json!("none"))),
            ("has no alg of", with(ed(), "alg", json!(null))),
            ("has no alg of", without(with(ec(), "crv", json!("P-384")), "alg")),
            ("is not a key for RS256", with(ed(), "alg", json!("RS256"))),
            ("is not a key for ES256", with(ed(), "alg", json!("ES256"))),
            ("parameters that do not decode", with(ec(), "x", json!("!"))),
            ("parameters that do not decode", without(ec(), "y")),
            ("is no JWK", with(ed(), "x5c", json!(7))),
            ("has no kid", json!("a string")),
        ] {
            // The first is always good, and what stands beside it is left out.
            let set = from_published(json!({ "keys": [ec(), entry] }).to_string().as_bytes()).unwrap();
            assert_eq!(set.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["ec"], "{entry}");
            let [said] = &set.left_out[..] else { panic!("{:?} for {entry}", set.left_out) };
            assert!(said.starts_with("entry 2 ") && said.contains(why), "{said} for {entry}");
        }
        let both =
            json!({ "keys": [ec(), with(ed(), "use", json!("enc")), with(ed(), "use", json!("sig")), with(ed(), "kid", json!("e2"))] });
        let set = from_published(both.to_string().as_bytes()).unwrap();
        assert_eq!((set.keys.len(), set.left_out.len()), (3, 0), "keys for encryption are nobody's fault");
    }

    #[test]
    fn a_key_that_does_not_say_its_algorithm_gets_its_kinds() {
        for (key, algorithm) in [(ed(), Algorithm::EdDSA), (ec(), Algorithm::ES256)] {
            let set = |key: &Value| from_published(json!({ "keys": [key] }).to_string().as_bytes()).unwrap().keys.remove(0);
            let (said, silent) = (set(&key), set(&without(key.clone(), "alg")));
            assert_eq!((said.key.algorithm, said.says_algorithm), (algorithm, true));
            assert_eq!((silent.key.algorithm, silent.says_algorithm), (algorithm, false));
            assert_eq!(said.key.thumbprint, silent.key.thumbprint);
            assert!(from_jwks(&json!({ "keys": [without(key, "alg")] }).to_string()).is_err(), "a file says it");
        }
    }
}
