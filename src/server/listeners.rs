//! Binds everything that the process listens on, before anything is served: a process that cannot listen must not live on.
//! Knows addresses and sockets; what is spoken on them is decided for each connection by [`super::accept`].

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::Fds;
use serde::{Deserialize, Serialize};

use super::handover::{Name, Predecessor};
use super::inherited::{Inherited, Taken};
use crate::snapshot::{Listener, Place, ServerSettings};

/// Sockets that are bound and listening: what follows cannot fail for an address in use.
#[derive(Debug)]
pub struct Listeners {
    pub(super) proxy: Vec<Bound>,
    pub(super) admin: TcpListener,
    pub(super) probes: Option<TcpListener>,
    /// All of them once more, to be handed over or closed.
    pub(super) held: Vec<Held>,
    /// The process whose sockets some of them are.
    pub(super) predecessor: Option<Predecessor>,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Proxy,
    Admin,
    Probes,
}

/// A listening socket, whoever accepts on it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: Name,
    pub(super) socket: OwnedFd,
    /// systemd keeps it too, for the next process.
    pub(super) kept: bool,
    /// Where it is a Unix socket.
    pub(super) file: Option<File>,
}

/// A Unix socket's file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) inode: u64,
}

/// A bound listener of the proxy.
#[derive(Debug)]
pub(super) struct Bound {
    /// As it was configured when it was bound.
    pub(super) listener: Listener,
    /// Which of the configured listeners with this place: port 0 may stand there more than once.
    pub(super) nth: usize,
    /// Where it really is.
    place: Place,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listeners {
    /// Binds every address of `[server]`, but for those whose sockets are `inherited`.
    ///
    /// # Errors
    /// A sentence with the address and the system's error.
    pub fn bind(settings: &ServerSettings, mut inherited: Inherited) -> Result<Self, String> {
        let (mut proxy, mut held): (Vec<Bound>, Vec<Held>) = Default::default();
        for (index, listener) in settings.listeners.iter().enumerate() {
            let nth = settings.listeners.iter().take(index).filter(|other| other.place == listener.place).count();
            // `listen` comes first and is plain.
            let plain = matches!(listener.place, Place::Tcp(address) if *listener == Listener::plain(address));
            let name = if index == 0 && plain { "server.listen" } else { "server.listener" };
            let failed = |e| format!("cannot listen on {} ({name}): {e}", listener.place);
            let taken = inherited.take(Role::Proxy, &listener.place, nth);
            let kept = taken.as_ref().is_some_and(|taken| taken.kept);
            let bound = Bound::bind(listener, nth, taken).map_err(failed)?;
            held.push(bound.hold(kept).map_err(failed)?);
            proxy.push(bound);
        }
        let mut tcp = |role: Role, name: &str, address: SocketAddr| {
            let taken = inherited.take(role, &Place::Tcp(address), 0);
            let kept = taken.as_ref().is_some_and(|taken| taken.kept);
            let failed = |e| format!("cannot listen on {address} (server.{name}): {e}");
            let socket = tcp(address, taken).map_err(failed)?;
            let name = Name { role, place: Place::Tcp(address).to_string(), nth: 0 };
            held.push(Held { name, socket: socket.as_fd().try_clone_to_owned().map_err(failed)?, kept, file: None });
            Ok::<_, String>(socket)
        };
        let admin = tcp(Role::Admin, "admin", settings.admin)?;
        let probes = settings.probes.map(|address| tcp(Role::Probes, "probes", address)).transpose()?;
        Ok(Self { proxy, admin, probes, held, predecessor: inherited.finish()? })
    }

    /// Where clients connect, with the ports that the system chose for port 0, and whether TLS is spoken there.
    pub fn places(&self) -> impl Iterator<Item = (&Place, bool)> {
        self.proxy.iter().map(|bound| (&bound.place, bound.listener.tls.is_some()))
    }

    /// The first TCP address that clients connect to; where there is none, the admin listener's.
    ///
    /// # Errors
    /// The system's.
    pub fn proxy_address(&self) -> io::Result<SocketAddr> {
        let tcp = |bound: &Bound| if let Place::Tcp(address) = bound.place { Some(address) } else { None };
        self.proxy.iter().find_map(tcp).map_or_else(|| self.admin_address(), Ok)
    }

    /// The admin listener's address.
    ///
    /// # Errors
    /// The system's.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

impl Bound {
    fn bind(listener: &Listener, nth: usize, taken: Option<Taken>) -> io::Result<Self> {
        let (socket, place) = match &listener.place {
            Place::Tcp(address) => {
                let socket = tcp(*address, taken)?;
                let place = Place::Tcp(socket.local_addr()?);
                (Socket::Tcp(socket), place)
            }
            Place::Unix { path, mode } => {
                let socket = match taken {
                    Some(taken) => taken_unix(taken, path, *mode)?,
                    None => unix(path, *mode, false)?,
                };
                (Socket::Unix(socket), listener.place.clone())
            }
        };
        Ok(Self { listener: listener.clone(), nth, place, socket })
    }

    fn hold(&self, kept: bool) -> io::Result<Held> {
        let socket = match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        };
        let file = match &self.place {
            Place::Tcp(_) => None,
            Place::Unix { path, .. } => Some(File { path: path.clone(), inode: fs::symlink_metadata(path)?.ino() }),
        };
        let name = Name { role: Role::Proxy, place: self.listener.place.to_string(), nth: self.nth };
        Ok(Held { name, socket: socket.try_clone_to_owned()?, kept, file })
    }

    /// Hands the socket to the framework, which finds it by its name.
    pub(super) fn into_framework(self, fds: &mut Fds) -> ListenerConfig {
        let (name, config) = match &self.place {
            Place::Tcp(address) => (address.to_string(), ListenerConfig::tcp(address.to_string())),
            Place::Unix { path, mode } => {
                let name = path.display().to_string();
                // The framework would open it to everybody.
                (name.clone(), ListenerConfig::uds(name).permissions(fs::Permissions::from_mode(*mode)))
            }
        };
        let descriptor = match self.socket {
            Socket::Tcp(socket) => socket.into_raw_fd(),
            Socket::Unix(socket) => socket.into_raw_fd(),
        };
        fds.add(name, descriptor);
        // Heads and bodies are read into buffers of their own: one more of 64 KiB would be half of what an idle connection takes.
        config.l4_buffer(L4BufferSettings::default().read(0))
    }
}

fn tcp(address: SocketAddr, taken: Option<Taken>) -> io::Result<TcpListener> {
    let listener = taken.map_or_else(|| TcpListener::bind(address), |taken| Ok(TcpListener::from(taken.socket)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The framework sets the permissions too, and must not fail at it.
fn taken_unix(taken: Taken, path: &Path, mode: u32) -> io::Result<UnixListener> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| {
        io::Error::new(e.kind(), format!("its mode cannot be set: {e}; the socket must be this process's user's (SocketUser=)"))
    })?;
    let listener = UnixListener::from(taken.socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds beside the path and moves the socket there once it has its permissions: nobody connects before, and what a process
/// that is gone left behind is replaced. A socket that somebody still listens on stays, unless it is to be replaced, and so
/// does any other file.
pub(super) fn unix(path: &Path, mode: u32, replace: bool) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is no socket"));
        }
        Ok(_) if !replace && UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) | Err(_) => {}
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside); // an earlier process of this number's, if anything
    let listener = UnixListener::bind(&beside)?;
    let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = placed.and_then(|()| listener.set_nonblocking(true)) {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_left_behind_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = unix(&path, 0o600, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(unix(&path, 0o600, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let _second = unix(&path, 0o660, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let file = directory.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert_eq!(unix(&file, 0o600, true).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "s"]);
    }
}
