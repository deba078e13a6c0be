//! What can go wrong with the inventory, by what the caller can do about it.

use std::path::{Path, PathBuf};

use crate::model::{Cursor, Seq};

/// The result of an operation on the inventory.
pub type Result<T> = std::result::Result<T, InventoryError>;

/// Why the inventory could not be opened, read or moved on.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// SQLite failed: disk full, I/O, a lock held too long, a damaged file.
    #[error("cannot {doing} the inventory {path}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A file operation around the database failed.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A newer version wrote it.
    #[error("the inventory {path} has schema {found}, this program knows {known}: use the newer keepwatch")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An older version wrote it; a replay makes a new one.
    #[error("the inventory {path} has the older schema {found}: rebuild it with `keepwatch replay --to inventory`")]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// The file is a database of another program.
    #[error("{path} is not an inventory: move it away, then run `keepwatch replay --to inventory`")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was made for another host: a state directory that was copied.
    #[error("the inventory {path} belongs to host {found}, this is {asked}: give each host its own state directory")]
    OtherHost {
        /// The database.
        path: PathBuf,
        /// The host id in it.
        found: String,
        /// The host id that was expected.
        asked: String,
    },
    /// The SQLite that was linked has known faults in WAL mode.
    #[error("SQLite {found} is too old, 3.51.3 is needed: build keepwatch with the bundled SQLite")]
    OldSqlite {
        /// The version that was linked.
        found: &'static str,
    },
    /// The journal's past is not the one that was applied.
    #[error(
        "the inventory {path} stands at {ours:?}, the journal offers {theirs:?}: one of them was rolled back or \
         copied; compare with `keepwatch journal head`, then run `keepwatch replay --to inventory`"
    )]
    Forked {
        /// The database.
        path: PathBuf,
        /// Its cursor.
        ours: Box<Cursor>,
        /// What the caller wanted to move it to.
        theirs: Box<Cursor>,
    },
    /// The records do not continue where the inventory stands, or do not end at the cursor given with them.
    #[error("the inventory {path} needs record {expected} next, not {found}: read the journal from its cursor")]
    Discontinuous {
        /// The database.
        path: PathBuf,
        /// The seq that should have come.
        expected: Seq,
        /// The seq that came.
        found: Seq,
    },
}

impl InventoryError {
    /// Wraps an error of SQLite with what was being done to which database.
    pub(super) fn sqlite(path: &Path, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| InventoryError::Sqlite { path: path.to_owned(), doing, source }
    }

    /// Wraps an error of the file system with what was being done to which file.
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| InventoryError::Io { path: path.to_owned(), doing, source }
    }
}
