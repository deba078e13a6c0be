//! Rebuilding a follower from the journal.

use std::path::Path;
use std::sync::Arc;

use keepwatch_journal::{Disk, JournalId, ReadError, Reader, Seq};

use crate::daemon::state::StateDir;
use crate::index::{IndexError, IndexSettings, Replay, Stop, Writer};
use crate::inventory::{Host, Inventory, InventoryError};

/// Why a replay failed. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The journal could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The inventory could not be written.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The shared index could not be written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// There is no journal.
    #[error("there is no journal in {0}: nothing was ever recorded")]
    NoJournal(std::path::PathBuf),
}

/// Builds the inventory anew from the whole journal, beside the old one, and puts it in its place.
///
/// # Errors
/// [`ReplayError`]; the old inventory stays then.
pub fn rebuild_inventory(state: &StateDir, disk: &Arc<dyn Disk>) -> Result<Inventory, ReplayError> {
    let host = Host { id: state.identity().host_id.clone(), name: state.identity().host.clone() };
    let mut reader = Reader::open(Arc::clone(disk), &state.journal(), Seq::ZERO)?;
    let batches = std::iter::from_fn(move || match reader.next_batch() {
        Ok(Some(batch)) => Some(Ok((batch.records.to_vec(), batch.cursor))),
        Ok(None) => None,
        Err(error) => Some(Err(ReplayError::from(error))),
    });
    Inventory::rebuild(&state.inventory(), &host, batches)
}

/// What a replay into the shared index came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The last record.
    pub seq: Seq,
    /// Records of which a part was set aside.
    pub problems: u64,
}

/// Makes the host's rows in the shared index anew from the whole journal, beside the old ones, and puts them in their
/// place. The history is written from behind `from` on.
///
/// # Errors
/// [`ReplayError`]; the old rows stay then.
pub fn rebuild_index(
    state: &StateDir,
    disk: &Arc<dyn Disk>,
    settings: &IndexSettings,
    from: Seq,
    mut each: impl FnMut(Seq),
) -> Result<Replayed, ReplayError> {
    let identity = state.identity();
    let mut reader = Reader::open(Arc::clone(disk), &state.journal(), Seq::ZERO)?;
    let journal = reader.journal().ok_or_else(|| ReplayError::NoJournal(state.journal()))?;
    let writer = Writer { name: identity.host.clone(), identity: identity.host_id.clone(), journal };
    let mut replay = Replay::begin(settings, &writer, from, Stop::default())?;
    let mut replayed = Replayed::default();
    while let Some(batch) = reader.next_batch()? {
        replay.apply(&batch.records, batch.cursor, batch.cursor.seq)?;
        replayed.seq = batch.cursor.seq;
        each(replayed.seq);
    }
    replayed.problems = replay.finish()?;
    Ok(replayed)
}

/// Whether a journal was set aside here when a new epoch began.
#[must_use]
pub fn is_epoch(journal: &Path, id: JournalId) -> bool {
    journal.join(format!("epoch-{id}")).is_dir()
}
