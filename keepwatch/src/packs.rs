//! The scavengers of a running service: a thread for each `[packs.NAME]`.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};

use keepwatch_pack::{PackError, Report, Scavenger};

use crate::config::packs::PackSettings;
use crate::show::safe::Safe;

/// Scavengers at work; they end when this is dropped, each after the round it is in.
#[derive(Debug, Default)]
pub struct Packs {
    running: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Packs {
    /// Starts one for each base.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(packs: &[PackSettings]) -> io::Result<Self> {
        let mut started = Packs::default();
        for pack in packs {
            let (stop, stopped) = channel::<()>();
            let pack = pack.clone();
            let run = move || {
                // Until whoever started it lets go.
                while let Err(RecvTimeoutError::Timeout) = {
                    round(&pack);
                    stopped.recv_timeout(pack.every)
                } {}
            };
            let thread = thread::Builder::new().name("pack".to_owned()).spawn(run)?;
            started.running.push((stop, thread));
        }
        Ok(started)
    }
}

impl Drop for Packs {
    fn drop(&mut self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.running.drain(..).unzip();
        drop(stops);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a scavenger ended with a fault of this program");
            }
        }
    }
}

/// One round. A base that is away is looked for again in the next one.
fn round(pack: &PackSettings) {
    let done: Result<Report, PackError> =
        Scavenger::open(&pack.base, pack.options()).and_then(|scavenger| scavenger.scavenge());
    let name = pack.name.as_str();
    match done {
        Err(error) => tracing::error!(pack = name, "{}", Safe::text(&error.to_string())),
        Ok(report) => {
            for error in &report.errors {
                tracing::error!(pack = name, "{}", Safe::text(&error.to_string()));
            }
            for (file, why) in &report.quarantined {
                tracing::error!(pack = name, %file, "put into quarantine: {}", Safe::text(why));
            }
            if report.members > 0 {
                let (members, archives) = (report.members, report.archives.len());
                tracing::info!(pack = name, members, archives, renamed = report.renamed_count, "packed");
            }
        }
    }
}
