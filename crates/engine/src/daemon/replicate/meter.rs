//! How a replica gets on, for those who wait for it or show it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Timestamp;

/// Failures that are kept by name; of more only the number is.
const FAILURES_MAX: usize = 1_000;
/// The rate is that of so long a stretch.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Points of that stretch.
const RATE_POINTS: usize = 64;

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
    /// Originals that are given up for now.
    pub failed: u64,
    /// Some of them, by path for people, and why.
    pub failures: BTreeMap<String, String>,
    /// Objects that the comparison has passed, and their bytes.
    pub passed: u64,
    /// See `passed`.
    pub passed_bytes: u64,
    /// How many it will pass, and their bytes.
    pub to_pass: u64,
    /// See `to_pass`.
    pub to_pass_bytes: u64,
    /// How many of them are regular files.
    pub to_pass_files: u64,
    /// Paths that wait: to be looked at, tried again, or deleted.
    pub due: u64,
    /// Since when something has been waiting to be copied.
    pub behind_since: Option<Timestamp>,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Why deletes wait for a person.
    pub paused: Option<String>,
    /// Why nothing can be done now.
    pub trouble: Option<String>,
    /// Whether that is for a person to mend before another try.
    pub is_refused: bool,
    /// Whether the target was reached at all.
    pub was_reached: bool,
    /// What went wrong last, and when.
    pub last_error: Option<(Timestamp, String)>,
}

#[derive(Debug, Default)]
struct State {
    reading: Reading,
    points: VecDeque<(Instant, u64)>,
}

/// Shared between a replica's thread, which writes, and everybody else.
#[derive(Debug, Default)]
pub struct Meter {
    state: Mutex<State>,
    changed: Condvar,
}

impl Meter {
    /// How it stands.
    #[must_use]
    pub fn read(&self) -> Reading {
        let state = self.lock();
        let now = Instant::now();
        let first = state.points.iter().find(|(at, _)| now.duration_since(*at) <= RATE_WINDOW);
        let rate = first.map_or(0.0, |(at, bytes)| {
            (state.reading.bytes - bytes) as f64 / now.duration_since(*at).as_secs_f64().max(0.1)
        });
        Reading { rate: rate as u64, ..state.reading.clone() }
    }

    /// Waits until it is over, or the time is up; whether it is over.
    #[must_use]
    pub fn wait_end(&self, patience: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, patience, |state| state.reading.phase != Phase::Ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.reading.phase == Phase::Ended
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Reading)) {
        let mut state = self.lock();
        let before = state.reading.bytes;
        change(&mut state.reading);
        let bytes = state.reading.bytes;
        if bytes != before {
            let now = Instant::now();
            let is_new = |point: &(Instant, u64)| now.duration_since(point.0) * 64 >= RATE_WINDOW;
            if state.points.back().is_none_or(is_new) {
                state.points.push_back((now, before));
            }
            while state.points.len() > RATE_POINTS {
                state.points.pop_front();
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// It cannot be kept at all.
    pub(in crate::daemon) fn give_up(&self, why: String) {
        self.change(|reading| {
            reading.phase = Phase::Ended;
            reading.is_refused = true;
            reading.last_error = Some((now(), why.clone()));
            reading.trouble = Some(why);
        });
    }

    pub(super) fn fail(&self, path: String, why: String) {
        self.change(|reading| {
            reading.failed += 1;
            reading.last_error = Some((now(), format!("{path}: {why}")));
            if reading.failures.len() < FAILURES_MAX {
                reading.failures.insert(path, why);
            }
        });
    }

    /// What had failed is done, or not to be done any more.
    pub(super) fn mend(&self, path: &str) {
        self.change(|reading| {
            reading.failed = reading.failed.saturating_sub(1);
            reading.failures.remove(path);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now() -> Timestamp {
    use crate::clock::Clock as _;
    crate::clock::SystemClock.now()
}
