//! The `KartaV2` format.

use super::claims::AuthenticClaims;
use super::keys::KeyRing;
use super::{Format, FormatName};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};

/// The format.
pub struct KartaV2;

impl Format for KartaV2 {
    fn name(&self) -> FormatName {
        FormatName::KartaV2
    }

    fn authenticate(&self, _token: &str, _asserted: Option<&str>, _keys: &KeyRing, _now: UnixTime) -> Result<AuthenticClaims, Denied> {
        Err(Reason::GatewayInternal.into())
    }
}
