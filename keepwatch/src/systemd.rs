//! What systemd is told: ready, reloading, stopping, alive. Without systemd all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service does its work; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    // `Type=notify-reload` wants to know when the reload began.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// The service is ending in good order.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The service is alive. To be called from the thread whose standstill would be a failure.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be called, with room to spare; `None` if nobody waits for it.
#[must_use]
pub fn alive_interval() -> Option<Duration> {
    let mut timeout_us = 0;
    sd_notify::watchdog_enabled(false, &mut timeout_us).then(|| Duration::from_micros(timeout_us) / 3)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "systemd could not be told the state of the service");
    }
}
