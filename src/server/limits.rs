//! Requests at once: beyond a number the gateway sheds instead of slowing down for everybody. And the file descriptors that
//! all of its connections need, asked of the system at start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of connections: listeners, files, the admin listener's clients.
const OTHERS: u64 = 80;
/// Descriptors of each worker thread.
const PER_THREAD: u64 = 4;
/// Descriptors of a connection and its request: one to the client, two for the upstream's connection, of which one is to end it
/// in time.
const EACH: u64 = 3;

/// The places of requests at work.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    /// There are never more, whatever is configured.
    most: usize,
}

impl Places {
    /// As many places as there are descriptors for.
    pub(super) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// A place, if fewer than `most` are taken; it is given back when it is dropped.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let most = most.min(self.most);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.ok().map(|_| Place(Arc::clone(&self.taken)))
    }
}

/// One request's place.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Raises the soft limit of file descriptors to the hard one, and says how many connections, and how many requests at once, it
/// allows. More would find none left, and then neither a connection to an upstream nor a file could be opened. Warns where fewer
/// are allowed than configured.
pub(super) fn raise_descriptors(max_connections: usize, threads: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the soft limit of file descriptors stays as it was");
    }
    let others = OTHERS.saturating_add(PER_THREAD.saturating_mul(threads as u64));
    let needed = (max_connections as u64).saturating_mul(EACH).saturating_add(others);
    let Some(limit) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    let allowed = usize::try_from((limit.saturating_sub(others) / EACH).max(1)).unwrap_or(usize::MAX);
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            allowed,
            "fewer file descriptors than max_connections may need, so fewer connections are let in: raise the hard limit (ulimit -Hn, LimitNOFILE) or lower max_connections"
        );
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Places::new(2);
        let (first, second) = (places.take(2), places.take(2));
        assert!(first.is_some() && second.is_some() && places.take(2).is_none() && places.take(3).is_none());
        drop(first);
        assert!(places.take(2).is_some(), "and at once given back");
        assert!(places.take(1).is_none(), "a lowered limit counts those that are there");
        drop(second);
        assert!(places.take(1).is_some());
    }
}
