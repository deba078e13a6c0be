//! What can be asked of a running service.

use std::os::fd::OwnedFd;

use crossbeam_channel::Sender;
use keepwatch_journal::{Body, RelPath, ReplicaName, RootName, Seq, TriggerName};

use super::status::Status;
use crate::daemon::fixity::{Event, FixityTrouble, Job, Sum};
use crate::daemon::replicate::Asked;
use crate::daemon::triggers;

/// A request, with where its answer goes.
#[derive(Debug)]
pub enum Command {
    /// How is it going?
    Status(Sender<Box<Status>>),
    /// Say when all that happened until now is journaled and in the inventory.
    Sync(Sender<Result<Seq, String>>),
    /// Scan a root, or all, and mend what differs.
    Reconcile {
        /// Which; `None`: all.
        root: Option<RootName>,
        /// Told when it is over.
        done: Sender<Result<Reconciled, String>>,
    },
    /// Take what is at the root's path now for the root.
    Accept {
        /// Which.
        root: RootName,
        /// Told when it is done.
        done: Sender<Result<(), String>>,
    },
    /// Ask a replica for something.
    Replica {
        /// Which.
        name: ReplicaName,
        /// What, and where the answer goes.
        asked: Asked,
    },
    /// Forget a replica that is not configured any more.
    Forget {
        /// Which.
        name: ReplicaName,
        /// Told when it is done.
        done: Sender<Result<(), String>>,
    },
    /// Ask a trigger for something.
    Trigger {
        /// Which.
        name: TriggerName,
        /// What, and where the answer goes.
        asked: triggers::Asked,
    },
    /// Journal what was done at a replica or a trigger.
    Acts {
        /// In their order.
        acts: Vec<Body>,
        /// Told the last one's place.
        done: Sender<Seq>,
    },
    /// Verify originals or copies, in a thread of its own. Nobody who hears it any more ends it.
    Verify {
        /// What.
        job: Box<Job>,
        /// Told on the way.
        events: Sender<Event>,
        /// Told what it came to, or why it ended early.
        done: Sender<Result<Sum, FixityTrouble>>,
    },
    /// Scan a directory, because something in it was missed. Nobody waits for it.
    Rescan {
        /// In which root.
        root: RootName,
        /// Which.
        dir: RelPath,
    },
    /// Nobody need hear of what is done in this directory, below which no root lies.
    Ignore(OwnedFd),
    /// End cleanly.
    Stop,
}

/// What a reconciliation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The first record that it may have made.
    pub from: Seq,
    /// The last one.
    pub to: Seq,
    /// Objects looked at.
    pub scanned: u64,
    /// Differences found and journaled.
    pub found: u64,
    /// What could not be read.
    pub failed: u64,
    /// Roots that are absent, and so were not looked at.
    pub absent: u64,
}
