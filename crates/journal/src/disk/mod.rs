//! The disk as the journal sees it. All I/O of this crate goes through [`Disk`], so that tests can put a simulated
//! one in its place that crashes, tears and fails where they say.

mod real;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use real::RealDisk;

/// A disk with directories. Names become durable by [`Disk::sync_dir`], not before.
pub trait Disk: Send + Sync {
    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes a directory, readable by its owner alone; one that is there already is fine.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// What the file system says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file for reading and writing, readable by its owner alone.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one of that name; what the file system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, over an existing one if there is one.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Positions are given with each call; none is kept.
pub trait DiskFile: Send + Sync {
    /// Reads up to `into.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// What the file system says. Some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves room up to `len` bytes; the file grows to that length, filled with NUL.
    ///
    /// # Errors
    /// What the file system says; `Unsupported` where it has no such call.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes content and length durable (`fdatasync`). After an error nothing is known of what was written since
    /// the last success, and a second call proves nothing.
    ///
    /// # Errors
    /// What the file system says.
    fn sync(&self) -> io::Result<()>;

    /// How many bytes it has.
    ///
    /// # Errors
    /// What the file system says.
    fn size(&self) -> io::Result<u64>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// An operation on a file of the journal failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct DiskError {
    /// What was tried, as a verb.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Puts verb and path to an [`io::Error`].
pub(crate) trait During<T> {
    fn during(self, doing: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, doing: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { doing, path: path.to_owned(), source })
    }
}
