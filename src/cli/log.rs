//! Where log lines go: audit records to standard output as JSON lines, everything else to standard error. Both are written
//! by threads of their own that drop lines when a pipe is slow, a disk full or a reader gone, so that logging never stops
//! traffic, nor its end; [`crate::observe::lines`] counts what is lost.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::observe::lines::{LostLines, Stream};

/// The audit records' target.
const AUDIT: &str = "doorward::audit";
/// Lines that wait while nobody takes them. An audit record has some 600 bytes; a long path makes it 8 KiB more.
const WAITING: usize = 4096;
/// Longest that the last lines are waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Lines are written until this is dropped.
pub struct LogGuards(Option<(WorkerGuard, WorkerGuard)>);

impl Drop for LogGuards {
    /// What waits is written, if it can be: where a pipe is full and nobody reads it, the process ends all the same.
    fn drop(&mut self) {
        let guards = self.0.take();
        let (done, over) = mpsc::channel();
        let waits = thread::Builder::new().name("last-lines".to_owned()).spawn(move || {
            drop(guards);
            let _ = done.send(()); // nobody waits any more
        });
        if waits.is_ok() {
            let _ = over.recv_timeout(LAST_LINES);
        }
    }
}

/// Starts logging, and tells `lost` what is lost. `RUST_LOG` filters what goes to standard error.
///
/// # Errors
/// The system's, where standard output or error is closed.
pub fn start(lost: &LostLines) -> io::Result<LogGuards> {
    let (audit, audit_guard) = writer(Stream::Audit, &io::stdout(), lost)?;
    let (log, log_guard) = writer(Stream::Log, &io::stderr(), lost)?;
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
    Ok(LogGuards(Some((audit_guard, log_guard))))
}

fn writer(stream: Stream, to: &impl AsFd, lost: &LostLines) -> io::Result<(NonBlocking, WorkerGuard)> {
    // Not through the standard library's handle: its buffer would keep a part of what could not be written.
    let file = File::from(to.as_fd().try_clone_to_owned()?);
    let failed = Arc::<AtomicU64>::default();
    let lines = Lines { to: file, stream, failed: Arc::clone(&failed), failing: false, torn: false };
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).finish(lines);
    let dropped = writer.error_counter();
    lost.watch(stream, move || failed.load(Ordering::Relaxed).saturating_add(dropped.dropped_lines() as u64));
    Ok((writer, guard))
}

/// Writes one line at a time, counts those that cannot be written, and never joins one to the rest of another.
struct Lines<W> {
    to: W,
    stream: Stream,
    failed: Arc<AtomicU64>,
    /// The last line was lost.
    failing: bool,
    /// A part of it was written.
    torn: bool,
}

impl<W: Write> Lines<W> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.to.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(some) => {
                    rest = rest.get(some..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Lines<W> {
    /// Takes a whole line, or loses it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match (self.line(line), self.failing) {
            (Ok(()), false) => {}
            (Ok(()), true) => {
                self.failing = false;
                let lost = self.failed.load(Ordering::Relaxed);
                tracing::warn!(stream = self.stream.as_str(), lost, "lines are written again; some were lost");
            }
            (Err(error), failing) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.failing = true;
                if !failing {
                    tracing::error!(stream = self.stream.as_str(), %error, "lines cannot be written and are lost");
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for a number of bytes, and no more until it is given some.
    #[derive(Default)]
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let some = bytes.len().min(self.room);
            self.room -= some;
            self.written.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_whole_lines_and_counts_them() {
        let failed = Arc::<AtomicU64>::default();
        let to = Disk { room: 11, ..Disk::default() };
        let mut lines = Lines { to, stream: Stream::Audit, failed: Arc::clone(&failed), failing: false, torn: false };
        for line in ["{\"n\":1}\n", "{\"n\":2}\n", "{\"n\":3}\n"] {
            assert_eq!(lines.write(line.as_bytes()).unwrap(), line.len(), "nobody waits for it");
        }
        assert_eq!(failed.load(Ordering::Relaxed), 2);
        lines.to.room = 100;
        lines.write_all(b"{\"n\":4}\n").unwrap();
        lines.write_all(b"{\"n\":5}\n").unwrap();
        assert_eq!(String::from_utf8(lines.to.written).unwrap(), "{\"n\":1}\n{\"n\n{\"n\":4}\n{\"n\":5}\n");
        assert_eq!(failed.load(Ordering::Relaxed), 2);
    }
}
