//! The text encodings inside tokens, in their one canonical form each. A second spelling of the same bytes would give one
//! token two texts, and a user id two readings (`threats` 7, 10, 14). Called by the formats only.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::IdentityKey;
use crate::json;

/// Longest token that is looked at, in bytes: half of the header section that the gateway takes.
pub(in crate::token) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Canonical unpadded base64url (RFC 7515 §2): no padding, no whitespace, no non-zero trailing bits.
pub(in crate::token) fn base64url(segment: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(segment).ok()
}

/// A segment that holds one strict JSON object.
pub(in crate::token) fn json_object(segment: &str) -> Option<Result<Map<String, Value>, json::Problem>> {
    Some(json::object(&base64url(segment)?))
}

/// Exactly 64 lowercase hex digits: one HMAC-SHA256.
pub(in crate::token) fn hex_mac(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut mac = [0; 32];
    hex::decode_to_slice(text, &mut mac).ok()?; // refuses any other length
    Some(mac)
}

/// The key that `verifies`, if one does. Every key is tried whatever matched, so that the time taken says nothing about
/// which one it was (`threats` 17).
pub(in crate::token) fn matching<'k>(
    keys: impl Iterator<Item = &'k Arc<IdentityKey>>,
    verifies: impl Fn(&IdentityKey) -> bool,
) -> Option<&'k Arc<IdentityKey>> {
    keys.fold(None, |found, key| {
        let holds = verifies(key);
        found.or(holds.then_some(key))
    })
}

#[cfg(test)]
#[allow(clippy::string_slice)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_decodes() {
        assert_eq!(base64url("Zg"), Some(b"f".to_vec()));
        for other in ["Zg==", "Zg=", "Zh", " Zg", "Zg\n", "Z", "Z+", "Z/", "Zg.", "Zg\u{e9}"] {
            assert_eq!(base64url(other), None, "{other:?}");
        }
        let mac = "a5976e12891ea362e524c0357e3dd1ed9dfc60a0b5ab8ebee37a3467db004564";
        assert!(hex_mac(mac).is_some());
        for other in [&mac.to_uppercase(), &mac[1..], &mac[2..], &format!("{mac}00"), &format!("{} ", &mac[1..]), ""] {
            assert_eq!(hex_mac(other), None, "{other:?}");
        }
    }
}
