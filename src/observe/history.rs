//! What the counters did in the last hour, minute by minute. Looked at every few seconds and when somebody asks, beside the
//! requests and never by them: a request only counts. Knows counts and how long something was watched, nothing of requests.
//!
//! Time is how long the process runs, which nobody can set. The counters start at 0 with it, so the first look misses
//! nothing. Memory is a slot a minute for each count that moved in the hour; labels are bounded by `metrics.max_tenants`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::metrics::{Counted, Metrics};
use crate::policy::Mode;
use crate::secret::Fingerprint;
use crate::tenant::Tenants;

/// Minutes that are kept, the running one included.
pub const MINUTES: usize = 60;

/// The last hour.
#[derive(Debug, Default)]
pub struct History {
    labels: HashMap<String, Label>,
    /// The running minute.
    minute: u64,
    now: Duration,
    modes: HashMap<String, Watched>,
    secrets: HashMap<(String, String, Fingerprint), Duration>,
}

#[derive(Debug, Default)]
struct Label {
    seen: HashMap<Counted, u64>,
    minutes: HashMap<Counted, [u32; MINUTES]>,
}

/// Since when a tenant has its mode, and what had been counted by then.
#[derive(Clone, Copy, Debug)]
struct Watched {
    mode: Mode,
    since: Duration,
    forwarded: u64,
    would_deny: u64,
}

/// What a tenant did since it has its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinceMode {
    /// How long that is.
    pub watched: Duration,
    /// Requests that went upstream.
    pub forwarded: u64,
    /// Of them, those that enforce would have denied.
    pub would_deny: u64,
}

/// Counts of one minute. What would be denied and then failed counts in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Forwarded or answered, and not one of the next.
    pub passed: u64,
    /// Forwarded, and enforce would have denied it.
    pub would_deny: u64,
    /// Denied.
    pub denied: u64,
    /// Forwarded and failed.
    pub failed: u64,
}

impl Minute {
    /// All of them.
    pub fn total(self) -> u64 {
        self.passed + self.would_deny + self.denied + self.failed
    }
}

impl History {
    /// Looks at the counters. `running` is how long the process has run.
    pub fn look(&mut self, metrics: &Metrics, tenants: &Tenants, running: Duration) {
        self.now = self.now.max(running);
        self.turn(self.now.as_secs() / 60);
        let slot = slot_of(self.minute);
        for counters in metrics.all() {
            let label = match self.labels.get_mut(counters.label()) {
                Some(label) => label,
                None => self.labels.entry(counters.label().to_owned()).or_default(),
            };
            counters.each(|counted, count| {
                let before = label.seen.insert(counted, count).unwrap_or_default();
                let more = u32::try_from(count.saturating_sub(before)).unwrap_or(u32::MAX);
                if more > 0
                    && let Some(minute) = label.minutes.entry(counted).or_insert([0; MINUTES]).get_mut(slot)
                {
                    *minute = minute.saturating_add(more);
                }
            });
        }
        self.watch(metrics, tenants);
    }

    /// What is gone is forgotten; what is new, or has another mode, is watched from now on.
    fn watch(&mut self, metrics: &Metrics, tenants: &Tenants) {
        let (mut modes, mut secrets) = (HashMap::new(), HashMap::new());
        for tenant in tenants.all() {
            let before = self.modes.get(&tenant.id).filter(|watched| watched.mode == tenant.mode);
            let watched = before.copied().unwrap_or_else(|| {
                let counters = metrics.tenant(Some(&tenant.id));
                Watched { mode: tenant.mode, since: self.now, forwarded: counters.went_on(), would_deny: counters.would_have_denied() }
            });
            modes.insert(tenant.id.clone(), watched);
            for key in tenant.keys.all().iter() {
                let name = (tenant.id.clone(), key.id.clone(), key.fingerprint);
                let since = self.secrets.get(&name).copied().unwrap_or(self.now);
                secrets.insert(name, since);
            }
        }
        (self.modes, self.secrets) = (modes, secrets);
    }

    /// The running minute is another one: forgets those that are too old.
    fn turn(&mut self, minute: u64) {
        let passed = minute.saturating_sub(self.minute).min(MINUTES as u64);
        let old: HashSet<usize> = (0..passed).map(|back| slot_of(minute - back)).collect();
        self.minute = minute;
        for label in self.labels.values_mut() {
            label.minutes.retain(|_, minutes| {
                minutes.iter_mut().enumerate().filter(|(slot, _)| old.contains(slot)).for_each(|(_, count)| *count = 0);
                minutes.iter().any(|count| *count > 0)
            });
        }
    }

    /// How much of the hour was watched.
    pub fn covered(&self) -> Duration {
        self.now.min(Duration::from_secs(60 * MINUTES as u64))
    }

    /// Counts of the last hour: a label's, or everybody's.
    pub fn counts(&self, label: Option<&str>) -> BTreeMap<Counted, u64> {
        let mut counts = BTreeMap::new();
        let wanted = self.labels.iter().filter(|(name, _)| label.is_none_or(|label| label == *name));
        for (counted, minutes) in wanted.flat_map(|(_, label)| &label.minutes) {
            *counts.entry(*counted).or_default() += minutes.iter().copied().map(u64::from).sum::<u64>();
        }
        counts
    }

