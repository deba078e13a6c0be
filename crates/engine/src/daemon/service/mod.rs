//! The service: one thread that hears sources, scans and commands, and lets the sequencer journal what follows.
//!
//! It owns the life of roots ([`root`]), sources and scans. It decides when; the sequencer decides what.

mod command;
mod commit;
mod fixity;
mod overlap;
mod presence;
mod replicas;
mod report;
mod root;
mod scans;
mod sources;
mod start;
mod status;
mod triggers;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};
use keepwatch_journal::{Disk, GapReason, RootName, Timestamp};

use crate::clock::Clock;
use crate::daemon::dirs::DirsError;
use crate::daemon::fstree::FsTree;
use crate::daemon::index::IndexThread;
use crate::daemon::journaled::Journaled;
use crate::daemon::ledger::Ledger;
use crate::daemon::progress::Progress;
use crate::daemon::scanner::Message;
use crate::daemon::sequencer::Sequencer;
use crate::daemon::settings::Settings;
use crate::daemon::state::StateDir;
use crate::daemon::tree::Tree;
use crate::watch::feed::Batch;
use crate::watch::mounts::MountWatch;
use crate::watch::{Loss, Notice};

pub use command::{Command, Reconciled};
pub(in crate::daemon) use root::{check_identity, look_at_top};
pub use start::{Handle, OnEnd, StartError, check, reconcile_once, start};
pub(in crate::daemon) use start::{followed, journal_error, open_inventory};
pub use status::{FollowerStatus, HeldOpen, JournalStatus, ReplicaStatus, RootStatus, Status, TriggerStatus};

use commit::Commits;
use fixity::Verifiers;
use replicas::Replicas;
use root::RootRun;
use scans::Scans;
use sources::Sources;
use triggers::Triggers;

/// Without work for this long no descriptor on a watched file system stays open.
const REST_WAIT: Duration = Duration::from_millis(200);
/// A root that is absent is looked for this often; mounts are noticed at once.
const ABSENT_WAIT: Duration = Duration::from_secs(2);
/// Records that the inventory may lack before a scan waits for it.
const LAG_MAX: u64 = 16_384;
/// While a scan waits for the inventory, that is looked at this often.
const LAG_WAIT: Duration = Duration::from_millis(2);
/// Messages of a scan taken in before events are heard again.
const FOUND_AT_ONCE: usize = 16;

/// What the service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Watch for ever.
    Serve,
    /// Scan every root once, mend what differs, and end.
    Reconcile,
    /// Watch, keep nothing: there is no inventory, and what is there already is not told of.
    Look,
}

/// The service's own thread works on this.
struct Service {
    settings: Settings,
    mode: Mode,
    state: StateDir,
    clock: Arc<dyn Clock>,
    sequencer: Sequencer<FsTree, Journaled>,
    progress: Arc<Progress>,
    roots: Vec<RootRun>,
    sources: Sources,
    mounts: Option<MountWatch>,
    scans: Scans,
    commands: Receiver<Command>,
    commits: Commits,
    /// Those who wait until all that happened is journaled and applied: since when, and whom to tell.
    syncs: Vec<report::Sync>,
    reconcilers: Vec<Reconciler>,
    /// When something came last.
    busy: Instant,
    resting: bool,
    absent_due: Option<Instant>,
    started: Timestamp,
    last_at: Option<Timestamp>,
    first_gap: GapReason,
    follower: Option<JoinHandle<()>>,
    index: Option<IndexThread>,
    replicas: Replicas,
    triggers: Triggers,
    verifiers: Verifiers,
    compressor: Option<JoinHandle<()>>,
    compressed_up_to: u64,
    journal_dir: PathBuf,
    disk: Arc<dyn Disk>,
    ready: Option<Sender<()>>,
    /// The one root that is to be reconciled; `None`: all.
    only: Option<RootName>,
}

/// Somebody who waits for scans to be over.
struct Reconciler {
    roots: Vec<usize>,
    sum: Reconciled,
    done: Sender<Result<Reconciled, String>>,
}

/// What ended the service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The directory table failed.
    #[error(transparent)]
    Dirs(#[from] DirsError),
    /// The last records could not be made durable.
    #[error("stopped, but the last records could not be written: {0}; what they told is found again at the next start")]
    Unwritten(String),
}

