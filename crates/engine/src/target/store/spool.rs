//! Content on its way, in files of a directory of our own: a store takes it when it was read to its end and found unchanged.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::model::RelPath;
use crate::target::{Result, TargetError, shown};

/// What is locked in the directory.
const LOCK: &str = "lock";
/// Bytes copied at once.
const CHUNK: usize = 256 << 10;

/// A directory for content on its way.
#[derive(Debug)]
pub(in crate::target) struct Spool {
    dir: PathBuf,
    /// What its files' names begin with: others may use the directory too.
    token: String,
    next: AtomicU64,
    /// Locked as long as it is used.
    lock: Mutex<Option<File>>,
}

/// A file there. It goes with this.
#[derive(Debug)]
pub(in crate::target) struct SpoolFile(PathBuf);

/// What is put.
#[derive(Debug)]
pub(in crate::target) enum Spooled {
    /// A file's bytes, read to their end.
    File {
        /// Where they are.
        file: SpoolFile,
        /// How many.
        size: u64,
        /// Their hash.
        sha256: [u8; 32],
    },
    /// A symbolic link that points there.
    Symlink(Vec<u8>),
}

impl Spool {
    /// Below `all`, for the store of this name. Nothing is made yet.
    pub(super) fn new(all: &Path, name: &str) -> Self {
        let hash = Sha256::digest(name);
        let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let token = Uuid::now_v7().simple().to_string();
        Spool { dir: all.join(name), token, next: AtomicU64::new(1), lock: Mutex::default() }
    }

    /// Whether nobody else uses the directory. It is made if it is not there, and what earlier runs left in it goes.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub(super) fn is_alone(&self) -> io::Result<bool> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = lock.is_none();
        if is_new {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let file = match lock.take() {
            Some(file) => file,
            None => {
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.dir.join(LOCK))?
            }
        };
        let is_alone = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_alone && is_new {
            for entry in std::fs::read_dir(&self.dir)?.flatten().filter(|entry| entry.file_name() != LOCK) {
                std::fs::remove_file(entry.path())?;
            }
        }
        flock(&file, FlockOperation::LockShared)?;
        *lock = Some(file);
        Ok(is_alone)
    }

    /// A new, empty file's place.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub(in crate::target) fn place(&self) -> io::Result<SpoolFile> {
        let is_made = self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !is_made {
            self.is_alone()?;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(SpoolFile(self.dir.join(format!("{}-{number}", self.token))))
    }

    /// Keeps bytes in a file for a moment.
    pub(in crate::target) fn keep(&self, path: &RelPath, bytes: &[u8], mtime_ns: i64) -> Result<SpoolFile> {
        match self.take(path, &mut &bytes[..], bytes.len() as u64, mtime_ns)? {
            Spooled::File { file, .. } => Ok(file),
            Spooled::Symlink(_) => Err(super::not_there("keep", path)),
        }
    }

    /// Takes a file's content in. One byte more than `size` is read: the caller counts.
    pub(super) fn take(&self, path: &RelPath, bytes: &mut dyn Read, size: u64, mtime_ns: i64) -> Result<Spooled> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TargetError::Away {
                place: self.dir.display().to_string(),
                why: "there is no room for what waits to be sent: make some in the state directory".to_owned(),
            },
            _ => TargetError::Io { doing: "keep until it is sent", path: shown(path), source },
        };
        let file = self.place().map_err(failed)?;
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.0).map_err(failed)?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut bytes = bytes.take(size.saturating_add(1));
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK) + 1)];
        loop {
            let read = match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(TargetError::Source { path: shown(path), source }),
            };
            hash.update(&buffer[..read]);
            length += read as u64;
            out.write_all(&buffer[..read]).map_err(failed)?;
        }
        // For those who look at it; no promise hangs on it.
        let nanoseconds = Duration::from_nanos(mtime_ns.unsigned_abs());
        let mtime =
            if mtime_ns < 0 { UNIX_EPOCH.checked_sub(nanoseconds) } else { UNIX_EPOCH.checked_add(nanoseconds) };
        if let Some(mtime) = mtime {
            let _ = out.set_modified(mtime);
        }
        Ok(Spooled::File { file, size: length, sha256: hash.finalize().into() })
    }
}

impl SpoolFile {
    /// Where it is, absolute if the state directory is.
    pub(in crate::target) fn path(&self) -> &Path {
        &self.0
    }

    /// Opens it; it can be read as long as this is held.
    ///
    /// # Errors
    /// The system's answer.
    pub(in crate::target) fn open(&self) -> io::Result<File> {
        File::open(&self.0)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}
