//! The words to systemd: ready, alive, what the agent is doing.

use sd_notify::NotifyState;

/// Tells systemd; without one there is nobody to tell.
fn tell(state: &[NotifyState<'_>]) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The socket is open: commands are answered.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent is shutting down.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The owner of the state is alive.
pub(crate) fn feed_watchdog() {
    tell(&[NotifyState::Watchdog]);
}
