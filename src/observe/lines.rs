//! Log lines and audit records that could not be written: counted, since nobody else would tell. A full disk or a broken pipe
//! never stops a request; what is lost, is lost. Read whenever metrics are; fed by what writes the lines.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Audit records, to standard output.
    Audit,
    /// Everything else, to standard error.
    Log,
}

impl Stream {
    /// As labelled.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Log => "log",
        }
    }
}

type Count = Box<dyn Fn() -> u64 + Send + Sync>;

/// Lines that were lost, by where they should have gone.
#[derive(Clone)]
pub struct LostLines {
    counters: IntCounterVec,
    sources: Arc<Mutex<Vec<(IntCounter, Count)>>>,
}

impl LostLines {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new("doorward_log_lines_lost_total", "Log lines and audit records that could not be written, by stream.");
        let counters = IntCounterVec::new(opts, &["stream"])?;
        for stream in [Stream::Audit, Stream::Log] {
            counters.with_label_values(&[stream.as_str()]).inc_by(0);
        }
        let lost = Self { counters, sources: Arc::default() };
        registry.register(Box::new(lost.clone()))?;
        Ok(lost)
    }

    /// From now on, this many lines of a stream were lost; `count` never falls.
    pub fn watch(&self, stream: Stream, count: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = self.counters.with_label_values(&[stream.as_str()]);
        self.sources.lock().push((counter, Box::new(count)));
    }
}

impl Collector for LostLines {
    fn desc(&self) -> Vec<&Desc> {
        self.counters.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (counter, count) in self.sources.lock().iter() {
            counter.inc_by(count().saturating_sub(counter.get()));
        }
        self.counters.collect()
    }
}

impl fmt::Debug for LostLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostLines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn what_is_lost_is_counted_when_it_is_read() {
        let registry = Registry::new();
        let (lost, count) = (LostLines::new(&registry).unwrap(), Arc::new(AtomicU64::new(3)));
        let of = |stream: Stream| lost.counters.with_label_values(&[stream.as_str()]).get();
        let seen = Arc::clone(&count);
        lost.watch(Stream::Audit, move || seen.load(Ordering::Relaxed));
        for expected in [3, 5, 5] {
            count.store(expected, Ordering::Relaxed);
            assert_eq!(registry.gather().len(), 1);
            assert_eq!((of(Stream::Audit), of(Stream::Log)), (expected, 0));
        }
    }
}
