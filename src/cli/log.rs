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
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::observe::audit::Journal;
use crate::observe::lines::{LostLines, Stream};

/// Lines that wait while nobody takes them. An audit record has some 600 bytes; a long path makes it 8 KiB more.
const WAITING: usize = 4096;
/// Longest that the last lines are waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Audit records that come within this time are written at once: a system call and a thread's wake-up for each would cost more
/// than making it. Other lines are few, and somebody may be looking at them.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes that are gathered at most.
const GATHERED: usize = 64 * 1024;

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
pub fn start(lost: &LostLines) -> io::Result<(Journal, LogGuards)> {
    let (audit, audit_guard) = writer(Stream::Audit, GATHER, &io::stdout(), lost)?;
    let (log, log_guard) = writer(Stream::Log, Duration::ZERO, &io::stderr(), lost)?;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,pingora=warn,pingora_core=warn,pingora_proxy=warn"));
    let log = tracing_subscriber::fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(log).with_filter(filter);
    tracing_subscriber::registry().with(log).init();
    Ok((Journal::new(audit), LogGuards(Some((audit_guard, log_guard)))))
}

fn writer(stream: Stream, gather: Duration, to: &impl AsFd, lost: &LostLines) -> io::Result<(NonBlocking, WorkerGuard)> {
    // Not through the standard library's handle: its buffer would keep a part of what could not be written.
    let file = File::from(to.as_fd().try_clone_to_owned()?);
    let failed = Arc::<AtomicU64>::default();
    let lines = Lines::new(file, stream, gather, Arc::clone(&failed));
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).finish(lines);
    let dropped = writer.error_counter();
    lost.watch(stream, move || failed.load(Ordering::Relaxed).saturating_add(dropped.dropped_lines() as u64));
    Ok((writer, guard))
}

/// Gathers lines for a moment and writes them at once, counts those that cannot be written, and never joins one to the rest of
/// another. The appender's thread flushes whenever it has caught up; while that takes its time, more lines queue up.
struct Lines<W> {
    to: W,
    stream: Stream,
    /// How long lines wait for others.
    gather: Duration,
    /// Whole lines that are still to be written.
    gathered: Vec<u8>,
    failed: Arc<AtomicU64>,
    /// The last line was lost.
    failing: bool,
    /// A part of it was written.
    torn: bool,
}

impl<W: Write> Lines<W> {
    fn new(to: W, stream: Stream, gather: Duration, failed: Arc<AtomicU64>) -> Self {
        Self { to, stream, gather, gathered: Vec::with_capacity(GATHERED), failed, failing: false, torn: false }
    }

    /// Writes what was gathered, or loses the rest of it.
    fn pass(&mut self) {
        let lines = std::mem::take(&mut self.gathered);
        match (self.put(&lines), self.failing) {
            (Ok(()), true) if !lines.is_empty() => {
                self.failing = false;
                let lost = self.failed.load(Ordering::Relaxed);
                tracing::warn!(stream = self.stream.as_str(), lost, "lines are written again; some were lost");
            }
            (Ok(()), _) => {}
            (Err((error, written)), failing) => {
                let rest = lines.get(written..).unwrap_or_default();
                self.torn |= written > 0 && lines.get(written - 1) != Some(&b'\n');
                self.failed.fetch_add(memchr::memchr_iter(b'\n', rest).count() as u64, Ordering::Relaxed);
                self.failing = true;
                if !failing {
                    tracing::error!(stream = self.stream.as_str(), %error, "lines cannot be written and are lost");
                }
            }
        }
        self.gathered = lines;
        self.gathered.clear();
    }

    /// Writes these lines.
    ///
    /// # Errors
    /// The system's, and how many bytes were written before.
    fn put(&mut self, lines: &[u8]) -> Result<(), (io::Error, usize)> {
        if self.torn && !lines.is_empty() {
            self.to.write_all(b"\n").map_err(|error| (error, 0))?;
            self.torn = false;
        }
        let mut written = 0;
        while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
            match self.to.write(rest) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
                Ok(some) => written += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((error, written)),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Lines<W> {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.gathered.len() + line.len() > GATHERED {
            self.pass();
        }
        self.gathered.extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        thread::sleep(self.gather);
        self.pass();
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
        let mut lines = Lines::new(Disk { room: 11, ..Disk::default() }, Stream::Audit, Duration::ZERO, Arc::clone(&failed));
        for line in ["{\"n\":1}\n", "{\"n\":2}\n", "{\"n\":3}\n"] {
            assert_eq!(lines.write(line.as_bytes()).unwrap(), line.len(), "nobody waits for it");
        }
        assert!(lines.to.written.is_empty(), "they are written together");
        lines.flush().unwrap();
        assert_eq!(failed.load(Ordering::Relaxed), 2);
        lines.to.room = 100;
        lines.write_all(b"{\"n\":4}\n").unwrap();
        lines.write_all(b"{\"n\":5}\n").unwrap();
        lines.flush().unwrap();
        assert_eq!(String::from_utf8(lines.to.written).unwrap(), "{\"n\":1}\n{\"n\n{\"n\":4}\n{\"n\":5}\n");
        assert_eq!(failed.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn many_lines_are_written_before_they_are_too_many() {
        let mut lines = Lines::new(Disk { room: usize::MAX, ..Disk::default() }, Stream::Audit, Duration::ZERO, Arc::default());
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..100 {
            lines.write_all(&line).unwrap();
            assert!(lines.gathered.len() <= GATHERED);
        }
        assert_eq!(lines.to.written.len(), 65_000);
        lines.write_all(&[&[b'y'; 2 * GATHERED][..], b"\n"].concat()).unwrap();
        lines.flush().unwrap();
        assert_eq!(lines.to.written.len(), 100_000 + 2 * GATHERED + 1);
    }
}
