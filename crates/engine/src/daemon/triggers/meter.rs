//! How a trigger gets on, for those who show it or wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::Timestamp;

/// Numbers since the start, and how it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whether it has looked at all that was there, and follows.
    pub is_following: bool,
    /// Versions that wait for a run.
    pub queued: u64,
    /// Versions for which a command runs.
    pub running: u64,
    /// Versions that were done since the start.
    pub done: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Why it does not get on now.
    pub trouble: Option<String>,
    /// What went wrong last, and when.
    pub last_error: Option<(Timestamp, String)>,
}

/// A shared reading.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Reading>);

impl Meter {
    /// How it is now.
    #[must_use]
    pub fn read(&self) -> Reading {
        self.lock().clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
