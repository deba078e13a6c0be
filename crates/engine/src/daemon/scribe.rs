//! Journal and inventory without a service: for commands that do something while none runs.

use std::sync::{Arc, Mutex, PoisonError};

use keepwatch_journal::{Body, Disk, Reader, RealDisk, RelPath, RootName, Writer, WriterOptions};

use crate::clock::{Clock, SystemClock};
use crate::daemon::follow::FollowError;
use crate::daemon::service::{StartError, followed, journal_error, open_inventory};
use crate::daemon::settings::Settings;
use crate::daemon::state::{Identity, StateDir};
use crate::daemon::tell::{Tell, TellError};
use crate::inventory::Inventory;

/// The state directory, taken, with its journal and an inventory that has all of it.
pub struct Scribe {
    open: Mutex<Open>,
    state: StateDir,
}

struct Open {
    writer: Writer,
    reader: Reader,
    inventory: Inventory,
    clock: SystemClock,
}

impl Scribe {
    /// Takes the state directory and brings the inventory up to the journal's end. Nothing is watched, and nothing scanned:
    /// the next start of a service does that.
    ///
    /// # Errors
    /// [`StartError`], as when a service starts.
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        let state = StateDir::take(&settings.state_dir, &settings.host, settings.machine_id.as_deref())?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let (clock, host) = (SystemClock, state.identity().host.clone());
        let options =
            WriterOptions { roll_bytes: settings.roll_bytes, holds: followed(&state), ..WriterOptions::new(&host) };
        let (writer, _) = Writer::open(Arc::clone(&disk), &state.journal(), clock.now(), options)
            .map_err(|error| journal_error(&state, error))?;
        let inventory = open_inventory(&state, &writer, &disk)?;
        let reader = Reader::follow(disk, &state.journal(), writer.tail(), inventory.cursor()?)
            .map_err(|error| StartError::Behind(error.to_string()))?;
        let mut open = Open { writer, reader, inventory, clock };
        open.apply().map_err(|error| StartError::Behind(error.to_string()))?;
        Ok(Scribe { open: Mutex::new(open), state })
    }

    /// Whose state it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.state.identity()
    }

    /// Closes the journal.
    ///
    /// # Errors
    /// If its end could not be written.
    pub fn close(self) -> Result<(), TellError> {
        let open = self.open.into_inner().unwrap_or_else(PoisonError::into_inner);
        open.writer.close().map(|_| ()).map_err(|error| TellError::Failed(error.to_string()))
    }
}

impl Open {
    fn apply(&mut self) -> Result<(), FollowError> {
        while let Some(batch) = self.reader.next_batch()? {
            self.inventory.apply(&batch.records, batch.cursor)?;
        }
        Ok(())
    }
}

impl Tell for Scribe {
    fn tell(&self, acts: Vec<Body>) -> Result<(), TellError> {
        if acts.is_empty() {
            return Ok(());
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = open.clock.now();
        for act in &acts {
            open.writer.append(now, act);
        }
        open.writer.commit().map_err(|error| TellError::Failed(error.to_string()))?;
        open.apply().map_err(|error| TellError::Failed(error.to_string()))
    }

    fn catch_up(&self) -> Result<(), TellError> {
        Ok(())
    }

    fn look_again(&self, _root: &RootName, _dir: &RelPath) {}
}
