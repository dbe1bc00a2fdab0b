//! Hands the listening sockets of a running process to the one that follows it, so that no connection is refused between the
//! two. The running process offers them on a Unix socket; the next one connects, is sent them (SCM_RIGHTS) with their names,
//! gets itself ready, and says which it took. Only then the first one stops accepting. Whatever goes wrong before that moment
//! ends the next process alone.
//!
//! Nobody else may have these sockets: the directory is closed to others, and each side looks at the other's user id.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, Interest};

use super::inherited::Taken;
use super::listeners::{Held, Role, unix};

/// Longest that the next process may take to get ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for an answer of the running one.
const ANSWER: Duration = Duration::from_secs(10);
/// Most sockets in one message (`SCM_MAX_FD` of Linux).
const MOST: usize = 253;
/// Longest line of the conversation, in bytes.
const LONGEST: u64 = 256 * 1024;
/// Who may connect: the process's own user.
const MODE: u32 = 0o600;

/// Which socket it is: what the configuration calls it, so that port 0 is found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) role: Role,
    pub(super) place: String,
    pub(super) nth: usize,
}

/// What the running process says, in one line, with the sockets.
#[derive(Debug, Serialize, Deserialize)]
struct Offered {
    sockets: Vec<OfferedSocket>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OfferedSocket {
    name: Name,
    kept: bool,
}

/// What the next process answers once it is ready: the numbers of those that it took.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    took: Vec<usize>,
}

/// What the running process says last: it accepts no more.
const YOURS: &str = "yours";

/// The upgrade socket of this process.
#[derive(Debug)]
pub(super) struct Offer {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    /// Which file it is: the next process puts its own there.
    inode: u64,
}

/// The process that follows this one.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) pid: u32,
    /// The numbers of the sockets that it took.
    pub(super) took: Vec<usize>,
}

impl Offer {
    /// Listens at `path`. One that was there is replaced: the running process's, whose sockets this one has.
    ///
    /// # Errors
    /// The system's, or what is wrong with the directory.
    pub(super) fn bind(path: &Path, replace: bool) -> io::Result<Self> {
        closed_directory(path)?;
        let listener = unix(path, MODE, replace)?;
        let inode = fs::symlink_metadata(path)?.ino();
        Ok(Self { listener: tokio::net::UnixListener::from_std(listener)?, path: path.to_owned(), inode })
    }

    /// Waits until another process has taken the sockets and is ready to serve.
    pub(super) async fn taken(&self, sockets: &[Held]) -> Successor {
        loop {
            let conversation = match self.listener.accept().await {
                Ok((stream, _)) => tokio::time::timeout(PATIENCE, hand_over(stream, sockets)).await,
                Err(error) => Ok(Err(error)),
            };
            match conversation {
                Ok(Ok(successor)) => return successor,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "another process asked for the sockets and did not get ready: this one goes on");
                    tokio::time::sleep(Duration::from_millis(10)).await; // an accept that keeps failing
                }
                Err(_) => tracing::warn!("another process asked for the sockets and took too long: this one goes on"),
            }
        }
    }
}

impl Offer {
    /// The path is the next process's from now on.
    pub(super) fn leave(mut self) {
        self.inode = 0;
    }
}

