//! Who is talking, read from headers that are known to be covered by a signature that holds.

use crate::verify::REQUIRED;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// Why a request names nobody.
#[derive(Debug, PartialEq)]
pub struct Refused(pub String);

pub fn refused<T>(why: &str) -> Result<T, Refused> {
    Err(Refused(why.to_owned()))
}

/// Who is talking. `told` has every `X-Identity-*` header that applies, decoded, by its name in lower case.
#[derive(Clone, Debug)]
pub struct Identity {
    pub level: String,
    pub subject: Option<String>,
    pub claims: Map<String, Value>,
    pub told: HashMap<String, String>,
    pub body_digest: Option<String>,
}

impl Identity {
    /// An empty header does not apply: behind a forward-auth listener every name is there.
    pub fn read(covered: &HashMap<&str, &[u8]>) -> Result<Self, Refused> {
        let malformed = || Refused("an identity header does not decode".to_owned());
        let mut told = HashMap::new();
        for (name, value) in covered.iter().filter(|(name, value)| name.starts_with("x-identity-") && !value.is_empty()) {
            if *name == "x-identity-audience" {
                continue; // not encoded
            }
            let text = percent_decode(value).decode_utf8().map_err(|_| malformed())?;
            told.insert((*name).to_owned(), text.into_owned());
        }
        let claims = match told.get("x-identity-claims") {
            Some(encoded) => BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?,
            None => b"{}".to_vec(),
        };
        let claims = serde_json::from_slice(&claims).map_err(|_| malformed())?;
        if REQUIRED.iter().any(|name| covered[name].is_empty()) {
            return refused("a required header is empty");
        }
        let (level, subject) = (told["x-identity-level"].clone(), told.get("x-identity-subject").cloned());
        let expected = match level.as_str() {
            "anonymous" | "claimed" => Some(false),
            "verified" | "stepped_up" => Some(true),
            _ => None,
        };
        if expected != Some(subject.is_some()) {
            return refused("level and subject contradict each other");
        }
        let body_digest = covered.get("content-digest").map(|value| String::from_utf8_lossy(value).into_owned());
        Ok(Self { level, subject, claims, told, body_digest })
    }

    /// Compares the whole body with its digest, where that was signed (RFC 9530).
    pub fn check_body(&self, body: &[u8]) -> Result<(), Refused> {
        let digest = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)));
        match &self.body_digest {
            Some(signed) if *signed != digest => refused("the body is not the one that was signed"),
            _ => Ok(()),
        }
    }
}
