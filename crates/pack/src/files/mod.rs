//! The files below a base, as the packer sees them. All I/O of this crate on a base goes through [`Files`], so that
//! tests can fail, stop or lose any single operation.
//!
//! Paths are relative to the base. No implementation follows a symbolic link on the way.

mod real;

use std::ffi::OsString;
use std::io;
use std::path::Path;

pub use real::RealFiles;

/// A tree of files. A name is durable after [`Files::sync_dir`], not before.
pub trait Files: Send + Sync {
    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// What stands at a path; a symbolic link is not followed.
    ///
    /// # Errors
    /// What the file system says.
    fn stat(&self, path: &Path) -> io::Result<Facts>;

    /// Makes a directory; one that is there already is fine.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates a file for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; what the file system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// What the file system says; `InvalidInput` for anything that is not a regular file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Renames, over an existing file if there is one.
    ///
    /// # Errors
    /// What the file system says. On a network file system it may have happened all the same.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; what the file system says. On a network file system it may have happened
    /// all the same.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the file system says.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Positions are given with each call; none is kept.
pub trait File: Send + Sync {
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

    /// Cuts the file to `len` bytes, or fills it with NUL up to there.
    ///
    /// # Errors
    /// What the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes content and length durable. After an error nothing is known of what was written since the last success.
    ///
    /// # Errors
    /// What the file system says.
    fn sync(&self) -> io::Result<()>;

    /// Asks that writing these bytes to the disk begin, and does not wait. Only a hint.
    fn start_sync(&self, offset: u64, len: u64);

    /// What is known of it.
    ///
    /// # Errors
    /// What the file system says.
    fn facts(&self) -> io::Result<Facts>;
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The file system's number.
    pub dev: u64,
    /// The file's number in it.
    pub inode: u64,
    /// In bytes.
    pub size: u64,
    /// When its content last changed, by the clock of whoever keeps the file system, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// What it is.
    pub kind: Kind,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A link, a pipe, a device.
    Other,
}

/// Reads exactly `into.len()` bytes.
///
/// # Errors
/// `UnexpectedEof` if the file ends before that; what the file system says.
pub fn read_exact_at(file: &dyn File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match file.read_at(into, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                into = &mut into[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Makes every directory of a path below the base.
///
/// # Errors
/// What the file system says.
pub fn create_dirs(files: &dyn Files, dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || files.stat(dir).is_ok_and(|facts| facts.kind == Kind::Dir) {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(files, parent)?;
        files.create_dir(dir)?;
        return files.sync_dir(parent);
    }
    Ok(())
}

/// Whether something was not there.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    // A directory that was removed and one that was replaced by a file are both: there is no such thing.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle
    )
}

/// What is there, or nothing.
pub(crate) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
