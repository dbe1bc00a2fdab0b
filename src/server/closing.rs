//! Stops new connections without losing those that are on their way. Closing a listening socket resets what waits in its queue,
//! so the queue is emptied first; and so that nothing follows while it is, the system is told to take no more: on TCP a
//! filter lets no new SYN in (its client asks again after a second, and is refused, or meets the next process), and a Unix
//! socket's path goes. Sockets that another process goes on with are left alone.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::listeners::Held;

/// A queue that stays empty for this long stays empty: longer than most handshakes need to end.
const QUIET: Duration = Duration::from_millis(200);
/// Longest wait for that: the second after which a client asks again.
const LONGEST: Duration = Duration::from_millis(900);
/// How often queues are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Lets no more connections come to these sockets, and returns when those that had come are accepted.
pub(super) async fn close(sockets: &[&Held]) {
    for held in sockets {
        match &held.file {
            Some(file) => file.remove(),
            None => refuse_handshakes(held.socket.as_fd()),
        }
    }
    let start = Instant::now();
    let mut quiet_since = start;
    while start.elapsed() < LONGEST && quiet_since.elapsed() < QUIET && !sockets.is_empty() {
        tokio::time::sleep(LOOK).await;
        if sockets.iter().any(|held| waits(held.socket.as_fd())) {
            quiet_since = Instant::now();
        }
    }
}

impl super::listeners::File {
    /// Removes the socket's file, unless it is another one by now.
    pub(super) fn remove(&self) {
        use std::os::unix::fs::MetadataExt as _;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "the socket stays behind");
        }
    }
}

/// Whether a connection waits to be accepted.
fn waits(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Classic BPF on the TCP header: `SYN` without `ACK` is dropped, all else passes.
#[cfg(target_os = "linux")]
fn refuse_handshakes(socket: BorrowedFd<'_>) {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const FLAGS: u32 = 13; // RFC 9293 §3.1
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = socket2::SockRef::from(&socket).attach_filter(&filter) {
        tracing::debug!(%error, "connections may still come while the listener closes");
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_: BorrowedFd<'_>) {}
