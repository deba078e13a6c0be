//! How a thread that keeps a replica, or runs commands, has acts journaled and waits until the inventory has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use keepwatch_journal::Tail;

use crate::daemon::progress::Progress;
use crate::daemon::service::Command;
use crate::inventory::{InventoryError, View};
use crate::model::{Body, GapReason, Seq};

/// How long the inventory may take to apply what was journaled.
const APPLY_MAX: Duration = Duration::from_secs(600);
/// How often it is looked whether it has, where it does not wait itself.
const APPLY_LOOK: Duration = Duration::from_millis(5);
/// How often it is looked whether the thread is to end.
const LOOK_WAIT: Duration = Duration::from_millis(200);

/// Why something was not journaled or applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error("the inventory does not follow the journal")]
    Behind,
    /// The thread is to end.
    #[error("stopped")]
    Stopped,
}

/// The way to the journal.
pub(super) struct Acting {
    commands: Sender<Command>,
    progress: Arc<Progress>,
    tail: Arc<Tail>,
    stop: Arc<AtomicBool>,
    /// The last record that has to be applied before the inventory tells what was done.
    last: Seq,
}

impl Acting {
    pub(super) fn new(
        commands: Sender<Command>,
        progress: Arc<Progress>,
        tail: Arc<Tail>,
        stop: Arc<AtomicBool>,
    ) -> Acting {
        Acting { commands, progress, tail, stop, last: Seq::ZERO }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.tail.is_closed()
    }

    pub(super) fn check_stop(&self) -> Result<(), ActError> {
        if self.is_stopped() { Err(ActError::Stopped) } else { Ok(()) }
    }

    /// Waits until no root that is there has an open gap: until then files may be missing from the inventory.
    pub(super) fn wait_for_scans<E: From<ActError> + From<InventoryError>>(&self, view: &View) -> Result<(), E> {
        loop {
            self.check_stop()?;
            let head = self.tail.head().seq;
            if self.progress.wait_for(head, LOOK_WAIT) && self.are_scans_done(view)? {
                return Ok(());
            }
            let _ = self.tail.wait_past(head, Instant::now() + LOOK_WAIT);
        }
    }

    /// Whether the inventory knows of no root that is there and has an open gap.
    pub(super) fn are_scans_done(&self, view: &View) -> Result<bool, InventoryError> {
        Ok(view.open_gaps()?.iter().all(|gap| gap.reason == GapReason::Absent))
    }

    /// Has acts journaled. They take effect when the inventory applies them.
    pub(super) fn tell(&mut self, acts: Vec<Body>) -> Result<(), ActError> {
        if acts.is_empty() {
            return Ok(());
        }
        let (answer, answered) = bounded(1);
        self.commands.send(Command::Acts { acts, done: answer }).map_err(|_| ActError::Stopped)?;
        self.last = answered.recv().map_err(|_| ActError::Stopped)?;
        Ok(())
    }

    /// Waits until the inventory has a record, and all that was told.
    pub(super) fn applied(&self, seq: Seq) -> Result<(), ActError> {
        let seq = seq.max(self.last);
        let until = Instant::now() + APPLY_MAX;
        while !self.progress.wait_for(seq, LOOK_WAIT) {
            self.check_stop()?;
            if Instant::now() > until {
                return Err(ActError::Behind);
            }
            // Where the inventory cannot be written it does not wait either.
            std::thread::sleep(APPLY_LOOK);
        }
        Ok(())
    }

    /// Waits until all that was told is on disk.
    pub(super) fn durable(&self) -> Result<(), ActError> {
        while self.tail.head().seq < self.last {
            self.check_stop()?;
            let _ = self.tail.wait_past(Seq(self.last.0 - 1), Instant::now() + LOOK_WAIT);
        }
        Ok(())
    }
}