type Result<T, E = ServiceError> = std::result::Result<T, E>;

/// What the main loop woke up for.
enum Woken {
    Events(Vec<Notice>),
    Inotify(Vec<Notice>),
    Found(Message),
    Command(Command),
    Mounts,
    Time,
}

impl Service {
    fn run(mut self) -> Result<()> {
        self.tell_dropped_roots();
        self.check_roots()?;
        self.start_replicas();
        self.start_triggers();
        self.start_scrubbers();
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
        loop {
            self.scan_next()?;
            let woken = self.wait();
            let now = self.clock.instant();
            match woken {
                Woken::Time => {}
                // Questions do not keep it from rest: the kernel tells of a removed root when nobody holds it open.
                Woken::Command(_) => self.resting = false,
                _ => (self.busy, self.resting) = (now, false),
            }
            match woken {
                Woken::Events(notices) => self.hear(&notices)?,
                Woken::Inotify(notices) => {
                    // Where a directory is was told before the watch on it was set: hear that first.
                    while let Ok(message) = self.scans.heard.try_recv() {
                        self.on_scan(message)?;
                    }
                    self.hear(&notices)?;
                }
                Woken::Found(message) => self.hear_scan(message)?,
                Woken::Command(Command::Stop) => break,
                Woken::Command(command) => self.obey(command)?,
                Woken::Mounts => self.check_roots()?,
                Woken::Time => {}
            }
            self.keep_up()?;
            if self.mode == Mode::Reconcile && self.all_reconciled() {
                break;
            }
        }
        self.end()
    }

    /// Everything that is due, between two messages.
    fn keep_up(&mut self) -> Result<()> {
        let now = self.clock.instant();
        let quiet = self.sources.outstanding() == 0;
        if self.sequencer.next_due().is_some_and(|due| due <= now) {
            self.sequencer.upkeep(quiet)?;
            self.resting = false;
        }
        let asked = self.sequencer.take_asked();
        for wanted in asked.scans {
            self.scans.want(wanted);
        }
        for (root, path) in asked.unmounted {
            self.not_mounted(usize::from(root.0), path);
        }
        // Without events there is nothing that could contradict, and nothing is kept in mode `Look`.
        for root in asked.contradicted.into_iter().filter(|_| self.mode == Mode::Serve) {
            self.roots[usize::from(root.0)].contradicted = true;
        }
        if asked.check_roots || self.absent_due.is_some_and(|due| due <= now) {
            self.check_roots()?;
        }
        self.poll_due(now);
        self.mend_contradicted(now);
        self.close_gaps();
        self.commit_if_due(now);
        self.sequencer.ledger.let_go();
        self.answer_syncs(now)?;
        if !self.resting && now.duration_since(self.busy) >= REST_WAIT {
            self.sequencer.tree.rest();
            self.resting = true;
            if self.mode != Mode::Look {
                self.sequencer.ledger.writer().tail().forget_up_to(self.progress.applied());
            }
        }
        Ok(())
    }

    fn wait(&self) -> Woken {
        let now = self.clock.instant();
        let (no_found, no_mounts) = (never(), never());
        let fanotify = self.sources.fanotify_events();
        let inotify = self.sources.inotify_events();
        // While the journal cannot be written scans wait; events are taken in up to a bound.
        let found = if self.commits.trouble.is_some() || self.inventory_lags() { &no_found } else { &self.scans.heard };
        let mounts = self.mounts.as_ref().map_or(&no_mounts, MountWatch::changes);
        let (no_fanotify, no_inotify) = (never(), never());
        let fanotify = fanotify.unwrap_or(&no_fanotify);
        let inotify = inotify.unwrap_or(&no_inotify);
        let operation = |timeout: Option<Duration>| {
            let timer = timeout.map_or_else(never, crossbeam_channel::after);
            select! {
                recv(fanotify) -> batch => Woken::Events(batch.map_or_else(|_| vec![Sources::closed()], Batch::open)),
                recv(inotify) -> batch => Woken::Inotify(batch.map_or_else(|_| vec![Sources::closed()], Batch::open)),
                recv(found) -> message => message.map_or(Woken::Time, Woken::Found),
                recv(self.commands) -> command => Woken::Command(command.unwrap_or(Command::Stop)),
                recv(mounts) -> _ => Woken::Mounts,
                recv(timer) -> _ => Woken::Time,
            }
        };
        operation(self.next_wake(now).map(|due| due.saturating_duration_since(now)))
    }

