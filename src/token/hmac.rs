//! Format `hmac`: 64 lowercase hex digits, the HMAC-SHA256 of the exact user id that stands beside them (Karta, Agentic
//! Trust, Intercom, Chatwoot). Decides whether one of the tenant's secrets signed that id; never what the id may look like
//! (that is [`super::claims`]), except where the same secret signs other formats too.

use std::sync::Arc;

use hmac::Mac as _;

use super::claims::{AuthenticBody, AuthenticClaims};
use super::keys::{IdentityKey, KeyRing, Material};
use super::segment::{hex_mac, matching};
use super::{Format, FormatName, jwt, karta_v2};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};

/// The format.
pub struct Hmac;

impl Format for Hmac {
    fn name(&self) -> FormatName {
        FormatName::Hmac
    }

    fn authenticate(&self, token: &str, asserted: Option<&str>, keys: &KeyRing, now: UnixTime) -> Result<AuthenticClaims, Denied> {
        let mac = hex_mac(token).ok_or_else(|| Denied::new(Reason::TokenMalformed, "not 64 lowercase hex digits"))?;
        let id = asserted.ok_or_else(|| Denied::new(Reason::SubjectMissing, "an hmac token proves the id beside it, and there is none"))?;
        let keys = keys.all();
        let key = matching(keys.live(FormatName::Hmac, now), |key| signed(key, id, &mac)).ok_or(Reason::TokenSignatureInvalid)?;
        refuse_confusable(key, id)?;
        Ok(AuthenticClaims { body: AuthenticBody::Id(id.to_owned()), key: Arc::clone(key) })
    }
}

/// Whether this secret made this MAC of this text, compared in constant time.
pub(in crate::token) fn signed(key: &IdentityKey, text: &str, expected: &[u8]) -> bool {
    match key.material() {
        Material::Secret { mac, .. } => mac.clone().chain_update(text).verify_slice(expected).is_ok(),
        Material::Public { .. } => false,
    }
}

/// Where a secret signs other formats too, an id that those formats' parsers would take is no id: its honest HMAC is a
/// valid signature of whatever the id spells (`threats` 7).
fn refuse_confusable(key: &IdentityKey, id: &str) -> Result<(), Denied> {
    let as_payload = key.formats.contains(&FormatName::KartaV2) && karta_v2::is_payload(id);
    let as_signing_input = key.formats.contains(&FormatName::Jwt) && jwt::is_signing_input(id);
    if as_payload || as_signing_input { Err(Reason::SubjectConfusable.into()) } else { Ok(()) }
}
