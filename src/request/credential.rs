//! Credentials by their form. The form only says which verifier may look at it; nothing is proven here.

use crate::reason::{Denied, Reason};

/// The `typ` of Doorward's own session tokens (RFC 8725 §3.11): tells them from every identity JWT.
pub const SESSION_TYP: &str = "doorward-session+jwt";

/// `{"typ":"doorward-session+jwt"}` in base64url: no header that names our type is shorter.
const SHORTEST_SESSION_HEADER: usize = 40;

/// What a credential looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// 64 lowercase hex digits: the HMAC of a user id.
    Hmac,
    /// `v2.<payload>.<mac>`: Karta's structured token.
    KartaV2,
    /// Three segments, not ours: an identity JWT.
    Jwt,
    /// A JWT with our own `typ`.
    Session,
}

impl Form {
    /// Tells a credential's form.
    ///
    /// # Errors
    /// `token_malformed` for what has none.
    pub fn of(token: &str) -> Result<Self, Denied> {
        if token.len() == 64 && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self::Hmac);
        }
        let mut segments = token.split('.');
        match (segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("v2"), Some(_), Some(_), None) => Ok(Self::KartaV2),
            (Some(header), Some(_), Some(_), None) if is_session_header(header) => Ok(Self::Session),
            (Some(_), Some(_), Some(_), None) => Ok(Self::Jwt),
            _ => Err(Denied::new(Reason::TokenMalformed, "neither 64 lowercase hex digits nor three segments")),
        }
    }
}

/// Our own headers are short and name their type in plain text. Whatever hides it behind escapes is no token of
/// ours, and the JWT format refuses every `typ` that reads like ours. Allocates nothing: every JWT passes here.
fn is_session_header(encoded: &str) -> bool {
    use base64::Engine as _;
    if encoded.len() < SHORTEST_SESSION_HEADER {
        return false; // the common headers are shorter: nothing to decode
    }
    let mut header = [0; 192];
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode_slice(encoded, &mut header)
        .ok()
        .and_then(|length| header.get(..length))
        .is_some_and(|header| header.windows(SESSION_TYP.len()).any(|part| part.eq_ignore_ascii_case(SESSION_TYP.as_bytes())))
}
