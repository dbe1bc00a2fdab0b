//! Buckets in this process: rates by the generic cell rate algorithm of `governor`, days by counting. Each process has its
//! own, so several behind one balancer let through as many times more. What is remembered survives reloads: it is keyed by
//! tenant, rule and quota.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use parking_lot::{Mutex, RwLock};

use super::cells::{Asked, Cells, MAX_KEYS};
use super::{Allowance, Bucket, Quota, Store, Verdict, Who};
use crate::clock::UnixTime;

const DAY: u64 = 24 * 3600;
/// Buckets that a day's newcomers share when there is no room.
const CROWDS: u8 = 64;

/// By tenant and rule.
type ByRule<T> = HashMap<String, HashMap<String, T>>;

/// The buckets. Rates run on a clock that nobody can set, days on the wall clock that a caller gives.
#[derive(Debug)]
pub struct Memory<C: Clock = DefaultClock> {
    clock: C,
    /// Several of one rule while a reload changes its quota.
    rates: RwLock<ByRule<Vec<Arc<Rate<C>>>>>,
    days: Mutex<ByRule<Day>>,
    keys: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Rate<C: Clock> {
    quota: Quota,
    limiter: RateLimiter<Asked, Cells, C, StateInformationMiddleware>,
}

/// What was spent on one day, counted from 1970.
#[derive(Debug, Default)]
struct Day {
    day: u64,
    spent: HashMap<Who, u64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(DefaultClock::default())
    }
}

impl<C: Clock + Clone> Memory<C> {
    /// Empty buckets, on this clock.
    pub fn new(clock: C) -> Self {
        Self { clock, rates: RwLock::default(), days: Mutex::default(), keys: Arc::default() }
    }

    /// Forgets what is as good as new: full buckets, and days that are over.
    pub fn forget(&self, now: UnixTime) {
        self.rates.write().retain(|_, rules| {
            rules.retain(|_, rates| {
                rates.retain(|rate| {
                    rate.limiter.retain_recent();
                    !rate.limiter.is_empty()
                });
                !rates.is_empty()
            });
            !rules.is_empty()
        });
        let today = now.secs() / DAY;
        self.days.lock().retain(|_, rules| {
            rules.retain(|_, day| day.day == today);
            !rules.is_empty()
        });
    }

    fn ask(&self, bucket: &Bucket<'_>, charge: bool, now: UnixTime) -> Verdict {
        match bucket.allowance {
            Allowance::Rate(quota) => self.rate(bucket, quota).ask(Asked { who: bucket.who, charge }, &self.clock),
            Allowance::Daily(cap) => self.day(bucket, cap, charge, now),
        }
    }

    fn rate(&self, bucket: &Bucket<'_>, quota: Quota) -> Arc<Rate<C>> {
        let same = |rates: &Vec<Arc<Rate<C>>>| rates.iter().find(|rate| rate.quota == quota).cloned();
        if let Some(found) = self.rates.read().get(bucket.tenant).and_then(|rules| rules.get(bucket.rule)).and_then(same) {
            return found;
        }
        let mut all = self.rates.write();
        let rates = all.entry(bucket.tenant.to_owned()).or_default().entry(bucket.rule.to_owned()).or_default();
        if let Some(found) = same(rates) {
            return found;
        }
        let made = Arc::new(Rate::new(quota, Cells::new(Arc::clone(&self.keys)), self.clock.clone()));
        rates.push(Arc::clone(&made));
        made
    }

    fn day(&self, bucket: &Bucket<'_>, cap: u64, charge: bool, now: UnixTime) -> Verdict {
        let mut days = self.days.lock();
        if !days.get(bucket.tenant).is_some_and(|rules| rules.contains_key(bucket.rule)) {
            days.entry(bucket.tenant.to_owned()).or_default().insert(bucket.rule.to_owned(), Day::default());
        }
        let Some(day) = days.get_mut(bucket.tenant).and_then(|rules| rules.get_mut(bucket.rule)) else {
            return Verdict::Refuse { retry_after: Duration::from_secs(1) }; // cannot be: it was put there
        };
        let today = now.secs() / DAY;
        if day.day != today {
            *day = Day { day: today, spent: HashMap::new() };
        }
        let midnight = Duration::from_millis((today + 1).saturating_mul(DAY * 1000).saturating_sub(now.millis()));
        let who = if day.spent.contains_key(&bucket.who) || day.spent.len() < MAX_KEYS { bucket.who } else { crowd(bucket.who) };
        let spent = day.spent.get(&who).copied().unwrap_or_default();
        if spent >= cap {
            return Verdict::Refuse { retry_after: midnight };
        }
        if charge {
            day.spent.insert(who, spent + 1);
        }
        Verdict::Admit { remaining: cap - spent - 1, reset: midnight }
    }
}

