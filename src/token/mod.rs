//! Identity tokens. A format only proves that bytes are authentic ([`Format::authenticate`]); what the claims must say
//! lives once, in [`claims::ClaimRules::accept`], the only maker of a [`claims::VerifiedSubject`]. A new format is one
//! file and one row in [`FORMATS`], and cannot forget expiry.

pub(crate) mod claim_values;
pub mod claims;
pub mod explain;
pub mod hmac;
pub mod jwt;
pub mod karta_v2;
pub mod keys;
pub mod mint;
pub mod public_keys;
pub mod remote;
mod segment;
pub mod session;

use crate::clock::UnixTime;
use crate::reason::Denied;
use claims::AuthenticClaims;
use keys::KeyRing;

/// The formats' names, as written in configuration and in `X-Identity-Method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FormatName {
    /// Hex HMAC-SHA256 of the user id.
    Hmac,
    /// Karta's `v2.<payload>.<mac>`.
    KartaV2,
    /// Signed JWT (RFC 7519).
    Jwt,
}

impl FormatName {
    /// Every format's name.
    pub const ALL: [Self; 3] = [Self::Hmac, Self::KartaV2, Self::Jwt];

    /// As written in configuration and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hmac => "hmac",
            Self::KartaV2 => "karta-v2",
            Self::Jwt => "jwt",
        }
    }
}

/// A token format.
pub trait Format: Send + Sync {
    /// Which one.
    fn name(&self) -> FormatName;

    /// Proves that one of the tenant's live keys signed this token. Every live secret of the format is tried whatever
    /// matched, and MACs are compared in constant time (`threats` 17). `asserted` is the one id that stands beside the
    /// token, if exactly one does: the `hmac` format signs nothing else.
    ///
    /// # Errors
    /// A `token_*` or `subject_*` denial.
    fn authenticate(&self, token: &str, asserted: Option<&str>, keys: &KeyRing, now: UnixTime) -> Result<AuthenticClaims, Denied>;
}

/// Registration: one row per format.
pub static FORMATS: [&dyn Format; 3] = [&hmac::Hmac, &karta_v2::KartaV2, &jwt::Jwt];
