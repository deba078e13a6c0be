//! The threads that verify beside the service, because somebody asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::{Command, Mode, Service};
use crate::daemon::fixity::scrub::{Place, scrub};
use crate::daemon::fixity::{self, Event, FixityError, FixityTrouble, Job, Sum, Surroundings, TroubleKind};
use crate::daemon::tell::ByService;

/// While they end, they may still have something to journal: that is looked for this often.
const END_WAIT: Duration = Duration::from_millis(5);
/// Verifications at the same time.
const THREADS_MAX: usize = 8;

/// The threads.
#[derive(Default)]
pub(super) struct Verifiers {
    threads: Vec<JoinHandle<()>>,
    /// How many of them run by themselves.
    scrubbing: usize,
    stop: Arc<AtomicBool>,
}

impl Service {
    /// Verifies in a thread of its own.
    pub(super) fn verify(&mut self, job: Job, events: Sender<Event>, done: Sender<Result<Sum, FixityTrouble>>) {
        self.verifiers.threads.retain(|thread| !thread.is_finished());
        if self.verifiers.threads.len() >= THREADS_MAX + self.verifiers.scrubbing {
            let text = format!("{THREADS_MAX} verifications are under way already");
            let _ = done.send(Err(FixityTrouble { kind: TroubleKind::Failed, text }));
            return;
        }
        let (settings, inventory) = (self.settings.clone(), self.state.inventory());
        let identity = self.state.identity();
        let tag = if job.repair { "repair" } else { "verify" };
        let (host, state) = (identity.host.clone(), identity.host_id.clone());
        let (tell, stop) = (ByService(self.replicas.commands()), Arc::clone(&self.verifiers.stop));
        let thread = std::thread::Builder::new().name("verify".to_owned()).spawn(move || {
            let around = Surroundings {
                settings: &settings,
                inventory,
                host,
                state,
                tag,
                tell: &tell,
                stop: &stop,
                limit: None,
            };
            let mut each = |event| events.send(event).map_err(|_| FixityError::Stopped);
            let _ = done.send(fixity::verify(&job, &around, &mut each).map_err(FixityTrouble::from));
        });
        match thread {
            Ok(thread) => self.verifiers.threads.push(thread),
            // Who asked is told by a channel that closes.
            Err(error) => tracing::error!(%error, "no thread could be started to verify"),
        }
    }

    /// Starts a thread for each place that is verified by itself.
    pub(super) fn start_scrubbers(&mut self) {
        if self.mode != Mode::Serve {
            return;
        }
        let roots = self.settings.roots.iter().map(|root| (Place::Root(root.name.clone()), root.scrubbing.clone()));
        let replicas = self.settings.replicas.iter();
        let replicas = replicas.map(|replica| (Place::Replica(replica.name.clone()), replica.scrubbing.clone()));
        let places: Vec<_> = roots.chain(replicas).filter(|(_, scrubbing)| scrubbing.every.is_some()).collect();
        for (place, scrubbing) in places {
            let (settings, inventory) = (self.settings.clone(), self.state.inventory());
            let identity = self.state.identity();
            let (host, state) = (identity.host.clone(), identity.host_id.clone());
            let (tell, stop) = (ByService(self.replicas.commands()), Arc::clone(&self.verifiers.stop));
            let progress = Arc::clone(&self.progress);
            let thread = std::thread::Builder::new().name("scrub".to_owned()).spawn(move || {
                let around = Surroundings {
                    settings: &settings,
                    inventory,
                    host,
                    state,
                    tag: "scrub",
                    tell: &tell,
                    stop: &stop,
                    limit: None,
                };
                // Nothing is asked of an inventory that has not caught up with the journal.
                while progress.applied() == keepwatch_journal::Seq::ZERO && !stop.load(Ordering::Acquire) {
                    std::thread::sleep(END_WAIT);
                }
                scrub(&place, &scrubbing, settings.minute_of_week, &around, &stop);
            });
            match thread {
                Ok(thread) => self.verifiers.threads.push(thread),
                Err(error) => tracing::error!(%error, "no thread could be started to verify"),
            }
        }
        self.verifiers.scrubbing = self.verifiers.threads.len();
    }

    /// Ends the threads, and journals what they still tell.
    pub(super) fn end_verifiers(&mut self) {
        self.verifiers.stop.store(true, Ordering::Release);
        // Whoever waits for all to be journaled and applied waits no more.
        self.syncs.clear();
        for thread in std::mem::take(&mut self.verifiers.threads) {
            while !thread.is_finished() {
                // Whoever waits for anything else hears that there is no answer.
                if let Ok(Command::Acts { acts, done }) = self.commands.recv_timeout(END_WAIT) {
                    self.tell_acts(acts, &done);
                }
            }
            let _ = thread.join();
        }
    }
}
