//! How a replica gets on, for those who wait for it or show it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failures that are kept by name; of more only the number is.
const FAILURES_MAX: usize = 1_000;

/// What a replica is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It waits until the originals are known.
    #[default]
    Waiting,
    /// It holds all originals against all copies.
    Comparing,
    /// It follows the journal.
    Following,
    /// It is over.
    Ended,
}

/// One original that is not at the replica as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its path, for people.
    pub path: String,
    /// Why.
    pub why: String,
}

/// Numbers since the start, and how it is now.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What it is doing.
    pub phase: Phase,
    /// Files, links and so on whose content was copied.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies that were renamed.
    pub moved: u64,
    /// Copies that were found at the target and taken for what they are.
    pub adopted: u64,
    /// Copies that went to the trash or were deleted.
    pub withdrawn: u64,
    /// How many failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// Why deletes wait for a person.
    pub paused: Option<String>,
    /// Why nothing can be done now.
    pub trouble: Option<String>,
    /// Whether that is for a person to mend before another try.
    pub is_refused: bool,
}

/// Shared between a replica's thread, which writes, and everybody else.
#[derive(Debug, Default)]
pub struct Meter {
    reading: Mutex<Reading>,
    changed: Condvar,
}

impl Meter {
    /// How it stands.
    #[must_use]
    pub fn read(&self) -> Reading {
        self.lock().clone()
    }

    /// Waits until it is over, or the time is up; whether it is over.
    #[must_use]
    pub fn wait_end(&self, patience: Duration) -> bool {
        let reading = self.lock();
        let waited = self.changed.wait_timeout_while(reading, patience, |reading| reading.phase != Phase::Ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.phase == Phase::Ended
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(super) fn fail(&self, path: String, why: String) {
        self.change(|reading| {
            reading.failed += 1;
            if reading.failures.len() < FAILURES_MAX {
                reading.failures.push(Failure { path, why });
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
