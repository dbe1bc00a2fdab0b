//! How often one may ask: a tenant's rules, the buckets that they fill, and what a bucket answers. Decides nothing about
//! identity and never reads a request; [`meter`] brings one request and its tenant's rules together, [`memory`] keeps the
//! counts. Rules are made by [`crate::config`].

mod cells;
pub mod memory;
pub mod meter;

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use http::Method;
use sha2::{Digest as _, Sha256};

use crate::clock::UnixTime;
use crate::policy;
use crate::request::RequestHead;
use crate::request::path::PathPattern;

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// Everybody who comes with the same embed key.
    EmbedKey,
    /// One client address; IPv6 by its /64.
    Client,
    /// One verified subject. An id that nobody signed is never one: anybody could spend somebody else's share.
    Subject,
}

impl Per {
    /// As written in the configuration, and the default name of a rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmbedKey => "embed_key",
            Self::Client => "client",
            Self::Subject => "subject",
        }
    }
}

/// Requests per period, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Requests that a period gives back, evenly spread over it.
    pub requests: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// Most that can be saved up.
    pub burst: NonZeroU32,
}

impl Quota {
    /// How long one request takes to come back.
    pub fn interval(&self) -> Duration {
        (self.period / self.requests.get()).max(Duration::from_nanos(1))
    }
}

/// One `[[tenant.limit]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in answers and records; unique within the tenant.
    pub name: String,
    /// Who shares a bucket.
    pub per: Per,
    /// Which paths; all where there is none.
    pub path: Option<PathPattern>,
    /// Which methods, as in routes: empty means all, and GET covers HEAD.
    pub methods: Vec<Method>,
    /// How much.
    pub quota: Quota,
}

impl Rule {
    fn covers(&self, head: &RequestHead<'_>) -> bool {
        policy::covers_method(&self.methods, head.method, head.upgrade) && self.path.as_ref().is_none_or(|path| path.covers(&head.path))
    }
}

/// A tenant's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its rules, in file order; all that cover a request apply.
    pub rules: Vec<Rule>,
    /// Requests that callers who are not verified may make in a day (UTC) altogether.
    pub anonymous_per_day: Option<NonZeroU64>,
}

impl Limits {
    /// The name of the daily cap, in answers and records. No rule may have it.
    pub const ANONYMOUS: &'static str = "anonymous";
    /// One client's share of the daily cap is the cap divided by this, and at least 1: 5 %.
    pub const SHARES: u64 = 20;
}

/// Whose share of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Everybody together.
    All,
    /// A client's prefix; those without an address, on a Unix socket, are one.
    Client(Option<IpAddr>),
    /// The digest of a name: buckets keep neither keys nor subjects.
    Named([u8; 16]),
    /// One of a few that newcomers share once there are too many.
    Crowd(u8),
}

impl Who {
    /// The client at this address. It owns its whole IPv6 /64 (RFC 6177); an IPv4 address mapped into IPv6 is itself.
    pub fn client(address: Option<IpAddr>) -> Self {
        Self::Client(address.map(prefix))
    }

    /// Whoever is called this.
    pub fn named(name: &str) -> Self {
        let mut short = [0; 16];
        short.iter_mut().zip(Sha256::digest(name)).for_each(|(to, from)| *to = from);
        Self::Named(short)
    }
}

/// What one client is taken to own of its address' surroundings.
pub fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// How much a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// So many per period.
    Rate(Quota),
    /// So many until midnight (UTC).
    Daily(u64),
}

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket<'b> {
    /// The tenant's id.
    pub tenant: &'b str,
    /// The rule's name.
    pub rule: &'b str,
    /// Whose.
    pub who: Who,
    /// How much it holds.
    pub allowance: Allowance,
}

/// What a bucket answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There was room.
    Admit {
        /// What is left for the next requests.
        remaining: u64,
        /// When there is more, at the latest.
        reset: Duration,
    },
    /// There was none.
    Refuse {
        /// When there is.
        retry_after: Duration,
    },
}

/// Where buckets are kept: in this process today ([`memory::Memory`]); one that processes share can follow.
pub trait Store: std::fmt::Debug + Send + Sync {
    /// What [`Store::charge`] would answer, charging nothing.
    fn look(&self, bucket: &Bucket<'_>, now: UnixTime) -> Verdict;

    /// Takes one request out of a bucket, if there is one.
    fn charge(&self, bucket: &Bucket<'_>, now: UnixTime) -> Verdict;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_owns_its_ipv6_network_and_one_ipv4_address() {
        let client = |text: &str| Who::client(Some(text.parse().unwrap()));
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), client("2001:db8:1:2::1"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("::ffff:192.0.2.1"), client("::ffff:192.0.2.2"), "mapped addresses are not one network");
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(Who::named("a"), Who::named("a"));
        assert_ne!(Who::named("a"), Who::named("b"));
    }
}
