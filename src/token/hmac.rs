//! The `Hmac` format.

use super::claims::AuthenticClaims;
use super::keys::KeyRing;
use super::{Format, FormatName};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};

/// The format.
pub struct Hmac;

impl Format for Hmac {
    fn name(&self) -> FormatName {
        FormatName::Hmac
    }

    fn authenticate(&self, _token: &str, _asserted: Option<&str>, _keys: &KeyRing, _now: UnixTime) -> Result<AuthenticClaims, Denied> {
        Err(Reason::GatewayInternal.into())
    }
}
