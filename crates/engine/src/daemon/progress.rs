//! How far the inventory has come, for those who wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keepwatch_journal::Seq;

/// Shared between the follower, which advances it, and everybody else.
#[derive(Debug, Default)]
pub struct Progress {
    applied: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    /// Somebody waits.
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
    ended: bool,
    /// How many wait.
    waiting: usize,
}

impl Progress {
    /// The last record that the inventory has.
    #[must_use]
    pub fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    /// The number behind [`Progress::applied`].
    #[must_use]
    pub fn counter(&self) -> &AtomicU64 {
        &self.applied
    }

    /// The inventory has this one too.
    pub fn advance(&self, seq: Seq) {
        self.applied.store(seq.0, Ordering::Release);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble = None;
        self.changed.notify_all();
    }

    /// The inventory cannot be written now.
    pub fn fail(&self, trouble: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble = Some(trouble);
        self.changed.notify_all();
    }

    /// Nothing will be applied any more.
    pub fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }

    /// Why the inventory cannot be written.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// Waits until the inventory has `seq`; `false` if it cannot be written, or not in time.
    #[must_use]
    pub fn wait_for(&self, seq: Seq, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        self.wanted.notify_all();
        let is_there = loop {
            if self.applied() >= seq {
                break true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.trouble.is_some() || state.ended || left.is_zero() {
                break false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        is_there
    }

    /// Lets time pass, for more to gather, unless somebody waits.
    pub fn gather(&self, time: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.wanted.wait_timeout_while(state, time, |state| state.waiting == 0);
    }
}
