//! Listening sockets that were there before this process: the running one's, which it follows (`--upgrade`), or systemd's
//! (`LISTEN_FDS`). Asked by [`super::listeners`] before it binds anything itself.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;

use super::handover::{Name, Predecessor};
use super::listeners::Role;
use crate::snapshot::Place;

/// Sockets that can be taken, each once.
#[derive(Debug, Default)]
pub struct Inherited {
    predecessor: Option<Predecessor>,
    activated: Vec<(Place, OwnedFd)>,
}

/// A socket that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) socket: OwnedFd,
    /// systemd keeps it: what waits in its queue is for the next process.
    pub(super) kept: bool,
}

impl Inherited {
    /// What systemd passed, if it did: sockets of a `.socket` unit.
    ///
    /// # Errors
    /// A sentence, when it passed something else.
    pub fn from_system() -> Result<Self, String> {
        let mut passed = ListenFd::from_env();
        let mut activated = Vec::new();
        for index in 0..passed.len() {
            let unusable = |error: io::Error| format!("systemd passed something that is no stream socket (LISTEN_FDS): {error}");
            if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
                activated.push((Place::Tcp(socket.local_addr().map_err(unusable)?), socket.into()));
                continue;
            }
            let Some(socket) = passed.take_unix_listener(index).map_err(unusable)? else { continue };
            let address = socket.local_addr().map_err(unusable)?;
            let path = address.as_pathname().ok_or("systemd passed an abstract socket: a listener has a path")?.to_owned();
            activated.push((Place::Unix { path, mode: 0 }, socket.into()));
        }
        Ok(Self { predecessor: None, activated })
    }

    /// What the running process hands over.
    ///
    /// # Errors
    /// A sentence, when there is none, or it does not.
    pub fn from_running(upgrade_socket: &Path) -> Result<Self, String> {
        Ok(Self { predecessor: Some(Predecessor::ask(upgrade_socket)?), activated: Vec::new() })
    }

    /// The socket at this place, if there is one.
    pub(super) fn take(&mut self, role: Role, place: &Place, nth: usize) -> Option<Taken> {
        if let Some(predecessor) = &mut self.predecessor {
            let name = Name { role, place: place.to_string(), nth };
            if let Some(taken) = predecessor.take(&name, matches!(place, Place::Tcp(address) if address.port() == 0)) {
                return Some(taken);
            }
        }
        let same = |found: &Place| match (found, place) {
            (Place::Unix { path: found, .. }, Place::Unix { path, .. }) => found == path,
            (found, place) => found == place,
        };
        let index = self.activated.iter().position(|(found, _)| same(found))?;
        Some(Taken { socket: self.activated.swap_remove(index).1, kept: true })
    }

    /// All listeners have their sockets; what is left of systemd's would take connections that nobody serves.
    ///
    /// # Errors
    /// A sentence with the first that is left.
    pub(super) fn finish(self) -> Result<Option<Predecessor>, String> {
        match self.activated.first() {
            Some((place, _)) => {
                Err(format!("systemd listens on {place} for this process (LISTEN_FDS), and no listener of the configuration is there"))
            }
            None => Ok(self.predecessor),
        }
    }
}
