//! Limits of the gateway's own server-to-server endpoint, per client address and per process: a guesser of the verification
//! secret is slowed down without slowing anybody else.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::DefaultClock;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

/// Requests per second that go on for ever, and how many may come at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(2).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Token buckets by client address.
pub(super) struct Limits {
    user_token: RateLimiter<IpAddr, DefaultKeyedStateStore<IpAddr>, DefaultClock>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { user_token: RateLimiter::keyed(Quota::per_second(PER_SECOND).allow_burst(BURST)) }
    }
}

impl Limits {
    /// Whether this client may ask once more now.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        self.user_token.check_key(&prefix(client)).is_ok()
    }

    /// Forgets clients whose bucket is full again.
    pub(super) fn forget_idle(&self) {
        self.user_token.retain_recent();
    }
}

/// A client owns its whole IPv6 /64 (RFC 6177).
fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}
