//! How acts reach the journal from outside of the sequencer's thread.

use crossbeam_channel::{Sender, bounded};
use keepwatch_journal::{Body, RelPath, RootName};

use crate::daemon::service::Command;

/// Nothing can be journaled.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The service ends.
    #[error("the service is ending")]
    Ending,
    /// The journal or the inventory cannot be written.
    #[error("{0}")]
    Failed(String),
}

/// Who journals acts.
pub trait Tell: Sync {
    /// Has acts journaled and applied to the inventory.
    ///
    /// # Errors
    /// [`TellError`]; then it is not known which of them were.
    fn tell(&self, acts: Vec<Body>) -> Result<(), TellError>;
    /// Waits until all that had happened is journaled and in the inventory.
    ///
    /// # Errors
    /// [`TellError`].
    fn catch_up(&self) -> Result<(), TellError>;
    /// Has a directory scanned, because something in it was missed. It may be done later.
    fn look_again(&self, root: &RootName, dir: &RelPath);
}

/// By the service that runs.
#[derive(Clone, Debug)]
pub struct ByService(pub Sender<Command>);

impl Tell for ByService {
    fn tell(&self, acts: Vec<Body>) -> Result<(), TellError> {
        if acts.is_empty() {
            return Ok(());
        }
        let (done, answered) = bounded(1);
        self.0.send(Command::Acts { acts, done }).map_err(|_| TellError::Ending)?;
        answered.recv().map(|_| ()).map_err(|_| TellError::Ending)
    }

    fn catch_up(&self) -> Result<(), TellError> {
        let (done, answered) = bounded(1);
        self.0.send(Command::Sync(done)).map_err(|_| TellError::Ending)?;
        match answered.recv() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(why)) => Err(TellError::Failed(why)),
            Err(_) => Err(TellError::Ending),
        }
    }

    fn look_again(&self, root: &RootName, dir: &RelPath) {
        // A service that ends scans everything at its next start.
        let _ = self.0.send(Command::Rescan { root: root.clone(), dir: dir.clone() });
    }
}
