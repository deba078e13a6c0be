//! The threads that keep replicas, and the acts that they have journaled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use keepwatch_journal::{Body, Seq};

use super::{Command, Mode, Service};
use crate::daemon::ledger::Ledger;
use crate::daemon::replicate::{Keeper, Surroundings};

/// While replicas end, they may still have something to journal: that is looked for this often.
const END_WAIT: Duration = Duration::from_millis(5);

/// The replicas' threads.
pub(super) struct Replicas {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// By which they speak to the service.
    commands: Sender<Command>,
}

impl Replicas {
    /// None runs yet.
    pub(super) fn new(commands: Sender<Command>) -> Self {
        Replicas { threads: Vec::new(), stop: Arc::new(AtomicBool::new(false)), commands }
    }
}

impl Service {
    /// Starts a thread for each replica. The gaps that the start opened are on disk, so that none begins before their scans.
    pub(super) fn start_replicas(&mut self) {
        if self.mode != Mode::Serve || self.settings.replicas.is_empty() {
            return;
        }
        if let Err(error) = self.sequencer.ledger.commit() {
            tracing::warn!(%error, "the journal cannot be written yet");
        }
        for replica in self.settings.replicas.clone() {
            let around = Surroundings {
                inventory: self.state.inventory(),
                journal: self.state.journal(),
                disk: Arc::clone(&self.disk),
                tail: self.sequencer.ledger.writer().tail(),
                progress: Arc::clone(&self.progress),
                commands: self.replicas.commands.clone(),
                owner: self.state.identity().host_id.clone(),
                host: self.state.identity().host.clone(),
                stop: Arc::clone(&self.replicas.stop),
            };
            let name = replica.name.to_string();
            let started = Keeper::new(replica, around).map_err(|error| error.to_string()).and_then(|keeper| {
                let thread = std::thread::Builder::new().name("replica".to_owned());
                thread.spawn(move || keeper.run()).map_err(|error| error.to_string())
            });
            match started {
                Ok(thread) => self.replicas.threads.push(thread),
                Err(error) => tracing::error!(replica = name, error, "the replica is not kept"),
            }
        }
    }

    /// Journals what was done at a replica. The effect is at the target already: what is lost here is found by a look there.
    pub(super) fn tell_acts(&mut self, acts: Vec<Body>, done: &Sender<Seq>) {
        let mut last = Seq::ZERO;
        for act in acts {
            last = self.sequencer.ledger.append(act);
        }
        let _ = done.send(last);
    }

    /// Ends the replicas' threads, and journals what they still tell.
    pub(super) fn end_replicas(&mut self) {
        self.replicas.stop.store(true, Ordering::Release);
        for thread in std::mem::take(&mut self.replicas.threads) {
            while !thread.is_finished() {
                if let Ok(Command::Acts { acts, done }) = self.commands.recv_timeout(END_WAIT) {
                    self.tell_acts(acts, &done);
                }
            }
            let _ = thread.join();
        }
    }
}
