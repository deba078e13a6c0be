//! Rebuilding a follower from the journal.

use std::path::Path;
use std::sync::Arc;

use keepwatch_journal::{Disk, JournalId, ReadError, Reader, Seq};

use crate::daemon::state::StateDir;
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

/// Whether a journal was set aside here when a new epoch began.
#[must_use]
pub fn is_epoch(journal: &Path, id: JournalId) -> bool {
    journal.join(format!("epoch-{id}")).is_dir()
}
