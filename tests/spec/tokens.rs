//! Macros of case files: `{{name:argument:…}}`, nested as needed, the last argument takes the rest.
//!
//! | macro | makes |
//! |---|---|
//! | `hmac:SECRET:ID` | lowercase hex HMAC-SHA256 of the id |
//! | `karta:SECRET:USER[:name=value…]` | a `v2` token; values that are JSON stand as such |
//! | `karta-raw:SECRET:TEXT` | a `v2` token over any payload |
//! | `jwt:SECRET:JSON` | an HS256 JWT with the usual header |
//! | `jws:ALG:SECRET:HEADER\|\|PAYLOAD` | a compact JWS with exactly these texts; `none` leaves the signature empty; a public key's secret is its PEM |
//! | `session:SECRET:JSON` | a session token that the secret signed, with these members of its grant; see [`session`] |
//! | `b64url:TEXT`, `b64:TEXT` | unpadded base64url, padded base64 |
//! | `hex:DIGITS`, `hex-b64url:DIGITS` | those bytes, or their base64url |
//! | `utf16:TEXT` | UTF-16, little endian, without a mark |
//! | `repeat:COUNT:TEXT` | the text so many times |
//! | `fingerprint:SECRET` | its fingerprint |
//!
//! SECRET names a file of `tests/fixtures/secrets/`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use doorward::secret::KeyBytes;
use doorward::token::session::{Grant, SessionKey, Sessions};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};

use crate::fixture;

/// Expands every macro of a text.
pub(crate) fn expand(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        out.extend_from_slice(&rest.as_bytes()[..start]);
        let inner = &rest[start + 2..];
        let end = closing(inner).ok_or_else(|| format!("no end of macro: {{{{{inner}"))?;
        out.extend(call(&inner[..end])?);
        rest = &inner[end + 2..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// The same, where the result is text.
pub(crate) fn expand_text(text: &str) -> Result<String, String> {
    String::from_utf8(expand(text)?).map_err(|_| format!("not text: {text}"))
}

/// Where the braces that were opened before `text` close: JSON has balanced ones of its own.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 2;
    for (index, byte) in text.bytes().enumerate() {
        depth += match byte {
            b'{' => 1,
            b'}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return Some(index - 1);
        }
    }
    None
}

fn call(macro_text: &str) -> Result<Vec<u8>, String> {
    let (name, rest) = macro_text.split_once(':').ok_or_else(|| format!("macro without arguments: {macro_text}"))?;
    let rest = expand_text(rest)?;
    let two = || rest.split_once(':').ok_or_else(|| format!("{name} wants more arguments: {rest}"));
    let text = match name {
        "hmac" => {
            let (secret, id) = two()?;
            hex::encode(mac(&fixture::secret(secret)?, id.as_bytes()))
        }
        "karta" => {
            let (secret, payload) = two()?;
            karta(secret, &karta_payload(payload)?)?
        }
        "karta-raw" => {
            let (secret, payload) = two()?;
            karta(secret, payload)?
        }
        "jwt" => {
            let (secret, payload) = two()?;
            jws("HS256", secret, r#"{"alg":"HS256","typ":"JWT"}"#, payload)?
        }
        "jws" => {
            let (algorithm, rest) = two()?;
            let (secret, texts) = rest.split_once(':').ok_or("jws:ALG:SECRET:HEADER||PAYLOAD")?;
            let (header, payload) = texts.split_once("||").ok_or("jws wants HEADER||PAYLOAD")?;
            jws(algorithm, secret, header, payload)?
        }
        "session" => {
            let (key, fields) = two()?;
            session(key, fields)?
        }
        "b64url" => URL_SAFE_NO_PAD.encode(&rest),
        "b64" => STANDARD.encode(&rest),
        "hex" => return hex::decode(&rest).map_err(|e| format!("{rest}: {e}")),
        "hex-b64url" => URL_SAFE_NO_PAD.encode(hex::decode(&rest).map_err(|e| format!("{rest}: {e}"))?),
        "utf16" => return Ok(rest.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        "repeat" => {
            let (count, text) = two()?;
            text.repeat(count.parse().map_err(|_| format!("repeat {count}"))?)
        }
        "fingerprint" => KeyBytes::new(fixture::secret(&rest)?).fingerprint().to_string(),
        other => return Err(format!("no macro {other}")),
    };
    Ok(text.into_bytes())
}

fn mac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(message).finalize().into_bytes().to_vec()
}

/// `user_123:stepped_up_at=1790000000:aal=mfa` as Karta's JSON.
fn karta_payload(text: &str) -> Result<String, String> {
    let mut parts = text.split(':');
    let mut payload = Map::new();
    payload.insert("user_id".to_owned(), parts.next().unwrap_or_default().into());
    for part in parts {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("karta wants name=value: {part}"))?;
        payload.insert(name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)));
    }
    Ok(Value::Object(payload).to_string())
}

