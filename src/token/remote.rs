//! Keys that an issuer publishes at a URL, as a tenant sees them: what was asked for, what is known of it now, and the wish
//! to ask again. Fetches nothing: [`crate::jwks`] does, in the background, and puts what it found here. A request reads it
//! without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jsonwebtoken::Algorithm;
use tokio::sync::Notify;

use super::keys::IdentityKey;
use super::public_keys::PublishedKey;
use crate::clock::UnixTime;

/// What is fetched, and whom to believe: one fetch serves every tenant that names the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// `https://…`, or `http://` on this machine.
    pub url: String,
    /// The authorities of the server's certificate as PEM; the system's where there is none.
    pub ca: Option<Arc<str>>,
}

/// One `jwks_url` of a tenant.
#[derive(Debug)]
pub struct Remote {
    /// The operator's name for it: keys are called `ID/KID`.
    pub id: String,
    /// Where from.
    pub source: Source,
    /// What keys that do not say their algorithm are for; without it they are left out.
    pub algorithm: Option<Algorithm>,
    /// Longest time between two fetches.
    pub refresh: Duration,
    /// Not used before this time.
    pub not_before: Option<UnixTime>,
    /// Not used from this time on.
    pub not_after: Option<UnixTime>,
    keys: ArcSwap<Vec<Arc<IdentityKey>>>,
    /// Milliseconds since 1970; 0 for never.
    fetched: AtomicU64,
    ask: ArcSwapOption<Ask>,
}

impl Remote {
    /// Nothing is known yet.
    pub fn new(id: impl Into<String>, source: Source, refresh: Duration) -> Self {
        Self {
            id: id.into(),
            source,
            algorithm: None,
            refresh,
            not_before: None,
            not_after: None,
            keys: ArcSwap::default(),
            fetched: AtomicU64::new(0),
            ask: ArcSwapOption::empty(),
        }
    }

    /// When the issuer last answered with a set that could be used, if it ever did.
    pub fn fetched(&self) -> Option<UnixTime> {
        Some(self.fetched.load(Ordering::Relaxed)).filter(|at| *at > 0).map(UnixTime::from_millis)
    }

    /// The keys of that answer.
    pub fn keys(&self) -> Arc<Vec<Arc<IdentityKey>>> {
        self.keys.load_full()
    }

    /// Connects it with whoever fetches.
    pub fn connect(&self, ask: &Arc<Ask>) {
        self.ask.store(Some(Arc::clone(ask)));
    }

    /// Wishes for a fetch.
    pub(super) fn ask(&self) {
        self.ask.load().iter().for_each(|ask| ask.ask());
    }

    /// Takes what was fetched, without the keys that do not say their algorithm where the configuration does not either.
    /// Counters of keys that stay go on: from its own last keys, or from `before`, those of the configuration before.
    pub(super) fn put(&self, published: &[PublishedKey], before: &[Arc<IdentityKey>], at: UnixTime) {
        let last = self.keys.load();
        let same = |kid: &str, key: &PublishedKey| {
            let fits = |old: &&Arc<IdentityKey>| old.kid.as_deref() == Some(kid) && old.fingerprint == key.key.thumbprint.fingerprint();
            last.iter().chain(before).find(fits).map(|old| Arc::clone(&old.usage))
        };
        let usable = published.iter().filter(|key| key.says_algorithm || self.algorithm == Some(key.key.algorithm));
        let made = usable.map(|key| {
            let id = format!("{}/{}", self.id, key.kid);
            let mut identity = IdentityKey::public(id, &key.key.thumbprint, key.key.decoding.clone(), key.key.algorithm);
            identity.kid = Some(key.kid.clone());
            (identity.not_before, identity.not_after) = (self.not_before, self.not_after);
            identity.usage = same(&key.kid, key).unwrap_or_default();
            Arc::new(identity)
        });
        self.keys.store(Arc::new(made.collect()));
        self.seen(at);
    }

    /// Notes that the issuer answered, with what was known already.
    pub fn seen(&self, at: UnixTime) {
        self.fetched.store(at.millis(), Ordering::Relaxed);
    }
}

/// The wish that a set be fetched again. Wishing costs one atomic read while another wish is pending, however many wish.
#[derive(Debug, Default)]
pub struct Ask {
    pending: AtomicBool,
    wake: Notify,
}

impl Ask {
    /// Wishes.
    pub fn ask(&self) {
        if !self.pending.load(Ordering::Relaxed) && !self.pending.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Waits for a wish. It stays pending until [`Ask::clear`].
    pub async fn asked(&self) {
        while !self.pending.load(Ordering::Acquire) {
            self.wake.notified().await;
        }
    }

    /// Forgets the wish: a fetch is about to start.
    pub fn clear(&self) {
        self.pending.store(false, Ordering::Release);
    }
}
