//! One key set and everybody who reads it: fetched by one task, whoever and however many ask, and handed to each tenant that
//! names it. The last good set stays whatever happens next, until the configuration does not name it any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::fetch::{Fetched, Problem};
use super::{KeySets, schedule};
use crate::clock::{self, UnixTime};
use crate::config::KeyInUse;
use crate::observe::key_sets::Fetch;
use crate::secret::Fingerprint;
use crate::tenant::Tenant;
use crate::token::public_keys::{Published, PublishedKey};
use crate::token::remote::{Ask, Remote, Source};

/// A tenant that reads a set, and which of its remotes it is.
pub(super) type Reader = (Arc<Tenant>, usize);

/// A set.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) source: Source,
    /// The shortest that any reader wants.
    pub(super) refresh: Duration,
    /// Whether it was fetched or not, once that was tried.
    pub(super) tried: AtomicBool,
    ask: Arc<Ask>,
    shelf: Mutex<Shelf>,
}

#[derive(Clone, Debug, Default)]
struct Shelf {
    readers: Vec<Reader>,
    good: Option<Good>,
}

/// The last good set.
#[derive(Clone)]
struct Good {
    published: Arc<Published>,
    digest: [u8; 32],
    at: UnixTime,
}

impl std::fmt::Debug for Good {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.published.keys.iter().map(|key| &key.kid)).finish()
    }
}

impl Set {
    /// A set that nobody reads yet, with what is known of it from `before`.
    pub(super) fn new(source: Source, refresh: Duration, before: Option<&Self>) -> Self {
        let shelf = before.map(|before| before.shelf.lock().clone()).unwrap_or_default();
        let tried = AtomicBool::new(before.is_some_and(|before| before.tried.load(Ordering::Relaxed)));
        Self { source, refresh, tried, ask: Arc::default(), shelf: Mutex::new(shelf) }
    }

    /// Hands the last good set to these readers, and every later one, in place of those before.
    pub(super) fn read_by(&self, readers: Vec<Reader>) {
        let mut shelf = self.shelf.lock();
        for (tenant, index) in &readers {
            let Some(remote) = tenant.keys.remotes().get(*index) else { continue };
            remote.connect(&self.ask);
            if let Some(good) = &shelf.good {
                let before = shelf.readers.iter().find_map(|(old, index)| remote_of(old, *index, tenant, remote));
                let before = before.map(Remote::keys).unwrap_or_default();
                tenant.keys.put(*index, &good.published.keys, &before, good.at);
            }
        }
        shelf.readers = readers;
    }

    /// Fetches for ever.
    pub(super) async fn keep(self: Arc<Self>, sets: Arc<KeySets>) {
        let mut failures = 0;
        let mut asked: Option<Instant> = None;
        loop {
            let fetched = sets.fetch(&self.source).await;
            let wait = match fetched {
                Ok(fetched) => {
                    sets.metrics.key_sets.count(Fetch::Fetched);
                    failures = 0;
                    let wait = schedule::regular(self.refresh, fetched.max_age, rand::random());
                    self.take(fetched);
                    wait
                }
                Err(problem) => {
                    sets.metrics.key_sets.count(problem.counted());
                    failures += 1;
                    self.complain(&problem);
                    schedule::retry(self.refresh, failures, rand::random())
                }
            };
            self.tried.store(true, Ordering::Relaxed);
            let wished = async {
                self.ask.asked().await;
                if let Some(last) = asked {
                    sleep_until(last + schedule::cooldown(self.refresh)).await;
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = wished => asked = Some(Instant::now()),
            }
            // The fetch that starts now is what every wish until here was for.
            self.ask.clear();
        }
    }

    fn take(&self, fetched: Fetched) {
        // A wrong clock denies every request by itself.
        let at = clock::read().unwrap_or(UnixTime::from_millis(1));
        let mut shelf = self.shelf.lock();
        if let Some(good) = shelf.good.as_mut().filter(|good| good.digest == fetched.digest) {
            good.at = at;
            shelf.readers.iter().filter_map(|(tenant, index)| tenant.keys.remotes().get(*index)).for_each(|remote| remote.seen(at));
            return;
        }
        self.tell(shelf.good.as_ref().map(|good| &*good.published), &fetched.published);
        let good = Good { published: Arc::new(fetched.published), digest: fetched.digest, at };
        for (tenant, index) in &shelf.readers {
            hand(tenant, *index, &good);
        }
        shelf.good = Some(good);
    }

    /// Says what changed.
    fn tell(&self, before: Option<&Published>, now: &Published) {
        let (url, left_out) = (&self.source.url, now.left_out.join("; "));
        let by_kid = |set: &Published| -> BTreeMap<String, (Fingerprint, String)> {
            let one = |key: &PublishedKey| (key.kid.clone(), (key.key.thumbprint.fingerprint(), format!("{:?}", key.key.algorithm)));
            set.keys.iter().map(one).collect()
        };
        let now = by_kid(now);
        let Some(before) = before.map(by_kid) else {
            let kids: Vec<_> = now.keys().collect();
            return tracing::info!(url, ?kids, left_out, "issuer's keys fetched");
        };
        let added: Vec<_> = now.keys().filter(|kid| !before.contains_key(*kid)).collect();
        let removed: Vec<_> = before.keys().filter(|kid| !now.contains_key(*kid)).collect();
        let changed: Vec<_> = now.iter().filter(|(kid, key)| before.get(*kid).is_some_and(|old| old != *key)).map(|(kid, _)| kid).collect();
        tracing::info!(url, ?added, ?removed, ?changed, left_out, "issuer's keys changed");
    }

    fn complain(&self, problem: &Problem) {
        let url = &self.source.url;
        if self.shelf.lock().good.is_some() {
            tracing::warn!(url, %problem, "issuer's keys were not fetched; the last good ones stay");
        } else {
            tracing::warn!(url, %problem, "issuer's keys were not fetched; none is known, so its tokens are refused");
        }
    }
}

/// The remote at `index` of the tenant before, if it is what this remote was.
fn remote_of<'t>(old: &'t Tenant, index: usize, tenant: &Tenant, remote: &Remote) -> Option<&'t Remote> {
    old.keys.remotes().get(index).filter(|before| old.id == tenant.id && before.id == remote.id)
}

fn hand(tenant: &Tenant, index: usize, good: &Good) {
    let Some(remote) = tenant.keys.remotes().get(index) else { return };
    let known: Vec<_> = remote.keys().iter().map(|key| (key.id.clone(), key.fingerprint)).collect();
    if tenant.keys.put(index, &good.published.keys, &[], good.at) == 0 {
        let (tenant, id) = (&tenant.id, &remote.id);
        tracing::error!(
            tenant,
            id,
            "no key of the issuer can be used: none says its algorithm; write algorithm = \"RS256\", or what it is"
        );
    }
    for key in remote.keys().iter().filter(|key| !known.contains(&(key.id.clone(), key.fingerprint))) {
        let what = format!("jwt {:?}", key.algorithm);
        KeyInUse { tenant: Some(tenant.id.clone()), id: key.id.clone(), what, fingerprint: key.fingerprint }.log();
    }
}
