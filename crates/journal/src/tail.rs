//! The end of a live journal, shared by the writer with the followers in its process.
//!
//! A follower that keeps up gets its records from here and touches no file; one that lags falls back to the files,
//! and reads them no further than the writer has committed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bstr::ByteSlice as _;

use crate::format::RECORD;
use crate::record::Record;
use crate::value::{Cursor, Seq};

/// Committed records, up to a commit line.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The records, in order.
    pub records: Arc<Vec<Record>>,
    /// The commit line that closes them.
    pub cursor: Cursor,
    /// The text of the whole batch.
    pub(crate) text: Arc<Vec<u8>>,
}

impl Batch {
    /// The lines of its records as they stand in the journal, without newlines.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let skip = self.text.lines().filter(|line| line.starts_with(RECORD)).count() - self.records.len();
        self.text.lines().filter(|line| line.starts_with(RECORD)).skip(skip)
    }

    /// Without the records up to `seq`; the commit line stays.
    pub(crate) fn after(self, seq: Seq) -> Batch {
        match self.records.iter().position(|record| record.seq > seq) {
            Some(0) | None => self,
            Some(behind) => Batch { records: Arc::new(self.records[behind..].to_vec()), ..self },
        }
    }
}

/// Where a live journal ends, and its last batches.
#[derive(Debug)]
pub struct Tail {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug)]
struct State {
    head: Cursor,
    /// The number of the file that holds the head.
    file: u64,
    closed: bool,
    recent: VecDeque<Batch>,
    recent_bytes: usize,
    recent_bytes_max: usize,
}

impl Tail {
    pub(crate) fn new(head: Cursor, file: u64, recent_bytes_max: usize) -> Tail {
        let state = State { head, file, closed: false, recent: VecDeque::new(), recent_bytes: 0, recent_bytes_max };
        Tail { state: Mutex::new(state), moved: Condvar::new() }
    }

    /// The last commit.
    #[must_use]
    pub fn head(&self) -> Cursor {
        self.lock().head
    }

    /// Waits until something behind `seq` is committed, the writer has closed, or the deadline is past; says where
    /// the journal then ends.
    #[must_use]
    pub fn wait_past(&self, seq: Seq, deadline: Instant) -> Cursor {
        let mut state = self.lock();
        while state.head.seq <= seq && !state.closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.head
    }

    /// Whether the writer is gone: nothing will come any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The batch that holds what follows `seq`, if it is still here.
    pub(crate) fn batch_after(&self, seq: Seq) -> Option<Batch> {
        let state = self.lock();
        let first = state.recent.front()?.records.first()?.seq;
        if seq.next() < first {
            return None;
        }
        let index = state.recent.partition_point(|batch| batch.cursor.seq <= seq);
        state.recent.get(index).cloned()
    }

    /// The last commit, and the number of the file that holds it.
    pub(crate) fn position(&self) -> (Cursor, u64) {
        let state = self.lock();
        (state.head, state.file)
    }

    pub(crate) fn publish(&self, batch: Batch, file: u64) {
        let mut state = self.lock();
        state.head = batch.cursor;
        state.file = file;
        state.recent_bytes += batch.text.len();
        state.recent.push_back(batch);
        while state.recent_bytes > state.recent_bytes_max {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.recent_bytes -= oldest.text.len();
        }
        drop(state);
        self.moved.notify_all();
    }

    /// Gives back the memory of batches up to `seq`, which no follower needs any more.
    pub fn forget_up_to(&self, seq: Seq) {
        let mut state = self.lock();
        while state.recent.front().is_some_and(|batch| batch.cursor.seq <= seq)
            && let Some(oldest) = state.recent.pop_front()
        {
            state.recent_bytes -= oldest.text.len();
        }
        if state.recent.is_empty() {
            state.recent.shrink_to_fit();
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.moved.notify_all();
    }

    /// A follower that panicked while it held the lock has changed nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
