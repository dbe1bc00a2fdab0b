//! One address of an upstream and how it is doing: what is at work there, what failed, whether checks pass and until when it
//! is left alone. Atomics only, since every request looks. Lives on across reloads for as long as the address is configured.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::{Backend, Ejection, Health, stable_hash};
use crate::clock::{self, UnixTime};

/// Where it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What last went wrong at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When.
    pub at: UnixTime,
    /// What.
    pub what: String,
}

/// Whether an address takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Available,
    /// It failed too often, and is left alone for a while.
    Ejected,
    /// Its checks fail.
    Unhealthy,
}

impl Standing {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Available, Self::Ejected, Self::Unhealthy];

    /// As shown and labelled.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One address.
#[derive(Debug)]
pub struct Address {
    at: At,
    backend: Backend,
    /// Places it among the others, the same in every process.
    seed: u64,
    /// What its times are counted from.
    epoch: Instant,
    in_flight: AtomicUsize,
    failures: AtomicU32,
    /// Milliseconds; and of what length the period was.
    ejected_until: AtomicU64,
    ejected_for: AtomicU64,
    healthy: AtomicBool,
    /// Checks in a row that spoke against what it is taken for.
    against: AtomicU32,
    /// Milliseconds.
    next_check: AtomicU64,
    trouble: ArcSwapOption<Trouble>,
}

impl Address {
    /// An address of which nothing is known: it is taken for good.
    pub(super) fn new(at: At, backend: Backend) -> Self {
        Self {
            seed: stable_hash(at.to_string().as_bytes()),
            at,
            backend,
            epoch: Instant::now(),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejected_for: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            against: AtomicU32::new(0),
            next_check: AtomicU64::new(0),
            trouble: ArcSwapOption::empty(),
        }
    }

    /// Where it is.
    pub fn at(&self) -> &At {
        &self.at
    }

    /// What the operator wrote.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Requests at work there.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// What last went wrong, where anything did.
    pub fn trouble(&self) -> Option<Arc<Trouble>> {
        self.trouble.load_full()
    }

    pub(super) fn is(&self, at: &At, backend: &Backend) -> bool {
        self.at == *at && self.backend == *backend
    }

    /// `checked` is whether checks count.
    pub(super) fn standing(&self, checked: bool, now: Instant) -> Standing {
        if checked && !self.healthy.load(Relaxed) {
            return Standing::Unhealthy;
        }
        if self.ejected_until.load(Relaxed) > self.millis(now) { Standing::Ejected } else { Standing::Available }
    }

