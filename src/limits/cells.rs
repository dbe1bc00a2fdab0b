//! The state of one rate limit: for each key, when its bucket will be full again. Bounded: beyond a number of keys,
//! newcomers share a few buckets among them, so that a flood of addresses costs no memory and locks nobody out who was
//! there before (`threats` 31). Used by [`super::memory`] only.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use parking_lot::Mutex;

use super::Who;

const SHARDS: usize = 16;
/// Buckets that newcomers share when there is no room.
const CROWDS: u64 = 64;
/// Most keys of one rule.
pub(super) const MAX_KEYS: usize = 65_536;
/// Most keys of all rules: some 30 MB.
const MAX_KEYS_IN_ALL: usize = 500_000;

/// Who asks, and whether the answer is to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) who: Who,
    pub(super) charge: bool,
}

/// The times by key.
#[derive(Debug)]
pub(super) struct Cells {
    shards: [Mutex<HashMap<Who, Nanos>>; SHARDS],
    hasher: RandomState,
    keys: AtomicUsize,
    /// Keys of all rules.
    in_all: Arc<AtomicUsize>,
}

impl Cells {
    pub(super) fn new(in_all: Arc<AtomicUsize>) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), keys: AtomicUsize::new(0), in_all }
    }

    fn has_room(&self) -> bool {
        self.keys.load(Ordering::Relaxed) < MAX_KEYS && self.in_all.load(Ordering::Relaxed) < MAX_KEYS_IN_ALL
    }

    fn with<T>(&self, who: &Who, work: impl FnOnce(&mut HashMap<Who, Nanos>) -> T) -> Option<T> {
        let index = usize::try_from(self.hasher.hash_one(who) % SHARDS as u64).unwrap_or_default();
        self.shards.get(index).map(|shard| work(&mut shard.lock()))
    }

    fn measure<T, E>(
        &self,
        shard: &mut HashMap<Who, Nanos>,
        asked: Asked,
        f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let (answer, full_at) = f(shard.get(&asked.who).copied())?;
        if asked.charge && shard.insert(asked.who, full_at).is_none() {
            self.keys.fetch_add(1, Ordering::Relaxed);
            self.in_all.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }
}

impl StateStore for Cells {
    type Key = Asked;

    fn measure_and_replace<T, F, E>(&self, asked: &Asked, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let own = |shard: &mut HashMap<Who, Nanos>| {
            let welcome = shard.contains_key(&asked.who) || self.has_room();
            welcome.then(|| self.measure(shard, *asked, &f))
        };
        if let Some(answer) = self.with(&asked.who, own).flatten() {
            return answer;
        }
        let crowd = u8::try_from(self.hasher.hash_one(asked.who) % CROWDS).unwrap_or_default();
        let crowded = Asked { who: Who::Crowd(crowd), charge: asked.charge };
        match self.with(&crowded.who, |shard| self.measure(shard, crowded, &f)) {
            Some(answer) => answer,
            None => f(None).map(|(answer, _)| answer), // no such shard: cannot be
        }
    }
}

impl ShrinkableKeyedStateStore<Asked> for Cells {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, full_at| *full_at > drop_below);
            if shard.capacity() > 4 * shard.len().max(64) {
                shard.shrink_to_fit();
            }
            let dropped = before - shard.len();
            self.keys.fetch_sub(dropped, Ordering::Relaxed);
            self.in_all.fetch_sub(dropped, Ordering::Relaxed);
        }
    }

    fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
