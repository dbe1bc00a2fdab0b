//! The `Jwt` format.

use super::claims::AuthenticClaims;
use super::keys::KeyRing;
use super::{Format, FormatName};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};

/// The format.
pub struct Jwt;

impl Format for Jwt {
    fn name(&self) -> FormatName {
        FormatName::Jwt
    }

    fn authenticate(&self, _token: &str, _asserted: Option<&str>, _keys: &KeyRing, _now: UnixTime) -> Result<AuthenticClaims, Denied> {
        Err(Reason::GatewayInternal.into())
    }
}