    /// How much a conversation belongs here: rendezvous hashing, where the highest weight wins. Taking an address away moves
    /// its own conversations only.
    pub(super) fn weight(&self, conversation: u64) -> u64 {
        // The finalizer of SplitMix64: a plain combination would order all conversations alike.
        let mut mixed = (conversation ^ self.seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A request ended well there.
    pub(super) fn succeeded(&self, now: Instant) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
        // What happened is forgotten once it has served for as long as it was left alone.
        let period = self.ejected_for.load(Relaxed);
        if period > 0 && self.millis(now) >= self.ejected_until.load(Relaxed).saturating_add(period) {
            self.ejected_for.store(0, Relaxed);
        }
    }

    /// A request failed there. Returns for how long it is left alone, where that was one too many and there is another one
    /// (`expendable`).
    pub(super) fn failed(&self, rule: &Ejection, what: String, expendable: impl FnOnce() -> bool, now: Instant) -> Option<Duration> {
        self.note(what);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let elapsed = self.millis(now);
        if rule.failures == 0 || failures < rule.failures || self.ejected_until.load(Relaxed) > elapsed || !expendable() {
            return None;
        }
        let before = Duration::from_millis(self.ejected_for.load(Relaxed));
        let period = if before.is_zero() { rule.period } else { before.saturating_mul(2) }.min(rule.longest);
        let length = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        self.ejected_for.store(length, Relaxed);
        self.ejected_until.store(elapsed.saturating_add(length), Relaxed);
        // One more failure when it comes back is one too many.
        self.failures.store(rule.failures - 1, Relaxed);
        Some(period)
    }

    /// Whether a check is due; it is not any more once this said so.
    pub fn check_is_due(&self, rule: &Health, now: Instant) -> bool {
        let elapsed = self.millis(now);
        let next = self.next_check.load(Relaxed);
        let interval = u64::try_from(rule.interval.as_millis()).unwrap_or(u64::MAX);
        next <= elapsed && self.next_check.compare_exchange(next, elapsed.saturating_add(interval), Relaxed, Relaxed).is_ok()
    }

    /// Takes what a check said. Returns whether the address changed sides.
    pub fn checked(&self, rule: &Health, outcome: Result<(), String>) -> bool {
        let passed = outcome.is_ok();
        if let Err(what) = outcome {
            self.note(what);
        }
        if passed == self.healthy.load(Relaxed) {
            self.against.store(0, Relaxed);
            return false;
        }
        let needed = if passed { rule.healthy_after } else { rule.unhealthy_after };
        if self.against.fetch_add(1, Relaxed).saturating_add(1) < needed {
            return false;
        }
        self.against.store(0, Relaxed);
        self.healthy.store(passed, Relaxed);
        true
    }

    fn note(&self, what: String) {
        if let Ok(at) = clock::read() {
            self.trouble.store(Some(Arc::new(Trouble { at, what })));
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A request's place at an address; given back when it is dropped.
#[derive(Debug)]
pub struct Lease(Arc<Address>);

impl Lease {
    pub(super) fn new(address: Arc<Address>) -> Self {
        address.in_flight.fetch_add(1, Relaxed);
        Self(address)
    }

    /// The address.
    pub fn address(&self) -> &Arc<Address> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address::new(At::Tcp(([127, 0, 0, 1], 1).into()), Backend::Tcp { host: "127.0.0.1".to_owned(), port: 1 })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time() {
        let rule = Ejection { failures: 3, period: 10 * SECOND, longest: 30 * SECOND, statuses: Vec::new() };
        let (address, mut now) = (address(), Instant::now());
        let fail = |now| address.failed(&rule, "refused".to_owned(), || true, now);
        assert_eq!((fail(now), fail(now)), (None, None));
        address.succeeded(now);
        assert_eq!((fail(now), fail(now)), (None, None), "a success starts the count again");
        assert_eq!(fail(now), Some(10 * SECOND));
        assert_eq!(address.standing(true, now), Standing::Ejected);
        assert_eq!(fail(now), None, "it is ejected already");
        now += 10 * SECOND + SECOND / 100;
        assert_eq!(address.standing(true, now), Standing::Available);
        assert_eq!(fail(now), Some(20 * SECOND), "the first failure after it came back is one too many");
        now += 21 * SECOND;
        assert_eq!(fail(now), Some(30 * SECOND), "and no longer than the longest");
        now += 31 * SECOND;
        address.succeeded(now);
        assert_eq!((fail(now), fail(now)), (None, None));
        assert_eq!(fail(now), Some(30 * SECOND), "one success does not make up for it");
        now += 61 * SECOND;
        address.succeeded(now);
        assert_eq!((fail(now), fail(now), fail(now)), (None, None, Some(10 * SECOND)), "serving as long does");
        assert_eq!(address.trouble().unwrap().what, "refused");
    }

    #[test]
    fn the_last_one_is_not_ejected() {
        let rule = Ejection { failures: 1, period: SECOND, longest: SECOND, statuses: Vec::new() };
        let (address, now) = (address(), Instant::now());
        assert_eq!(address.failed(&rule, String::new(), || false, now), None);
        assert_eq!(address.standing(true, now), Standing::Available);
        assert_eq!(address.failed(&Ejection { failures: 0, ..rule }, String::new(), || true, now), None, "0 never ejects");
    }

    #[test]
    fn checks_in_a_row_change_sides() {
        let rule = Health { path: None, interval: SECOND, timeout: SECOND, healthy_after: 2, unhealthy_after: 3, statuses: Vec::new() };
        let (address, now) = (address(), Instant::now());
        let mut check = |passed: bool| {
            let changed = address.checked(&rule, if passed { Ok(()) } else { Err("503".to_owned()) });
            (changed, address.standing(true, now))
        };
        use Standing::{Available, Unhealthy};
        let told = [false, false, true, false, false, false, true, false, true, true].map(&mut check);
        let expected = [
            (false, Available),
            (false, Available),
            (false, Available),
            (false, Available),
            (false, Available),
            (true, Unhealthy),
            (false, Unhealthy),
            (false, Unhealthy),
            (false, Unhealthy),
            (true, Available),
        ];
        assert_eq!(told, expected);
        assert!(address.check_is_due(&rule, now) && !address.check_is_due(&rule, now) && address.check_is_due(&rule, now + 2 * SECOND));
    }

    #[test]
    fn checks_count_where_there_are_any() {
        let rule = Health { path: None, interval: SECOND, timeout: SECOND, healthy_after: 1, unhealthy_after: 1, statuses: Vec::new() };
        let (address, now) = (address(), Instant::now());
        assert!(address.checked(&rule, Err(String::new())));
        assert_eq!((address.standing(true, now), address.standing(false, now)), (Standing::Unhealthy, Standing::Available));
    }
}
