//! How long a client may take: a deadline for each whole head, and a least rate for a body that is waited for (`threats`
//! 30). Runs inside the connection's own reads, as [`super::ending`] does. Only the client's own time counts: while nobody
//! reads, because the upstream is slow, nothing does. What follows an upgrade is not timed.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::snapshot::ServerLimits;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A head, of which there may be a beginning.
    Head { begun: bool },
    /// A body.
    Body,
    /// Nothing that is timed.
    Other,
}

/// Whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Slow {
    Head,
    Body,
}

/// One connection's times.
#[derive(Debug)]
pub(super) struct Pace {
    limits: ServerLimits,
    /// No request came yet: even the first byte is waited for no longer than a head.
    fresh: bool,
    /// A request is being served: what comes of the next one's head may wait.
    busy: bool,
    head_due: Option<Instant>,
    /// The process drains: when a connection without a request is let go.
    leave_due: Option<Instant>,
    body: Body,
    alarm: Option<Pin<Box<Sleep>>>,
    slow: Option<Slow>,
}

/// What came of a body in the window, and how long it was waited for.
#[derive(Debug, Default)]
struct Body {
    bytes: u64,
    waited: Duration,
    /// Since when nothing came.
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limits: ServerLimits) -> Self {
        Self { limits, fresh: true, busy: false, head_due: None, leave_due: None, body: Body::default(), alarm: None, slow: None }
    }

    /// A whole head came, and its request is served.
    pub(super) fn begin(&mut self) {
        (self.fresh, self.busy, self.head_due, self.leave_due) = (false, true, None, None);
        self.body = Body::default();
    }

    /// The request is over.
    pub(super) fn end(&mut self) {
        self.busy = false;
    }

    /// Who was too slow, once somebody was.
    pub(super) fn slow(&self) -> Option<Slow> {
        self.slow
    }

    /// Nothing has come: whether that is too long, now or, by an alarm, later.
    pub(super) fn waits(&mut self, cx: &mut Context<'_>, awaited: Awaited) -> Option<Slow> {
        let now = Instant::now();
        let awaited = match awaited {
            // Between requests it is a head, whatever came of it so far.
            Awaited::Other if !self.busy => Awaited::Head { begun: true },
            awaited => awaited,
        };
        let next = match awaited {
            Awaited::Head { begun } if !self.busy && (begun || self.fresh) => {
                let due = *self.head_due.get_or_insert(now + self.limits.header_timeout);
                if now >= due {
                    self.slow = Some(Slow::Head);
                }
                due
            }
            Awaited::Body if self.limits.body_min_rate > 0 => {
                if self.body.waits(now, &self.limits) {
                    self.slow = Some(Slow::Body);
                }
                now + tick(&self.limits)
            }
            Awaited::Head { .. } | Awaited::Body | Awaited::Other => return None,
        };
        if self.slow.is_none() {
            self.wake_at(cx, next);
        }
        self.slow
    }

    /// Nothing has come and the process drains: whether the connection has waited for a request for `idle` since, now or, by an
    /// alarm, later. Its client may be sending one at this very moment, so it is not let go at once.
    pub(super) fn leaves(&mut self, cx: &mut Context<'_>, awaited: Awaited, idle: Duration) -> bool {
        if self.busy || awaited != (Awaited::Head { begun: false }) {
            return false;
        }
        let now = Instant::now();
        let due = *self.leave_due.get_or_insert(now + idle);
        if now < due {
            self.wake_at(cx, self.head_due.map_or(due, |head| head.min(due)));
        }
        now >= due
    }

    /// Bytes came, and this is what was waited for.
    pub(super) fn comes(&mut self, awaited: Awaited, bytes: usize) {
        if awaited == Awaited::Body {
            self.body.comes(Instant::now(), bytes, &self.limits);
        }
    }

    fn wake_at(&mut self, cx: &mut Context<'_>, at: Instant) {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if alarm.deadline() != at {
            alarm.as_mut().reset(at);
        }
        if alarm.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref(); // it is that time already
        }
    }
}

impl Body {
    /// Nothing is there now, so nothing came since it was last looked: says whether that is too little. Judges a window
    /// that is over, and begins the next.
    fn waits(&mut self, now: Instant, limits: &ServerLimits) -> bool {
        self.waited += self.since.replace(now).map_or(Duration::ZERO, |since| now - since);
        if self.waited < limits.body_rate_window {
            return false;
        }
        let wanted = limits.body_min_rate as f64 * self.waited.as_secs_f64();
        let slow = (self.bytes as f64) < wanted;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        slow
    }

    /// Bytes were there. They may have lain there while nobody read: no more than a tick of that is the client's.
    fn comes(&mut self, now: Instant, bytes: usize, limits: &ServerLimits) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited += self.since.take().map_or(Duration::ZERO, |since| (now - since).min(tick(limits)));
    }
}

/// How often a wait is looked at: a client that sends a byte now and then is seen between two of them.
fn tick(limits: &ServerLimits) -> Duration {
    limits.body_rate_window / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ServerLimits = ServerLimits {
        header_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(60),
        keepalive_requests: 1000,
        body_min_rate: 1024,
        body_rate_window: Duration::from_secs(10),
        send_timeout: Duration::from_secs(60),
        max_connections: 1,
        max_connections_per_client: 1,
        max_in_flight: 1,
    };

    /// When a client is cut off that sends `bytes` every `every` milliseconds, read by one who looks at every tick and
    /// whenever bytes come; `None` if it lasts for ten minutes.
    fn lasts(bytes: usize, every: u64) -> Option<u64> {
        let start = Instant::now();
        let mut body = Body::default();
        (1..600_000).find(|ms| {
            let now = start + Duration::from_millis(*ms);
            if ms % every == 0 {
                body.comes(now, bytes, &LIMITS);
            }
            (ms % every == 0 || ms % 1000 == 0) && body.waits(now, &LIMITS)
        })
    }

    #[test]
    fn a_body_has_a_least_rate_however_it_is_cut_up() {
        for (bytes, every) in [(0, 999_999), (1, 5000), (1, 900), (1, 20), (1023, 1000), (500, 500), (100, 100), (9000, 10_000)] {
            let lasted = lasts(bytes, every).unwrap_or_else(|| panic!("{bytes} bytes every {every} ms live for ever"));
            assert!((10_000..=21_000).contains(&lasted), "{bytes} bytes every {every} ms last {lasted} ms");
        }
        for (bytes, every) in [(1024, 1000), (600, 500), (21, 20), (11_000, 10_000), (5200, 5000)] {
            assert_eq!(lasts(bytes, every), None, "{bytes} bytes every {every} ms");
        }
    }

    #[test]
    fn time_in_which_nobody_reads_is_not_the_clients() {
        let start = Instant::now();
        let mut body = Body::default();
        for minute in 0..100 {
            let looked = start + Duration::from_secs(60 * minute);
            assert!(!body.waits(looked, &LIMITS), "in minute {minute}");
            // The upstream was slow: the piece, which came at once, is read after a while.
            body.comes(looked + Duration::from_secs(50), 2048, &LIMITS);
        }
    }
}
