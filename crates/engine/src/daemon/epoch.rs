//! A new epoch: journal and inventory are set aside, nothing is deleted, and the next start begins a new journal and
//! reconciles in full. It is the way out of a journal that is damaged, was rolled back, or came from another machine.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use keepwatch_journal::{Disk, DiskError, RealDisk, SetAside, new_epoch, survey_epoch};

use crate::daemon::state::{StateError, TakeOver, inventory_of};
use crate::inventory::View;

/// What a new epoch sets aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The journal's files; `None`: there were none.
    pub journal: Option<SetAside>,
    /// Where the inventory is kept; `None`: there was none.
    pub inventory: Option<PathBuf>,
}

/// Why a new epoch did not begin. The state directory is refused as before, and it can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] DiskError),
    /// The inventory.
    #[error("cannot set {path} aside: {source}")]
    Inventory {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What [`begin`] would set aside. Nothing is changed.
///
/// # Errors
/// [`EpochError`] if the journal cannot be looked at.
pub fn survey(state: &Path) -> Result<Kept, EpochError> {
    let journal_dir = state.join("journal");
    let journal = if journal_dir.is_dir() { survey_epoch(&RealDisk, &journal_dir)? } else { None };
    let inventory = inventory_aside(state, journal.as_ref());
    Ok(Kept { journal, inventory })
}

/// Sets journal and inventory aside and binds the directory to this machine, in this order: interrupted, it is called
/// again.
///
/// # Errors
/// [`EpochError`].
pub fn begin(state: &Path, host: &str, machine_id: Option<&str>) -> Result<Kept, EpochError> {
    let taken = TakeOver::begin(state)?;
    let mut kept = survey(state)?;
    if kept.journal.is_some() {
        kept.journal = new_epoch(&RealDisk as &dyn Disk, &state.join("journal"))?;
    }
    if let Some(to) = &kept.inventory {
        move_inventory(state, to)?;
    }
    taken.finish(host, machine_id)?;
    Ok(kept)
}

/// Whether a journal was set aside here.
#[must_use]
pub fn has_begun(journal: &Path) -> bool {
    let Ok(entries) = fs::read_dir(journal) else { return false };
    entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"epoch-"))
}

/// A free name for the inventory, after the journal that it followed.
fn inventory_aside(state: &Path, journal: Option<&SetAside>) -> Option<PathBuf> {
    let inventory = inventory_of(state);
    inventory.exists().then_some(())?;
    let followed = View::open(&inventory).ok().and_then(|view| view.cursor().ok().flatten());
    let id = followed.map(|cursor| cursor.journal).or_else(|| journal?.journal);
    let id = id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let numbered = (2_u64..).map(|number| format!("inventory-{id}.{number}.db"));
    let mut names = std::iter::once(format!("inventory-{id}.db")).chain(numbered);
    names.find_map(|name| Some(state.join(name)).filter(|path| !path.exists()))
}

/// The write-ahead log goes first: SQLite deletes one whose database is missing.
fn move_inventory(state: &Path, to: &Path) -> Result<(), EpochError> {
    let from = inventory_of(state);
    for suffix in ["-wal", "-shm", ""] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match fs::rename(with(&from), with(to)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EpochError::Inventory { path: with(&from), source: error });
            }
            _ => {}
        }
    }
    File::open(state)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| EpochError::Inventory { path: state.to_owned(), source })
}
