//! The follower that keeps the inventory: reads the journal from its cursor, applies, for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keepwatch_journal::{Batch, Disk, ReadError, Reader, Record, Tail};

use crate::daemon::progress::Progress;
use crate::inventory::{Inventory, InventoryError};

/// After a failure the inventory is tried again after this time, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Without anything to do for this long it gives memory back.
const REST_WAIT: Duration = Duration::from_secs(1);
/// Without anything to do it waits this long at once; the journal's end wakes it.
const WAIT_MAX: Duration = Duration::from_secs(3600 * 24);

/// Records that are applied in one transaction if they are there, in whole batches.
const TOGETHER_MAX: usize = 8_192;
/// After so many records at once more are likely to come, and are left to gather for [`GATHER`]: every transaction writes
/// the ends of all tables and indexes anew.
const BUSY_MIN: usize = 64;
const GATHER: Duration = Duration::from_millis(25);

/// What it takes to follow.
pub struct Follower {
    /// The journal's disk.
    pub disk: Arc<dyn Disk>,
    /// The journal's directory.
    pub journal: PathBuf,
    /// Where the journal ends.
    pub tail: Arc<Tail>,
    /// What is written.
    pub inventory: Inventory,
    /// Who waits for it.
    pub progress: Arc<Progress>,
    /// Ends it once it has applied all that is committed.
    pub stop: Arc<AtomicBool>,
}

/// Why the inventory did not get on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The journal could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The inventory could not be written.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

impl Follower {
    /// Follows until stopped. Failures are told to `progress` and tried again.
    pub fn run(mut self) {
        let mut wait = RETRY_MIN;
        let mut before = self.progress.applied();
        while let Err(error) = self.follow() {
            tracing::warn!(error = %error, "the inventory lags: it cannot follow the journal");
            self.progress.fail(error.to_string());
            let applied = self.progress.applied();
            // One that got on meanwhile has a new trouble, not the old one still.
            wait = if applied > before { RETRY_MIN } else { wait };
            before = applied;
            if self.pause(wait) {
                break;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.progress.end();
    }

    fn follow(&mut self) -> Result<(), FollowError> {
        let (disk, tail) = (Arc::clone(&self.disk), Arc::clone(&self.tail));
        let mut reader = Reader::follow(disk, &self.journal, tail, self.inventory.cursor()?)?;
        loop {
            while let Some(batches) = next_batches(&mut reader)? {
                let parts: Vec<&[Record]> = batches.iter().map(|batch| batch.records.as_slice()).collect();
                let Some(to) = batches.last().map(|batch| batch.cursor) else { break };
                let records: usize = parts.iter().map(|part| part.len()).sum();
                self.inventory.apply_parts(&parts, to)?;
                self.progress.advance(to.seq);
                if (BUSY_MIN..TOGETHER_MAX).contains(&records) && !self.stop.load(Ordering::Acquire) {
                    self.progress.gather(GATHER);
                }
            }
            if self.stop.load(Ordering::Acquire) && self.progress.applied() >= self.tail.head().seq {
                return Ok(());
            }
            let applied = self.progress.applied();
            if self.tail.wait_past(applied, Instant::now() + REST_WAIT).seq <= applied {
                self.inventory.release_memory()?;
                let _ = self.tail.wait_past(applied, Instant::now() + WAIT_MAX);
            }
            if self.tail.is_closed() && self.progress.applied() >= self.tail.head().seq {
                return Ok(());
            }
        }
    }

    /// Waits; `true` if it was stopped meanwhile, or the journal was closed: the next start catches up.
    fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.stop.load(Ordering::Acquire) || self.tail.is_closed() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
        }
        false
    }
}

/// The batches that are there, up to [`TOGETHER_MAX`] records; `None`: there is none.
fn next_batches(reader: &mut Reader) -> Result<Option<Vec<Batch>>, ReadError> {
    let mut batches = Vec::new();
    let mut records = 0;
    while records < TOGETHER_MAX
        && let Some(batch) = reader.next_batch()?
    {
        records += batch.records.len();
        batches.push(batch);
    }
    Ok((!batches.is_empty()).then_some(batches))
}
