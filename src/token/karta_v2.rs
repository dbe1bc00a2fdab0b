//! Format `karta-v2`: `v2.<payload>.<mac>`, where the payload is base64url of a JSON object and the MAC covers the encoded
//! payload only. Decides whether one of the tenant's secrets made it; what the payload says is judged by [`super::claims`].

use std::sync::Arc;

use super::claims::{AuthenticBody, AuthenticClaims};
use super::hmac::signed;
use super::keys::KeyRing;
use super::segment::{MAX_TOKEN_BYTES, base64url, hex_mac, json_object, matching};
use super::{Format, FormatName};
use crate::clock::UnixTime;
use crate::json;
use crate::reason::{Denied, Reason};

/// The format.
pub struct KartaV2;

impl Format for KartaV2 {
    fn name(&self) -> FormatName {
        FormatName::KartaV2
    }

    fn authenticate(&self, token: &str, _asserted: Option<&str>, keys: &KeyRing, now: UnixTime) -> Result<AuthenticClaims, Denied> {
        let (payload, mac) = split(token)?;
        let bytes = base64url(payload).ok_or_else(|| malformed("the payload is not canonical unpadded base64url"))?;
        let keys = keys.all();
        let key = matching(keys.live(FormatName::KartaV2, now), |key| signed(key, payload, &mac)).ok_or(Reason::TokenSignatureInvalid)?;
        let members = json::object(&bytes).map_err(|problem| Denied::new(Reason::TokenClaimMalformed, problem.sentence()))?;
        Ok(AuthenticClaims { body: AuthenticBody::KartaV2(members), key: Arc::clone(key) })
    }
}

/// Whether this text could stand as the signed part of a token: what a user id must not look like where one secret signs
/// ids too.
pub(in crate::token) fn is_payload(text: &str) -> bool {
    json_object(text).is_some_and(|members| members.is_ok())
}

/// The encoded payload and the MAC.
fn split(token: &str) -> Result<(&str, [u8; 32]), Denied> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(malformed("longer than 16 KiB"));
    }
    let (payload, mac) =
        token.strip_prefix("v2.").and_then(|rest| rest.split_once('.')).ok_or_else(|| malformed("not v2.<payload>.<mac>"))?;
    let mac = hex_mac(mac).ok_or_else(|| malformed("the mac is not 64 lowercase hex digits"))?;
    Ok((payload, mac))
}

fn malformed(detail: &'static str) -> Denied {
    Denied::new(Reason::TokenMalformed, detail)
}
