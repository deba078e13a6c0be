//! TERM, INT and HUP as messages.

use std::io;
use std::sync::mpsc::{Receiver, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// What the outside asks of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// TERM or INT: bring everything to disk and end.
    Stop,
    /// HUP: read the configuration again.
    Reload,
}

/// From now on these signals arrive as messages. A second TERM or INT ends the process at once, as it would have without
/// us: nothing acknowledged is lost by that, and a person who presses Ctrl-C twice means it.
///
/// # Errors
/// If the handlers cannot be set or the thread that waits for signals cannot be started.
pub fn listen() -> io::Result<Receiver<Wish>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut is_stopping = false;
        for signal in signals.forever() {
            let wish = if signal == SIGHUP { Wish::Reload } else { Wish::Stop };
            if wish == Wish::Stop && std::mem::replace(&mut is_stopping, true) {
                let _ = emulate_default_handler(signal);
            }
            // Nobody listens any more when the service is on its way out.
            let _ = sender.send(wish);
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn signals_arrive_as_wishes() {
        let wishes = listen().unwrap();
        let wait = || wishes.recv_timeout(Duration::from_secs(10)).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(wait(), Wish::Reload);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(wait(), Wish::Stop);
    }
}
