//! The threads that run triggers, and what they are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use keepwatch_journal::{Body, Trigger, TriggerName};

use super::status::TriggerStatus;
use super::{Command, Mode, Service};
use crate::daemon::ledger::Ledger;
use crate::daemon::triggers::{Asked, Meter, Surroundings, Worker};

/// While triggers end, they may still have something to journal: that is looked for this often.
const END_WAIT: Duration = Duration::from_millis(5);

/// A trigger that runs.
struct Kept {
    name: TriggerName,
    roots: Vec<String>,
    command: String,
    meter: Arc<Meter>,
    ask: Sender<Asked>,
    /// `None`: it could not be started.
    thread: Option<JoinHandle<()>>,
    why: Option<String>,
}

/// The triggers' threads.
#[derive(Default)]
pub(super) struct Triggers {
    kept: Vec<Kept>,
    stop: Arc<AtomicBool>,
}

impl Service {
    /// Starts a thread for each trigger, as [`Service::start_replicas`] does for replicas.
    pub(super) fn start_triggers(&mut self) {
        if self.mode != Mode::Serve {
            return;
        }
        self.tell_removed_triggers();
        if self.settings.triggers.is_empty() {
            return;
        }
        if let Err(error) = self.sequencer.ledger.commit() {
            tracing::warn!(%error, "the journal cannot be written yet");
        }
        for settings in self.settings.triggers.clone() {
            let (ask, asked) = unbounded();
            let around = Surroundings {
                inventory: self.state.inventory(),
                journal: self.state.journal(),
                state: self.state.path().to_owned(),
                identity: (self.state.identity().host_id.clone(), self.state.identity().host.clone()),
                disk: Arc::clone(&self.disk),
                tail: self.sequencer.ledger.writer().tail(),
                progress: Arc::clone(&self.progress),
                commands: self.replicas.commands(),
                asked,
                groups: self.sources.groups(),
                stop: Arc::clone(&self.triggers.stop),
            };
            let words: Vec<_> = settings.command.iter().map(|word| word.to_string_lossy()).collect();
            let mut kept = Kept {
                name: settings.name.clone(),
                roots: settings.roots.iter().map(|(name, _)| name.to_string()).collect(),
                command: words.join(" "),
                meter: Arc::clone(&settings.meter),
                ask,
                thread: None,
                why: None,
            };
            let started = Worker::new(settings, around).and_then(|worker| {
                let thread = std::thread::Builder::new().name("trigger".to_owned());
                thread.spawn(move || worker.run()).map_err(|error| error.to_string())
            });
            match started {
                Ok(thread) => kept.thread = Some(thread),
                Err(error) => {
                    tracing::error!(trigger = %kept.name, error, "the trigger does not run");
                    kept.why = Some(error);
                }
            }
            self.triggers.kept.push(kept);
        }
    }

    /// Triggers that are configured no more. What they did stays known.
    fn tell_removed_triggers(&mut self) {
        for row in self.sequencer.ledger.view().triggers().unwrap_or_default() {
            if row.since.is_some() && self.settings.triggers.iter().all(|trigger| trigger.name != row.name) {
                let config = Trigger { trigger: row.name, roots: None };
                self.sequencer.ledger.append(Body::Trigger(Box::new(config)));
            }
        }
    }

    /// Hands on what a trigger is asked.
    pub(super) fn ask_trigger(&self, name: &TriggerName, asked: Asked) {
        let Some(kept) = self.triggers.kept.iter().find(|kept| kept.name == *name) else {
            let _ = asked.done.send(Err(format!("there is no trigger `{name}`")));
            return;
        };
        match &kept.thread {
            Some(thread) if !thread.is_finished() => {
                let _ = kept.ask.send(asked);
            }
            _ => {
                let why = kept.why.clone().unwrap_or_else(|| "it has ended".to_owned());
                let _ = asked.done.send(Err(why));
            }
        }
    }

    /// How each trigger gets on.
    pub(super) fn trigger_status(&self) -> Vec<TriggerStatus> {
        let rows = self.sequencer.ledger.view().triggers().unwrap_or_default();
        let status = |kept: &Kept| {
            let reading = kept.meter.read();
            let row = rows.iter().find(|row| row.name == kept.name);
            let trouble = kept.why.clone().or(reading.trouble);
            let state = match (&trouble, reading.is_following) {
                (Some(_), _) => "stuck",
                (None, true) => "following",
                (None, false) => "waiting",
            };
            TriggerStatus {
                name: kept.name.to_string(),
                roots: kept.roots.clone(),
                command: kept.command.clone(),
                state: state.to_owned(),
                queued: reading.queued,
                running: reading.running,
                done: row.map_or(0, |row| row.done),
                dead: row.map_or(0, |row| row.dead),
                failed: reading.failed,
                trouble,
                last_error: reading.last_error.map(|(at, text)| format!("{at} {text}")),
            }
        };
        self.triggers.kept.iter().map(status).collect()
    }

    /// Ends the triggers' threads, and journals what they still tell.
    pub(super) fn end_triggers(&mut self) {
        self.triggers.stop.store(true, Ordering::Release);
        for thread in std::mem::take(&mut self.triggers.kept).into_iter().filter_map(|kept| kept.thread) {
            while !thread.is_finished() {
                if let Ok(Command::Acts { acts, done }) = self.commands.recv_timeout(END_WAIT) {
                    self.tell_acts(acts, &done);
                }
            }
            let _ = thread.join();
        }
    }
}
