//! The end of a process as its connections see it: once it has begun, every answer says that its connection closes, connections
//! that wait for a request are let go after a moment, and streams are told. Begun once, by [`super::serve`]; looked at by
//! every connection ([`super::wire`]) and stream ([`super::stream`]), which are woken for it by [`super::connections`].

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Streams that were not told before are told this long before the end.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Whether the process drains.
#[derive(Debug, Default)]
pub(super) struct Drain(OnceLock<Begun>);

/// A drain that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// How long a connection may still wait for a request.
    pub(super) idle: Duration,
    /// From when on every stream is told, whatever it is doing.
    pub(super) last_call: Instant,
}

impl Drain {
    /// Begins it, `now`: connections may wait for a request for `idle` more, and all is over after `grace`.
    pub(super) fn begin(&self, now: Instant, idle: Duration, grace: Duration) {
        let last_call = now + grace - LAST_CALL.min(grace / 2);
        let _ = self.0.set(Begun { idle: idle.min(grace / 2), last_call }); // it begins once
    }

    /// What is known of it, once it has begun.
    pub(super) fn begun(&self) -> Option<Begun> {
        self.0.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_grace_shortens_everything() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        for (grace, idle, last_call) in [(25, 10, 23), (4, 2, 2), (2, 1, 1), (0, 0, 0)] {
            let drain = Drain::default();
            assert!(drain.begun().is_none());
            drain.begin(now, 10 * second, grace * second);
            drain.begin(now + second, second, second);
            let begun = drain.begun().unwrap();
            assert_eq!((begun.idle, begun.last_call), (idle * second, now + last_call * second), "grace {grace}");
        }
    }
}
