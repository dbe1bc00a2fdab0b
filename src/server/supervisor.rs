//! Tells systemd what the process is doing, where systemd asks (`NOTIFY_SOCKET`, see sd_notify(3)). Decides nothing: without
//! systemd every call does nothing.

use sd_notify::NotifyState;

/// It serves, or serves again after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It reads its configuration again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd was not told of a reload"), // without the time it would count as failed
    }
}

/// It stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Another process serves in its place: that one is the service from now on, and this one says nothing any more.
pub(super) fn followed_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