    /// When the loop has to go round next without a message; `None`: there is no such moment.
    fn next_wake(&self, now: Instant) -> Option<Instant> {
        [
            self.sequencer.next_due(),
            self.commits.due(self.sequencer.ledger.pending(), self.settings.commit_wait, now),
            (!self.resting).then_some(self.busy + REST_WAIT),
            self.absent_due,
            self.roots.iter().filter_map(|root| root.poll_due).min(),
            self.roots.iter().filter(|root| root.contradicted).filter_map(|root| root.mend_due).min(),
            (!self.syncs.is_empty()).then_some(now + Duration::from_millis(5)),
            self.scans.retry_due(),
            self.inventory_lags().then(|| now + LAG_WAIT),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether the inventory is so far behind that a scan has to wait for it: what it has yet to apply is still in
    /// memory then, and need not be read again.
    fn inventory_lags(&self) -> bool {
        let head = self.sequencer.ledger.writer().head().seq.0;
        self.mode != Mode::Look
            && self.scans.is_running()
            && self.progress.trouble().is_none()
            && head.saturating_sub(self.progress.applied().0) > LAG_MAX
    }

    fn hear(&mut self, notices: &[Notice]) -> Result<()> {
        for (index, notice) in notices.iter().enumerate() {
            match notice {
                Notice::Event(event) => self.sequencer.on_event(event, &notices[index + 1..])?,
                Notice::Lost(loss) => self.lost(loss)?,
                Notice::Reached(number) => self.reached(*number),
            }
        }
        Ok(())
    }

    fn hear_scan(&mut self, message: Message) -> Result<()> {
        self.on_scan(message)?;
        for _ in 1..FOUND_AT_ONCE {
            if self.sequencer.ledger.pending() >= self.settings.commit_records {
                break;
            }
            match self.scans.heard.try_recv() {
                Ok(message) => self.on_scan(message)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Notices were lost: all roots that this source tells of have a gap.
    fn lost(&mut self, loss: &Loss) -> Result<()> {
        let (reason, note) = match loss {
            Loss::KernelQueue => (GapReason::Overflow, "the kernel's queue ran over".to_owned()),
            Loss::Backlog => (GapReason::Overflow, "more events waited than backlog_max allows".to_owned()),
            Loss::ReaderDied(why) => (GapReason::Watch, why.clone()),
        };
        // While a gap is open the next loss is part of it: a source that runs over without end would fill the log.
        let is_known = self.roots.iter().all(|root| root.present().is_none() || root.gap.is_some());
        if !is_known || matches!(loss, Loss::ReaderDied(_)) {
            tracing::warn!(reason = ?reason, note, "changes may have been missed: scanning");
        }
        if let Loss::ReaderDied(_) = loss {
            self.sources.restart();
            for index in 0..self.roots.len() {
                self.leave(index, &note)?;
            }
            return self.check_roots();
        }
        for index in 0..self.roots.len() {
            if self.roots[index].present().is_some() {
                self.open_gap(index, reason, Some(note.clone()));
                self.roots[index].scan_wanted = true;
            }
        }
        Ok(())
    }

    /// Everything that was heard is journaled and durable; then the end.
    fn end(mut self) -> Result<()> {
        self.scans.cancel();
        self.end_triggers();
        self.end_verifiers();
        self.end_replicas();
        for batch in self.sources.drain() {
            self.hear(&batch)?;
        }
        self.sequencer.flush()?;
        self.scans.finish();
        let committed = self.sequencer.ledger.commit();
        self.sequencer.tree.rest();
        self.sources.stop();
        let Sequencer { ledger, .. } = self.sequencer;
        let closed = ledger.into_writer().close();
        if let Some(index) = self.index.take() {
            index.finish();
        }
        if let Some(follower) = self.follower.take() {
            let _ = follower.join();
        }
        if let Some(compressor) = self.compressor.take() {
            let _ = compressor.join();
        }
        drop(self.state);
        match (committed, closed) {
            (Ok(()), Ok(_)) => Ok(()),
            (Err(error), _) => Err(ServiceError::Unwritten(error.to_string())),
            (_, Err(error)) => Err(ServiceError::Unwritten(error.to_string())),
        }
    }
}
