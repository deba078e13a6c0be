//! The threads that keep replicas, what they are asked, and the acts that they have journaled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use keepwatch_journal::{Body, Replica, ReplicaName, Seq};

use super::status::ReplicaStatus;
use super::{Command, Mode, Service};
use crate::daemon::ledger::Ledger;
use crate::daemon::replicate::{Asked, Keeper, Meter, Phase, Surroundings};
use crate::inventory::ReplicaRow;

/// While replicas end, they may still have something to journal: that is looked for this often.
const END_WAIT: Duration = Duration::from_millis(5);
/// Failures that the status names; the rest is in the inventory.
const FAILURES_SHOWN: usize = 20;

/// A replica that is kept.
struct Kept {
    name: ReplicaName,
    url: String,
    roots: Vec<String>,
    on_delete: &'static str,
    meter: Arc<Meter>,
    ask: Sender<Asked>,
    /// `None`: it could not be started.
    thread: Option<JoinHandle<()>>,
}

/// The replicas' threads.
pub(super) struct Replicas {
    kept: Vec<Kept>,
    stop: Arc<AtomicBool>,
    /// By which they speak to the service.
    commands: Sender<Command>,
}

impl Replicas {
    /// None runs yet.
    pub(super) fn new(commands: Sender<Command>) -> Self {
        Replicas { kept: Vec::new(), stop: Arc::new(AtomicBool::new(false)), commands }
    }

    /// By which threads speak to the service.
    pub(super) fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }
}

impl Service {
    /// Starts a thread for each replica. The gaps that the start opened are on disk, so that none begins before their scans.
    pub(super) fn start_replicas(&mut self) {
        if self.mode != Mode::Serve {
            return;
        }
        self.tell_detached();
        if self.settings.replicas.is_empty() {
            return;
        }
        if let Err(error) = self.sequencer.ledger.commit() {
            tracing::warn!(%error, "the journal cannot be written yet");
        }
        for replica in self.settings.replicas.clone() {
            let (ask, asked) = unbounded();
            let around = Surroundings {
                inventory: self.state.inventory(),
                journal: self.state.journal(),
                disk: Arc::clone(&self.disk),
                tail: self.sequencer.ledger.writer().tail(),
                progress: Arc::clone(&self.progress),
                commands: self.replicas.commands.clone(),
                asked,
                state: self.state.identity().host_id.clone(),
                host: self.state.identity().host.clone(),
                last_at: self.last_at,
                stop: Arc::clone(&self.replicas.stop),
            };
            let mut kept = Kept {
                name: replica.name.clone(),
                url: replica.url.clone(),
                roots: replica.roots.iter().map(|(name, _)| name.to_string()).collect(),
                on_delete: replica.on_delete.as_str(),
                meter: Arc::clone(&replica.meter),
                ask,
                thread: None,
            };
            let started = Keeper::new(replica, around).map_err(|error| error.to_string()).and_then(|keeper| {
                let thread = std::thread::Builder::new().name("replica".to_owned());
                thread.spawn(move || keeper.run()).map_err(|error| error.to_string())
            });
            match started {
                Ok(thread) => kept.thread = Some(thread),
                Err(error) => {
                    tracing::error!(replica = %kept.name, error, "the replica is not kept");
                    kept.meter.give_up(error);
                }
            }
            self.replicas.kept.push(kept);
        }
    }

    /// Replicas that were kept and are configured no more are detached: nothing follows, nothing is forgotten.
    fn tell_detached(&mut self) {
        for row in self.sequencer.ledger.view().replicas().unwrap_or_default() {
            if row.url.is_some() && self.settings.replicas.iter().all(|replica| replica.name != row.name) {
                let ReplicaRow { name, identity, roots, .. } = row;
                let config = Replica { replica: name, url: None, identity, roots };
                self.sequencer.ledger.append(Body::Replica(Box::new(config)));
            }
        }
    }