impl Drop for Offer {
    /// Nobody is there any more.
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the directory where it is missing, and refuses one in which others can put a socket, or see one.
fn closed_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = DirBuilder::new().mode(0o700).create(directory)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(io::Error::new(error.kind(), format!("its directory cannot be made: {error}")));
    }
    let found = fs::metadata(directory)?;
    let mode = found.permissions().mode() & 0o777;
    if found.uid() != rustix::process::geteuid().as_raw() || mode & 0o077 != 0 {
        let why = format!("{} must belong to this process's user and be closed to everybody else (chmod 700)", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Whether this user may be at the other end.
fn trusted(uid: u32) -> io::Result<()> {
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the other process is user {uid}'s")))
}

/// Whose process listens at the path: as the system tells it, or, where it does not, by the file.
#[cfg(target_os = "linux")]
fn owner(stream: &UnixStream, _: &Path) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

#[cfg(not(target_os = "linux"))]
fn owner(_: &UnixStream, path: &Path) -> io::Result<u32> {
    Ok(fs::symlink_metadata(path)?.uid())
}

/// Sockets that were received are for no process that this one starts.
#[cfg(target_os = "linux")]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::empty();

async fn hand_over(stream: tokio::net::UnixStream, sockets: &[Held]) -> io::Result<Successor> {
    let peer = stream.peer_cred()?;
    trusted(peer.uid())?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    tracing::info!(pid, "another process asks for the sockets");
    let named = sockets.iter().map(|held| OfferedSocket { name: held.name.clone(), kept: held.kept }).collect();
    let mut line = serde_json::to_vec(&Offered { sockets: named })?;
    line.push(b'\n');
    let descriptors: Vec<_> = sockets.iter().map(|held| held.socket.as_fd()).collect();
    if descriptors.len() > MOST {
        return Err(io::Error::other(format!("more than {MOST} listeners cannot be handed over")));
    }
    let sent = stream.async_io(Interest::WRITABLE, || send(&stream, &line, &descriptors)).await?;
    let mut stream = tokio::io::BufReader::new(stream);
    stream.write_all(line.get(sent..).unwrap_or_default()).await?;
    let mut answer = String::new();
    (&mut stream).take(LONGEST).read_line(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let ready: Ready = serde_json::from_str(&answer)?;
    stream.write_all(format!("{YOURS}\n").as_bytes()).await?;
    Ok(Successor { pid, took: ready.took })
}

fn send(stream: impl AsFd, line: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
}

/// The running process, which this one follows.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    sockets: Vec<Offering>,
}

#[derive(Debug)]
struct Offering {
    name: Name,
    kept: bool,
    /// Until it is taken.
    socket: Option<OwnedFd>,
}

impl Predecessor {
    /// Asks the process at `path` for its sockets.
    ///
    /// # Errors
    /// A sentence, when there is none, it is another user's, or it does not answer.
    pub(super) fn ask(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let stream = UnixStream::connect(path).map_err(|error| {
            format!("no running process hands over its sockets at {shown} (server.upgrade_socket): {error}; start without --upgrade")
        })?;
        Self::receive(stream, path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the running process at {shown} does not answer: it may be about to be followed by another one already")
            }
            _ => format!("the running process at {shown} does not hand over its sockets: {error}"),
        })
    }

    fn receive(stream: UnixStream, path: &Path) -> io::Result<Self> {
        trusted(owner(&stream, path)?)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let (mut line, mut sockets) = (Vec::new(), Vec::new());
        while line.last() != Some(&b'\n') {
            let mut piece = [0; 16 * 1024];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut piece)], &mut control, CLOSED_ON_EXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    sockets.extend(received);
                }
            }
            line.extend_from_slice(piece.get(..received.bytes).filter(|p| !p.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?);
            if line.len() as u64 > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let offered: Offered = serde_json::from_slice(&line)?;
        if offered.sockets.len() != sockets.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "sockets and their names differ in number"));
        }
        let both = offered.sockets.into_iter().zip(sockets);
        let sockets = both.map(|(OfferedSocket { name, kept }, socket)| Offering { name, kept, socket: Some(socket) });
        Ok(Self { stream, sockets: sockets.collect() })
    }

    /// The socket with this name; or, unless the system chose its port, the one at this place whatever it was for.
    pub(super) fn take(&mut self, name: &Name, chosen: bool) -> Option<Taken> {
        let at_place = |found: &&mut Offering| found.socket.is_some() && !chosen && found.name.place == name.place;
        let index = self.sockets.iter().position(|found| found.socket.is_some() && found.name == *name);
        let found = match index {
            Some(index) => self.sockets.get_mut(index)?,
            None => self.sockets.iter_mut().find(at_place)?,
        };
        Some(Taken { socket: found.socket.take()?, kept: found.kept })
    }

    /// Says that this process is ready; returns once the other accepts no more. Its sockets that were not taken are its own to
    /// close.
    ///
    /// # Errors
    /// The running process is gone, or did not wait any longer: then it goes on, and this one must not serve.
    pub(super) fn relieve(self) -> io::Result<()> {
        let took = self.sockets.iter().enumerate().filter(|(_, s)| s.socket.is_none()).map(|(index, _)| index).collect();
        let mut line = serde_json::to_vec(&Ready { took })?;
        line.push(b'\n');
        (&self.stream).write_all(&line)?;
        let mut answer = String::new();
        BufReader::new((&self.stream).take(LONGEST)).read_line(&mut answer)?;
        if answer.trim_end() == YOURS { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
