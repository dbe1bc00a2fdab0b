//! Makes identity tokens the way a host's backend does: for `doorward token mint`, the demo and tests. Decides nothing about
//! anybody; the gateway itself never signs as a host.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey};
use serde_json::{Value, json};
use sha2::Sha256;

/// The key cannot sign with that algorithm, or the claims are no JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsignable(pub String);

impl fmt::Display for Unsignable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Format `hmac`: lowercase hex HMAC-SHA256 of the exact id.
pub fn hmac(key: &[u8], subject: &str) -> String {
    hex::encode(mac(key, subject.as_bytes()))
}

/// Format `karta-v2`, with members in the vendor's order. `stepped_up_at` is in Unix seconds.
pub fn karta_v2(key: &[u8], subject: &str, stepped_up_at: u64, aal: Option<&str>) -> String {
    let aal = aal.map(|aal| format!(r#","aal":{}"#, json!(aal))).unwrap_or_default();
    karta_v2_of(key, &format!(r#"{{"user_id":{},"stepped_up_at":{stepped_up_at}{aal}}}"#, json!(subject)))
}

/// Format `karta-v2` around any payload text.
pub fn karta_v2_of(key: &[u8], payload: &str) -> String {
    let payload = URL_SAFE_NO_PAD.encode(payload);
    format!("v2.{payload}.{}", hmac(key, &payload))
}

/// Format `jwt`. `key` is a shared secret's bytes for HS256, HS384 and HS512, and a private key as PEM otherwise (PKCS#8).
///
/// # Errors
/// [`Unsignable`] when the key is not one for this algorithm.
pub fn jwt(key: &[u8], algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> Result<String, Unsignable> {
    let kid = kid.map(|kid| format!(r#","kid":{}"#, json!(kid))).unwrap_or_default();
    jwt_of(key, algorithm, &format!(r#"{{"alg":{},"typ":"JWT"{kid}}}"#, json!(algorithm)), &claims.to_string())
}

/// Format `jwt` around any header and payload text, signed with `algorithm` whatever the header says.
///
/// # Errors
/// [`Unsignable`] when the key is not one for this algorithm.
pub fn jwt_of(key: &[u8], algorithm: Algorithm, header: &str, payload: &str) -> Result<String, Unsignable> {
    let signing_input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = encoding_key(key, algorithm)
        .and_then(|key| jsonwebtoken::crypto::sign(signing_input.as_bytes(), &key, algorithm))
        .map_err(|why| Unsignable(format!("the key cannot sign with {algorithm:?}: {why}")))?;
    Ok(format!("{signing_input}.{signature}"))
}

/// HMAC-SHA256.
pub(in crate::token) fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length (RFC 2104 §2), so the error arm cannot be reached.
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.chain_update(message).finalize().into_bytes().into()
}

fn encoding_key(key: &[u8], algorithm: Algorithm) -> jsonwebtoken::errors::Result<EncodingKey> {
    match algorithm.family() {
        AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(key)),
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(key),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(key),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(key),
    }
}
