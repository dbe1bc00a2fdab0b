//! Reads who is talking from a request that Doorward signed; refuses what is not exactly what the gateway signs (RFC 9421),
//! and every identity header that the signature does not cover: read identity from its answer and from nowhere else.

use crate::identity::{Identity, Refused, refused};
use crate::signature::{Input, mac};
use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::collections::HashMap;

const SKEW: u64 = 5; // seconds of clock difference that are forgiven
const MAX_LIFETIME: u64 = 60; // seconds
pub const REQUIRED: [&str; 4] = ["x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id"];

/// What a backend is configured with. `mapped`: names of `[upstream.headers]` that it reads.
pub struct Verifier {
    pub key_id: String,
    pub key: Vec<u8>,
    pub audience: String,
    pub mapped: Vec<String>,
}

impl Verifier {
    /// `path` and `query` as in the request line, not decoded; `now` in Unix seconds. Where the answer has a `body_digest`,
    /// call [`Identity::check_body`] before you believe it.
    pub fn head(&self, method: &str, path: &str, query: Option<&str>, headers: &HeaderMap, now: u64) -> Result<Identity, Refused> {
        let (input, signature) = (one(headers, "signature-input")?, one(headers, "signature")?);
        let (Some(input), Some(mac)) = (Input::parse(input), mac(signature)) else {
            return refused("not the gateway's signature");
        };
        let covers = |name: &str| input.names.contains(&name);
        let doubled = input.names.iter().enumerate().any(|(at, name)| input.names[..at].contains(name));
        if doubled || !["@method", "@path", "@query"].iter().chain(&REQUIRED).all(|name| covers(name)) {
            return refused("a required component is not covered");
        }
        if input.key_id != self.key_id || self.key.is_empty() {
            return refused("an unknown key");
        }
        let (created, expires) = (input.created, input.expires);
        if now + SKEW < created || now > expires + SKEW || expires <= created || expires > created + MAX_LIFETIME {
            return refused("expired, or signed in the future");
        }
        // A signature protects what it covers. A header that was added on the way, in any spelling, is found here only.
        let ours: Vec<_> = self.mapped.iter().map(|name| fold(name)).collect();
        for name in headers.keys().map(|name| name.as_str()) {
            let folded = fold(name);
            let identity = folded.starts_with("xidentity") || folded.starts_with("xdoorward") || ours.contains(&folded);
            if identity && !covers(name) {
                return refused("an identity header is not covered");
            }
        }
        let query = format!("?{}", query.unwrap_or_default());
        let (mut base, mut told) = (Vec::new(), HashMap::new());
        for name in &input.names {
            let value = match *name {
                "@method" => method.as_bytes(),
                "@path" => path.as_bytes(),
                "@query" => query.as_bytes(),
                field => one(headers, field)?,
            };
            told.insert(*name, value);
            base.extend([b"\"", name.as_bytes(), b"\": ", value, b"\n"].concat());
        }
        base.extend([b"\"@signature-params\": ", input.params.as_bytes()].concat());
        let expected = Hmac::<Sha256>::new_from_slice(&self.key).map(|key| key.chain_update(base)); // of any length
        if !expected.is_ok_and(|expected| expected.verify_slice(&mac).is_ok()) {
            return refused("the signature does not match");
        }
        if told["x-identity-audience"] != self.audience.as_bytes() {
            return refused("made for another audience");
        }
        Identity::read(&told)
    }
}

/// The value of a header that came once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h [u8], Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        _ => refused(&format!("{name} is missing or was sent twice")),
    }
}

fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
