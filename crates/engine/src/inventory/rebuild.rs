//! Replay beside the old inventory, then swap: how an inventory is migrated, or mended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::{InventoryError, Result};
use super::schema::Host;
use super::writer::Inventory;
use crate::model::{Cursor, Record};

impl Inventory {
    /// Builds a new inventory from the whole journal, in batches, and puts it in the place of the one at `path`. The old one
    /// stays as it is until the new one is complete and on disk. Nothing else may write the inventory meanwhile.
    ///
    /// A crash while the files change places leaves either inventory, or none: then the next start replays the journal.
    ///
    /// # Errors
    /// The inventory's, and the reader's own; the old inventory is then untouched.
    pub fn rebuild<E: From<InventoryError>>(
        path: &Path,
        host: &Host,
        batches: impl IntoIterator<Item = std::result::Result<(Vec<Record>, Cursor), E>>,
    ) -> std::result::Result<Inventory, E> {
        let new = with_suffix(path, ".new");
        discard(&new)?;
        let mut inventory = Inventory::open(&new, host)?;
        for batch in batches {
            let (records, to) = batch?;
            inventory.apply(&records, to)?;
        }
        inventory.close_whole()?;
        File::open(&new).and_then(|file| file.sync_all()).map_err(InventoryError::io(&new, "sync"))?;
        // The old WAL must not meet the new database, which it would be applied to. So the old database goes first: SQLite
        // deletes a WAL whose database is missing.
        discard(path)?;
        fs::rename(&new, path).map_err(InventoryError::io(&new, "put in place"))?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(InventoryError::io(dir, "sync"))?;
        }
        Ok(Inventory::open(path, host)?)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a database and what SQLite keeps beside it, in that order.
fn discard(path: &Path) -> Result<()> {
    for file in [path.to_owned(), with_suffix(path, "-wal"), with_suffix(path, "-shm")] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(InventoryError::io(&file, "remove")(error));
            }
            _ => {}
        }
    }
    Ok(())
}
