//! What was asked of a store that went away before it answered: it may have happened or not. Nothing of it was journaled, so
//! before anything else is done there it is taken back where it happened. What is due is found again and done anew.

use std::sync::{Mutex, PoisonError};

use super::{Spool, Store, away, moves, objects};
use crate::model::RelPath;
use crate::target::{Found, Result, TargetError};

/// Doubts that are remembered; requests under way are fewer.
const DOUBTS_MAX: usize = 4096;

/// What may have happened.
#[derive(Clone, Debug)]
pub(super) enum Doubt {
    /// An object of this size and time was put.
    Put { path: RelPath, size: u64, mtime_ns: i64 },
    /// An object was renamed.
    Rename { from: RelPath, to: RelPath },
}

/// What may have happened at a target.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Vec<Doubt>>);

impl Doubts {
    /// Passes a result on, and remembers what is in doubt if the store went away.
    pub(super) fn note<T>(&self, result: Result<T>, doubt: impl FnOnce() -> Doubt) -> Result<T> {
        if matches!(result, Err(TargetError::Away { .. })) {
            let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if doubts.len() < DOUBTS_MAX {
                doubts.push(doubt());
            }
        }
        result
    }

    /// Whether anything may have happened.
    pub(super) fn are_any(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes back what happened, and the renames that this state left unfinished.
    pub(super) fn settle(&self, store: &dyn Store, spool: &Spool, state: &str) -> Result<()> {
        // The last first: an object may have been renamed after it was put.
        while let Some(doubt) = {
            let doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            doubts.last().cloned()
        } {
            match take_back(store, spool, &doubt) {
                Err(error) if error.is_of_the_place() => return Err(error),
                Err(error) => tracing::warn!(%error, ?doubt, "what was asked of a store stays in doubt"),
                Ok(()) => {}
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        }
        // Who else uses the spool is at work for the same state, maybe in the middle of a rename.
        match spool.is_alone() {
            Ok(true) => moves::undo(store, spool, state),
            Ok(false) => Ok(()),
            Err(error) => Err(away(store, format!("what waits to be sent cannot be kept: {error}"))),
        }
    }
}

fn take_back(store: &dyn Store, spool: &Spool, doubt: &Doubt) -> Result<()> {
    match doubt {
        Doubt::Put { path, size, mtime_ns } => {
            let step = store.abilities().mtime_step_ns.max(1);
            let is_that =
                |found: &Found| found.size == *size && found.mtime_ns.div_euclid(step) == mtime_ns.div_euclid(step);
            match store.look(path)?.filter(|entry| is_that(&entry.found)) {
                Some(_) => store.delete(path),
                None => Ok(()),
            }
        }
        Doubt::Rename { from, to } => {
            if store.look(from)?.is_none() && store.look(to)?.is_some() {
                return objects::rename_one(store, spool, to, from);
            }
            Ok(())
        }
    }
}
