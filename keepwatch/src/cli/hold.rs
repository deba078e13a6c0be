//! `keepwatch hold`: what leads the process group of a trigger's command. The service starts it, and holds its standard input open.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Signal, getpgrp, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{CommandError, Outcome};

/// Waits until its standard input ends, as it does when the service ends in whatever way, and then ends its process group with
/// all that is in it.
///
/// # Errors
/// If signals cannot be caught.
pub fn run() -> Result<Outcome, CommandError> {
    // What is asked of the command is not asked of its group's leader.
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(|error| CommandError::failed(format!("cannot catch signals: {error}")))?;
    }
    let mut input = std::io::stdin();
    let mut buffer = [0; 1];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Only a leader may do that: started by hand in somebody's group it ends alone.
    if getpgrp() == rustix::process::getpid() {
        let _ = kill_process_group(getpgrp(), Signal::KILL);
    }
    Ok(Outcome::Fine)
}