fn karta(secret: &str, payload: &str) -> Result<String, String> {
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let tag = hex::encode(mac(&fixture::secret(secret)?, payload.as_bytes()));
    Ok(format!("v2.{payload}.{tag}"))
}

/// A session that `key` signed, named after its file: an anonymous one of the `sessions` fixture's first tenant that lasts from
/// 1790000000 to 1790000900, with `fields` in place of its own; `null` removes one. Minted as the gateway does.
fn session(key: &str, fields: &str) -> Result<String, String> {
    let mut grant = serde_json::json!({
        "jti": "s1", "tenant": "acme", "embed_key": "pk_session_0123456789abcdef", "origin": "https://app.example.com",
        "level": "anonymous", "iat": 1_790_000_000, "exp": 1_790_000_900,
    });
    let fields: Map<String, Value> = serde_json::from_str(fields).map_err(|e| format!("session: {e} in {fields}"))?;
    let members = grant.as_object_mut().ok_or("no object")?;
    members.extend(fields);
    members.retain(|_, value| !value.is_null());
    let grant: Grant = serde_json::from_value(grant).map_err(|e| format!("session: {e}"))?;
    let key = SessionKey::new(key.to_owned(), &KeyBytes::new(fixture::secret(key)?));
    let minted = Sessions::new(vec![key], Duration::ZERO).mint(&grant).map_err(|e| format!("session: {e:?}"))?;
    Ok(minted.token)
}

fn jws(algorithm: &str, secret: &str, header: &str, payload: &str) -> Result<String, String> {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = || fixture::secret(secret);
    let asymmetric = |algorithm, key: Result<EncodingKey, jsonwebtoken::errors::Error>| {
        key.and_then(|key| jsonwebtoken::crypto::sign(input.as_bytes(), &key, algorithm)).map_err(|e| format!("{secret}: {e}"))
    };
    let signature = match algorithm {
        "none" => String::new(),
        "HS256" => URL_SAFE_NO_PAD.encode(mac(&key()?, input.as_bytes())),
        "HS384" => URL_SAFE_NO_PAD.encode(Hmac::<Sha384>::new_from_slice(&key()?).unwrap().chain_update(&input).finalize().into_bytes()),
        "HS512" => URL_SAFE_NO_PAD.encode(Hmac::<Sha512>::new_from_slice(&key()?).unwrap().chain_update(&input).finalize().into_bytes()),
        "RS256" => asymmetric(Algorithm::RS256, EncodingKey::from_rsa_pem(&key()?))?,
        "ES256" => asymmetric(Algorithm::ES256, EncodingKey::from_ec_pem(&key()?))?,
        "EdDSA" => asymmetric(Algorithm::EdDSA, EncodingKey::from_ed_pem(&key()?))?,
        other => return Err(format!("cannot sign with {other}")),
    };
    Ok(format!("{input}.{signature}"))
}
