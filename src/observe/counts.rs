//! What is counted for each tenant: how its requests end. Handles are made when a configuration loads, so a request touches
//! counters only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounter, IntCounterVec};

use crate::policy::Level;
use crate::reason::{Reason, Stage};

/// The label of tenants beyond `max_tenants`, and of requests whose tenant was never known.
pub const OTHER: &str = "other";
/// The tenant label of requests that were stopped before a tenant was known.
pub const UNKNOWN: &str = "unknown";

/// How a request ended, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Went upstream, with this level.
    Forwarded(Level),
    /// Stopped.
    Denied(Reason),
    /// Answered by one of our own endpoints, at this level.
    Answered(Level),
    /// A preflight that was answered.
    Preflight,
    /// Went upstream and failed there or on the way back.
    Failed(Reason, Level),
}

impl Outcome {
    /// As labelled and audited.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded(_) => "forwarded",
            Self::Denied(_) => "denied",
            Self::Answered(_) => "answered",
            Self::Preflight => "preflight",
            Self::Failed(..) => "failed",
        }
    }

    /// The reason, where there is one.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Denied(reason) | Self::Failed(reason, _) => Some(reason),
            Self::Forwarded(_) | Self::Answered(_) | Self::Preflight => None,
        }
    }
}

/// What a tenant's counters count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counted {
    /// Forwarded, at a level.
    Forwarded(Level),
    /// Answered by the gateway itself, at a level.
    Answered(Level),
    /// Preflights.
    Preflight,
    /// Denied.
    Denied(Reason),
    /// Forwarded and failed.
    Failed(Reason),
    /// Forwarded, and enforce would have denied it: counted there too.
    WouldDeny(Reason),
}

/// One tenant's counters.
#[derive(Debug)]
pub struct TenantMetrics {
    forwarded: Vec<(Level, IntCounter)>,
    answered: Vec<(Level, IntCounter)>,
    denied: HashMap<Reason, IntCounter>,
    failed: IntCounterVec,
    /// The same by reason alone: a label lookup would make the series that it asks for.
    failures: HashMap<Reason, AtomicU64>,
    label: String,
    preflight: IntCounter,
    would_deny: HashMap<Reason, IntCounter>,
}

impl TenantMetrics {
    /// The counters of a label, created at 0.
    pub(super) fn new(label: &str, requests: &IntCounterVec, would_deny: &IntCounterVec) -> Self {
        let counter = |outcome: Outcome| {
            let level = if let Outcome::Forwarded(level) | Outcome::Answered(level) = outcome { level.as_str() } else { "" };
            requests.with_label_values(&[label, outcome.as_str(), outcome.reason().map_or("", Reason::code), level])
        };
        // A counter's first value is no increase to Prometheus, so an alert would miss the first failure of a series that begins
        // with it. Those of other stages are failures of the gateway itself, and have a series once they happen.
        for reason in Reason::ALL.iter().filter(|reason| matches!(reason.row().stage, Stage::Upstream | Stage::Client)) {
            for level in Level::ALL {
                let outcome = Outcome::Failed(*reason, level);
                requests.with_label_values(&[label, outcome.as_str(), reason.code(), level.as_str()]).inc_by(0);
            }
        }
        let by_reason = |made: &dyn Fn(Reason) -> IntCounter| Reason::ALL.iter().map(|r| (*r, made(*r))).collect();
        Self {
            answered: Level::ALL.iter().map(|level| (*level, counter(Outcome::Answered(*level)))).collect(),
            forwarded: Level::ALL.iter().map(|level| (*level, counter(Outcome::Forwarded(*level)))).collect(),
            denied: by_reason(&|reason| counter(Outcome::Denied(reason))),
            preflight: counter(Outcome::Preflight),
            would_deny: by_reason(&|reason| would_deny.with_label_values(&[label, reason.code()])),
            failed: requests.clone(),
            failures: Reason::ALL.iter().map(|reason| (*reason, AtomicU64::default())).collect(),
            label: label.to_owned(),
        }
    }

    /// Counts one request.
    pub fn count(&self, outcome: Outcome, would_deny: Option<Reason>) {
        match outcome {
            Outcome::Forwarded(level) => self.forwarded.iter().filter(|(l, _)| *l == level).for_each(|(_, c)| c.inc()),
            Outcome::Denied(reason) => self.denied.get(&reason).into_iter().for_each(IntCounter::inc),
            Outcome::Answered(level) => self.answered.iter().filter(|(l, _)| *l == level).for_each(|(_, c)| c.inc()),
            Outcome::Preflight => self.preflight.inc(),
            // Rare enough for a label lookup.
            Outcome::Failed(reason, level) => {
                self.failed.with_label_values(&[&self.label, outcome.as_str(), reason.code(), level.as_str()]).inc();
                if let Some(count) = self.failures.get(&reason) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if let Some(counter) = would_deny.and_then(|reason| self.would_deny.get(&reason)) {
            counter.inc();
        }
    }

    /// The tenant's label: its id, or what it shares with others.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Requests that went upstream, whatever became of them there.
    pub fn went_on(&self) -> u64 {
        let failed: u64 = self.failures.values().map(|count| count.load(Ordering::Relaxed)).sum();
        self.forwarded.iter().map(|(_, c)| c.get()).sum::<u64>() + failed
    }

    /// Requests that enforce would have denied.
    pub fn would_have_denied(&self) -> u64 {
        self.would_deny.values().map(IntCounter::get).sum()
    }

    /// Every count that is not 0.
    pub fn each(&self, mut seen: impl FnMut(Counted, u64)) {
        let mut seen = |counted, count| {
            if count > 0 {
                seen(counted, count)
            }
        };
        self.forwarded.iter().for_each(|(level, c)| seen(Counted::Forwarded(*level), c.get()));
        self.answered.iter().for_each(|(level, c)| seen(Counted::Answered(*level), c.get()));
        seen(Counted::Preflight, self.preflight.get());
        self.denied.iter().for_each(|(reason, c)| seen(Counted::Denied(*reason), c.get()));
        self.failures.iter().for_each(|(reason, c)| seen(Counted::Failed(*reason), c.load(Ordering::Relaxed)));
        self.would_deny.iter().for_each(|(reason, c)| seen(Counted::WouldDeny(*reason), c.get()));
    }

    /// Requests forwarded, by level; requests denied; requests that enforce would have denied.
    pub fn totals(&self) -> (u64, u64, u64) {
        let forwarded = self.forwarded.iter().map(|(_, c)| c.get()).sum();
        let denied = self.denied.values().map(IntCounter::get).sum();
        let would_deny = self.would_deny.values().map(IntCounter::get).sum();
        (forwarded, denied, would_deny)
    }
}