    /// Everybody's minutes, oldest first; the last is the running one.
    pub fn minutes(&self) -> Vec<Minute> {
        let mut minutes = vec![Minute::default(); MINUTES];
        let of_label = self.labels.values().flat_map(|label| &label.minutes);
        for (counted, counts) in of_label {
            for (back, minute) in minutes.iter_mut().rev().enumerate() {
                let Some(at) = self.minute.checked_sub(back as u64) else { break };
                minute.add(*counted, counts.get(slot_of(at)).copied().unwrap_or_default().into());
            }
        }
        minutes.iter_mut().for_each(|minute| minute.passed = minute.passed.saturating_sub(minute.would_deny));
        minutes
    }

    /// What a tenant did since it has its mode.
    pub fn since_mode(&self, metrics: &Metrics, tenant: &str) -> Option<SinceMode> {
        let watched = self.modes.get(tenant)?;
        let counters = metrics.tenant(Some(tenant));
        Some(SinceMode {
            watched: self.now.saturating_sub(watched.since),
            forwarded: counters.went_on().saturating_sub(watched.forwarded),
            would_deny: counters.would_have_denied().saturating_sub(watched.would_deny),
        })
    }

    /// For how long a secret was watched.
    pub fn secret_watched(&self, tenant: &str, id: &str, fingerprint: Fingerprint) -> Duration {
        let since = self.secrets.get(&(tenant.to_owned(), id.to_owned(), fingerprint));
        since.map_or(Duration::ZERO, |since| self.now.saturating_sub(*since))
    }
}

impl Minute {
    fn add(&mut self, counted: Counted, count: u64) {
        match counted {
            Counted::Forwarded(_) | Counted::Answered(_) | Counted::Preflight => self.passed += count,
            Counted::Denied(_) => self.denied += count,
            Counted::Failed(_) => self.failed += count,
            Counted::WouldDeny(_) => self.would_deny += count,
        }
    }
}

fn slot_of(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Outcome;
    use crate::policy::Level;
    use crate::reason::Reason;

    const NOBODY: &str = crate::observe::metrics::UNKNOWN;

    fn at(history: &mut History, metrics: &Metrics, minutes: u64) {
        history.look(metrics, &Tenants::default(), Duration::from_secs(60 * minutes));
    }

    #[test]
    fn counts_are_those_of_the_hour_and_then_forgotten() {
        let (metrics, mut history) = (Metrics::new().unwrap(), History::default());
        let nobody = metrics.tenant(None);
        at(&mut history, &metrics, 0);
        assert!(history.counts(None).is_empty());
        let missing = Counted::Denied(Reason::EmbedKeyMissing);
        for (minute, more, wanted) in [(0, 2, 2), (1, 1, 3), (59, 4, 7), (60, 0, 5), (61, 0, 4), (118, 0, 4), (119, 0, 0), (500, 1, 1)] {
            (0..more).for_each(|_| nobody.count(Outcome::Denied(Reason::EmbedKeyMissing), None));
            at(&mut history, &metrics, minute);
            at(&mut history, &metrics, minute);
            assert_eq!(history.counts(None).get(&missing).copied().unwrap_or_default(), wanted, "at {minute}");
            assert_eq!(history.counts(Some(NOBODY)), history.counts(None));
            assert!(history.counts(Some("acme")).is_empty());
            let minutes = history.minutes();
            assert_eq!(minutes.len(), MINUTES);
            assert_eq!(minutes.iter().map(|minute| minute.total()).sum::<u64>(), wanted);
            assert_eq!(minutes.last().map(|minute| minute.denied), Some(more), "the running minute is the last");
        }
        assert_eq!(history.covered(), Duration::from_secs(3600));
    }

    #[test]
    fn a_minute_tells_what_passed_from_what_would_not() {
        let (metrics, mut history) = (Metrics::new().unwrap(), History::default());
        let nobody = metrics.tenant(None);
        nobody.count(Outcome::Forwarded(Level::Verified), None);
        nobody.count(Outcome::Forwarded(Level::Anonymous), Some(Reason::TokenMissing));
        nobody.count(Outcome::Preflight, None);
        nobody.count(Outcome::Failed(Reason::UpstreamTimeout, Level::Verified), None);
        nobody.count(Outcome::Denied(Reason::OriginNotAllowed), None);
        at(&mut history, &metrics, 3);
        let minute = *history.minutes().last().unwrap();
        assert_eq!(minute, Minute { passed: 2, would_deny: 1, denied: 1, failed: 1 });
        assert_eq!(history.counts(None).get(&Counted::Failed(Reason::UpstreamTimeout)), Some(&1));
    }

    #[test]
    fn time_never_goes_back() {
        let (metrics, mut history) = (Metrics::new().unwrap(), History::default());
        at(&mut history, &metrics, 10);
        metrics.tenant(None).count(Outcome::Preflight, None);
        at(&mut history, &metrics, 9);
        assert_eq!(history.minutes().last().map(|minute| minute.passed), Some(1));
    }
}
