//! The latest denials, for the status page: a few of each reason, so that a flood of one hides no other. Written when a
//! request is denied and never else; a denial that finds the place taken is left out rather than waited for. What is kept is
//! what the audit record says, cut short.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::plain::cut;
use crate::clock::UnixTime;
use crate::reason::Reason;

/// How many of each reason are kept.
const EACH: usize = 16;
/// Where so many are there, how often another one is taken, in milliseconds: a flood costs a look at the clock.
const PACE: u64 = 50;
/// Most bytes of any text.
const LONGEST: usize = 240;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was stopped, here or at the upstream.
    Stopped,
    /// It went on, and enforce would have stopped it.
    WouldDeny,
}

/// A denial as it happens.
#[derive(Clone, Copy, Debug)]
pub struct Event<'r> {
    /// When.
    pub at: UnixTime,
    /// What became of it.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// What exactly was wrong.
    pub detail: &'r str,
    /// Whose request.
    pub tenant: Option<&'r str>,
    /// Its method.
    pub method: &'r str,
    /// Its path, without the query.
    pub path: &'r str,
    /// Finds its audit record.
    pub request_id: &'r str,
}

/// A denial that is kept. Texts are cut, not escaped.
#[derive(Clone, Debug)]
pub struct Kept {
    /// When.
    pub at: UnixTime,
    /// What became of it.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// What exactly was wrong.
    pub detail: String,
    /// Whose request.
    pub tenant: Option<String>,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Finds its audit record.
    pub request_id: String,
}

impl Kept {
    /// Whether the other one is the same but for its time.
    pub fn is_like(&self, other: &Self) -> bool {
        let what = |kept: &Self| (kept.kind, kept.reason);
        what(self) == what(other)
            && (&self.tenant, &self.detail, &self.method, &self.path) == (&other.tenant, &other.detail, &other.method, &other.path)
    }
}

/// The rings: one of each reason, for each kind.
#[derive(Debug)]
pub struct Recent {
    stopped: Vec<Ring>,
    would_deny: Vec<Ring>,
}

type Ring = Mutex<VecDeque<Kept>>;

impl Default for Recent {
    fn default() -> Self {
        let rings = || Reason::ALL.iter().map(|_| Ring::default()).collect();
        Self { stopped: rings(), would_deny: rings() }
    }
}

impl Recent {
    /// Keeps a denial, in place of the oldest of its reason.
    pub fn note(&self, event: Event<'_>) {
        let rings = match event.kind {
            Kind::Stopped => &self.stopped,
            Kind::WouldDeny => &self.would_deny,
        };
        let Some(mut ring) = rings.get(event.reason as usize).and_then(Mutex::try_lock) else { return };
        let full = ring.len() >= EACH;
        if full && ring.back().is_some_and(|last| event.at.millis().abs_diff(last.at.millis()) < PACE) {
            return;
        }
        let oldest = if full { ring.pop_front() } else { None };
        ring.push_back(Kept {
            at: event.at,
            kind: event.kind,
            reason: event.reason,
            detail: cut(event.detail, LONGEST).to_owned(),
            tenant: event.tenant.map(|tenant| cut(tenant, LONGEST).to_owned()),
            method: cut(event.method, LONGEST).to_owned(),
            path: cut(event.path, LONGEST).to_owned(),
            request_id: cut(event.request_id, LONGEST).to_owned(),
        });
        drop(ring);
        drop(oldest); // where nobody waits
    }

    /// The newest that are kept, newest first, at most this many.
    pub fn newest(&self, most: usize) -> Vec<Kept> {
        let rings = self.stopped.iter().chain(&self.would_deny);
        let mut all: Vec<_> = rings.flat_map(|ring| ring.lock().iter().cloned().collect::<Vec<_>>()).collect();
        all.sort_by_key(|kept| std::cmp::Reverse(kept.at));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(recent: &Recent, millis: u64, reason: Reason, path: &str) {
        let at = UnixTime::from_millis(millis);
        recent.note(Event { at, kind: Kind::Stopped, reason, detail: "", tenant: None, method: "GET", path, request_id: "r" });
    }

    #[test]
    fn a_flood_of_one_reason_hides_no_other_and_takes_bounded_memory() {
        let recent = Recent::default();
        note(&recent, 1, Reason::TokenExpired, "/rare");
        let long = "x".repeat(10_000);
        for n in 0..10_000 {
            note(&recent, 2 + n, Reason::EmbedKeyMissing, &long);
        }
        let kept = recent.newest(1000);
        assert_eq!(kept.len(), 1 + EACH);
        assert_eq!(kept.last().map(|kept| kept.path.as_str()), Some("/rare"), "newest first, the rare one is there");
        assert!(kept.iter().all(|kept| kept.path.len() <= LONGEST));
        let newest = kept.first().map(|kept| kept.at.millis()).unwrap();
        assert!(newest > 10_001 - PACE, "and the flood's latest: {newest}");
        assert_eq!(recent.newest(3).len(), 3);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_close_the_ring() {
        let recent = Recent::default();
        (0..EACH as u64).for_each(|n| note(&recent, 1_000_000 + n, Reason::TokenExpired, "/before"));
        note(&recent, 1000, Reason::TokenExpired, "/after");
        assert!(recent.newest(100).iter().any(|kept| kept.path == "/after"));
    }

    #[test]
    fn what_would_be_denied_is_kept_apart() {
        let recent = Recent::default();
        let event = |kind, millis| Event {
            at: UnixTime::from_millis(millis),
            kind,
            reason: Reason::TokenMissing,
            detail: "an id without a token",
            tenant: Some("acme"),
            method: "POST",
            path: "/chat",
            request_id: "r",
        };
        recent.note(event(Kind::WouldDeny, 1));
        (0..100).for_each(|n| recent.note(event(Kind::Stopped, 1000 * n)));
        assert_eq!(recent.newest(100).iter().filter(|kept| kept.kind == Kind::WouldDeny).count(), 1);
    }
}