/// The same crowd all day, whoever asks: no secret is needed to share one.
fn crowd(who: Who) -> Who {
    match who {
        Who::Client(address) => match Who::named(&format!("{address:?}")) {
            Who::Named([first, ..]) => Who::Crowd(first % CROWDS),
            other => other,
        },
        Who::Named([first, ..]) => Who::Crowd(first % CROWDS),
        Who::All | Who::Crowd(_) => who,
    }
}

impl<C: Clock> Rate<C> {
    fn new(quota: Quota, cells: Cells, clock: C) -> Self {
        // An interval is never zero, so there always is such a quota; the other branch is stricter than any.
        let paced = governor::Quota::with_period(quota.interval()).unwrap_or(governor::Quota::per_hour(std::num::NonZeroU32::MIN));
        Self { quota, limiter: RateLimiter::new(paced.allow_burst(quota.burst), cells, clock) }
    }

    fn ask(&self, asked: Asked, clock: &C) -> Verdict {
        match self.limiter.check_key(&asked) {
            Ok(state) => Verdict::Admit { remaining: state.remaining_burst_capacity().into(), reset: self.quota.interval() },
            Err(until) => Verdict::Refuse { retry_after: until.wait_time_from(clock.now()) },
        }
    }
}

impl<C> Store for Memory<C>
where
    C: Clock + Clone + std::fmt::Debug + Send + Sync,
    C::Instant: Send + Sync,
{
    fn look(&self, bucket: &Bucket<'_>, now: UnixTime) -> Verdict {
        self.ask(bucket, false, now)
    }

    fn charge(&self, bucket: &Bucket<'_>, now: UnixTime) -> Verdict {
        self.ask(bucket, true, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::net::{IpAddr, Ipv4Addr};
    use std::num::NonZeroU32;

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    fn rate(requests: u32, period: u64, burst: u32) -> Allowance {
        let number = |n| NonZeroU32::new(n).unwrap();
        Allowance::Rate(Quota { requests: number(requests), period: Duration::from_secs(period), burst: number(burst) })
    }

    fn bucket(who: Who, allowance: Allowance) -> Bucket<'static> {
        Bucket { tenant: "acme", rule: "r", who, allowance }
    }

    fn client(n: u32) -> Who {
        Who::client(Some(IpAddr::V4(Ipv4Addr::from(n))))
    }

    fn admitted(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Admit { .. })
    }

    #[test]
    fn a_burst_and_then_one_per_interval() {
        let clock = FakeRelativeClock::default();
        let memory = Memory::new(clock.clone());
        let mine = bucket(client(1), rate(60, 60, 3));
        let second = Duration::from_secs(1);
        for remaining in [2, 1, 0] {
            assert_eq!(memory.look(&mine, NOW), Verdict::Admit { remaining, reset: second }, "looking is free");
            assert_eq!(memory.charge(&mine, NOW), Verdict::Admit { remaining, reset: second });
        }
        assert_eq!(memory.charge(&mine, NOW), Verdict::Refuse { retry_after: second });
        assert!(admitted(memory.charge(&bucket(client(2), rate(60, 60, 3)), NOW)), "another client");
        assert!(admitted(memory.charge(&Bucket { tenant: "globex", ..mine }, NOW)), "another tenant");
        assert!(admitted(memory.charge(&Bucket { rule: "s", ..mine }, NOW)), "another rule");
        clock.advance(Duration::from_millis(400));
        assert_eq!(memory.charge(&mine, NOW), Verdict::Refuse { retry_after: Duration::from_millis(600) });
        clock.advance(Duration::from_millis(600));
        assert!(admitted(memory.charge(&mine, NOW)));
        assert!(!admitted(memory.charge(&mine, NOW)));
    }

    #[test]
    fn what_is_full_again_is_forgotten_and_what_is_not_stays() {
        let clock = FakeRelativeClock::default();
        let memory = Memory::new(clock.clone());
        let (quick, slow) = (bucket(client(1), rate(60, 60, 1)), Bucket { rule: "slow", ..bucket(client(1), rate(1, 3600, 1)) });
        assert!(admitted(memory.charge(&quick, NOW)) && admitted(memory.charge(&slow, NOW)));
        memory.forget(NOW);
        assert!(!admitted(memory.charge(&quick, NOW)) && !admitted(memory.charge(&slow, NOW)), "both are empty still");
        clock.advance(Duration::from_secs(10));
        memory.forget(NOW);
        assert_eq!(memory.rates.read()["acme"].keys().collect::<Vec<_>>(), ["slow"]);
        assert_eq!(memory.keys.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(!admitted(memory.charge(&slow, NOW)));
    }

    #[test]
    fn a_changed_quota_starts_anew_and_the_old_one_lives_on_beside_it() {
        let memory = Memory::new(FakeRelativeClock::default());
        let (before, after) = (bucket(client(1), rate(1, 60, 1)), bucket(client(1), rate(2, 60, 1)));
        assert!(admitted(memory.charge(&before, NOW)) && admitted(memory.charge(&after, NOW)));
        assert!(!admitted(memory.charge(&before, NOW)) && !admitted(memory.charge(&after, NOW)), "requests of both snapshots in turn");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_locks_nobody_out_who_was_there() {
        let memory = Memory::new(FakeRelativeClock::default());
        let ask = |n| memory.charge(&bucket(client(n), rate(1, 60, 2)), NOW);
        assert!(admitted(ask(0)));
        let most = u32::try_from(MAX_KEYS).unwrap();
        assert!((1..most).all(|n| admitted(ask(n))));
        let late = (most..2 * most).filter(|n| admitted(ask(*n))).count();
        assert!((64..=128).contains(&late), "{late} newcomers shared 64 buckets of 2");
        let keys = memory.keys.load(std::sync::atomic::Ordering::Relaxed);
        assert!(keys <= MAX_KEYS + 64, "{keys}");
        assert!(admitted(ask(0)), "who was there has a bucket of their own");
    }

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let memory = Memory::new(FakeRelativeClock::default());
        let midnight = NOW.secs() / DAY * DAY;
        let at = |secs: u64| UnixTime::from_secs(midnight + secs);
        let mine = bucket(Who::All, Allowance::Daily(2));
        let reset = Duration::from_secs(DAY - 100);
        assert_eq!(memory.look(&mine, at(100)), Verdict::Admit { remaining: 1, reset });
        assert_eq!(memory.charge(&mine, at(100)), Verdict::Admit { remaining: 1, reset });
        assert_eq!(memory.charge(&mine, at(100)), Verdict::Admit { remaining: 0, reset });
        assert_eq!(memory.charge(&mine, at(100)), Verdict::Refuse { retry_after: reset });
        memory.forget(at(200));
        assert!(!admitted(memory.look(&mine, at(DAY - 1))), "the day is remembered");
        assert!(admitted(memory.look(&bucket(Who::All, Allowance::Daily(3)), at(100))), "a raised cap counts what was spent");
        assert!(admitted(memory.charge(&mine, at(DAY))));
    }

    #[test]
    fn a_day_of_many_addresses_is_bounded() {
        let memory = Memory::new(FakeRelativeClock::default());
        let most = u32::try_from(MAX_KEYS).unwrap();
        for n in 0..2 * most {
            memory.charge(&bucket(client(n), Allowance::Daily(1)), NOW);
        }
        assert!(memory.days.lock()["acme"]["r"].spent.len() <= MAX_KEYS + usize::from(CROWDS));
        assert!(admitted(memory.charge(&bucket(client(0), Allowance::Daily(2)), NOW)), "who was there has a count of their own");
    }
}