    /// Forgets all that is known of a replica that is detached. What lies at its target stays.
    pub(super) fn forget_replica(&mut self, name: &ReplicaName) -> Result<(), String> {
        if self.replicas.kept.iter().any(|kept| kept.name == *name) {
            return Err(format!("replica `{name}` is in the configuration still"));
        }
        let known = self.sequencer.ledger.view().replica(name).map_err(|error| error.to_string())?;
        if known.is_none() {
            return Err(format!("there is no replica `{name}`"));
        }
        let config = Replica { replica: name.clone(), url: None, identity: None, roots: BTreeMap::new() };
        self.sequencer.ledger.append(Body::Replica(Box::new(config)));
        Ok(())
    }

    /// Hands on what a replica is asked.
    pub(super) fn ask_replica(&self, name: &ReplicaName, asked: Asked) {
        let Some(kept) = self.replicas.kept.iter().find(|kept| kept.name == *name) else {
            let _ = asked.done.send(Err(format!("there is no replica `{name}`")));
            return;
        };
        match &kept.thread {
            Some(thread) if !thread.is_finished() => {
                let _ = kept.ask.send(asked);
            }
            _ => {
                let why = kept.meter.read().trouble.unwrap_or_else(|| "it has ended".to_owned());
                let _ = asked.done.send(Err(why));
            }
        }
    }

    /// How each replica gets on.
    pub(super) fn replica_status(&self) -> Vec<ReplicaStatus> {
        let view = self.sequencer.ledger.view();
        let rows = view.replicas().unwrap_or_default();
        let status = |kept: &Kept| {
            let reading = kept.meter.read();
            let row = rows.iter().find(|row| row.name == kept.name);
            let counts = row.map(|row| row.counts).unwrap_or_default();
            let state = match reading.phase {
                _ if reading.is_refused => "refused",
                _ if reading.trouble.is_some() => "away",
                _ if reading.paused.is_some() => "paused",
                Phase::Waiting => "waiting",
                Phase::Comparing => "comparing",
                Phase::Following => "following",
                Phase::Ended => "ended",
            };
            let pending = match reading.phase {
                Phase::Following => reading.due,
                _ => reading.to_pass_files.saturating_sub(counts.files),
            };
            let lag = reading.behind_since.map_or(0, |since| self.clock.now().0.saturating_sub(since.0));
            ReplicaStatus {
                name: kept.name.to_string(),
                url: kept.url.clone(),
                roots: kept.roots.clone(),
                on_delete: kept.on_delete.to_owned(),
                state: state.to_owned(),
                files: counts.files,
                bytes: counts.bytes,
                pending,
                failed: row.map_or(0, |row| view.count_failures(row.id).unwrap_or_default()),
                lag_s: u64::try_from(lag / 1_000_000_000).unwrap_or(0),
                rate: reading.rate,
                copied: reading.copied,
                copied_bytes: reading.bytes,
                last_error: reading.last_error.map(|(at, text)| format!("{at} {text}")),
                paused: reading.trouble.or(reading.paused),
                failures: reading.failures.into_iter().take(FAILURES_SHOWN).collect(),
            }
        };
        self.replicas.kept.iter().map(status).collect()
    }

    /// Journals what was done at a replica or a trigger. The effect is at the target already: what is lost here is found by a look there.
    pub(super) fn tell_acts(&mut self, acts: Vec<Body>, done: &Sender<Seq>) {
        let mut last = Seq::ZERO;
        for act in acts {
            last = self.sequencer.ledger.append(act);
        }
        self.commits.hurry();
        let _ = done.send(last);
    }

    /// Ends the replicas' threads, and journals what they still tell.
    pub(super) fn end_replicas(&mut self) {
        self.replicas.stop.store(true, Ordering::Release);
        for thread in std::mem::take(&mut self.replicas.kept).into_iter().filter_map(|kept| kept.thread) {
            while !thread.is_finished() {
                if let Ok(Command::Acts { acts, done }) = self.commands.recv_timeout(END_WAIT) {
                    self.tell_acts(acts, &done);
                }
            }
            let _ = thread.join();
        }
    }
}
