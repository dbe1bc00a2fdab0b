//! Where log lines go: audit records to standard output as JSON lines, everything else to standard error. Both are written
//! by threads of their own that drop lines when a pipe is slow or broken, so that logging never stops traffic.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The audit records' target.
const AUDIT: &str = "doorward::audit";

/// What comes within this time is written at once: a system call and a thread's wake-up for each line would cost more than
/// making the line.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes that are gathered at most.
const GATHERED: usize = 64 * 1024;

/// Lines are written until these are dropped.
pub struct LogGuards {
    _audit: WorkerGuard,
    _log: WorkerGuard,
}

/// Starts logging. `RUST_LOG` filters what goes to standard error.
pub fn start() -> LogGuards {
    let (audit, audit_guard) = NonBlockingBuilder::default().lossy(true).finish(Gathered::new(io::stdout()));
    let (log, log_guard) = NonBlockingBuilder::default().lossy(true).finish(Gathered::new(io::stderr()));
    let audit = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_level(false)
        .with_writer(audit)
        .with_filter(filter_fn(|m| m.target() == AUDIT));
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,pingora=warn,pingora_core=warn,pingora_proxy=warn"));
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(log)
        .with_filter(filter_fn(|m| m.target() != AUDIT))
        .with_filter(filter);
    tracing_subscriber::registry().with(audit).with(log).init();
    LogGuards { _audit: audit_guard, _log: log_guard }
}

/// Lines that wait a moment for others. The appender's thread flushes whenever it has caught up; while that takes its time,
/// lines queue up. A line that finds no room because nothing can be written is dropped whole, never torn.
struct Gathered<W: Write>(BufWriter<W>);

impl<W: Write> Gathered<W> {
    fn new(to: W) -> Self {
        Self(BufWriter::with_capacity(GATHERED, to))
    }
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        thread::sleep(GATHER);
        self.0.flush()
    }
}
