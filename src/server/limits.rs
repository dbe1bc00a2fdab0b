//! Requests at once: beyond a number the gateway sheds instead of slowing down for everybody. And the file descriptors that
//! all of its connections need, asked of the system at start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside three for each connection: listeners, files, the runtime's own.
const OTHERS: u64 = 100;

/// The places of requests at work.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<AtomicUsize>);

impl Places {
    /// A place, if fewer than `most` are taken; it is given back when it is dropped.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.ok().map(|_| Place(Arc::clone(&self.0)))
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

/// Raises the soft limit of file descriptors to the hard one, and warns where connections could exceed it: each has one to
/// its client and may have two for the upstream, the connection's and the one by which it is ended in time.
pub(super) fn raise_descriptors(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the soft limit of file descriptors stays as it was");
    }
    let needed = (max_connections as u64).saturating_mul(3).saturating_add(OTHERS);
    if let Some(most) = getrlimit(Resource::Nofile).current.filter(|most| *most < needed) {
        tracing::warn!(
            limit = most,
            needed,
            "fewer file descriptors than max_connections may need: raise the hard limit (ulimit -Hn, LimitNOFILE) or lower max_connections"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Places::default();
        let (first, second) = (places.take(2), places.take(2));
        assert!(first.is_some() && second.is_some() && places.take(2).is_none());
        drop(first);
        assert!(places.take(2).is_some(), "and at once given back");
        assert!(places.take(1).is_none(), "a lowered limit counts those that are there");
        drop(second);
        assert!(places.take(1).is_some());
    }
}
