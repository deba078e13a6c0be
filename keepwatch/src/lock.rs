//! The state directory belongs to one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// The lock's name in the state directory.
const LOCK: &str = "lock";

/// The state directory, held by this process until it is dropped or the process ends in whatever way: the kernel gives
/// an `flock(2)` back with the last descriptor, so there is no stale lock to clean up.
#[derive(Debug)]
pub struct StateLock {
    dir: PathBuf,
    _file: File,
}

impl StateLock {
    /// Makes the state directory if need be and takes it.
    ///
    /// # Errors
    /// If it cannot be made, or another process holds it; the message names that process.
    pub fn take(dir: &Path) -> Result<Self, CommandError> {
        make_state_dir(dir)?;
        let path = dir.join(LOCK);
        let cannot = |error: std::io::Error| CommandError::failed(format!("cannot lock {}: {error}", path.display()));
        let mut file = open(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder =
                    read_pid(&mut file).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                return Err(CommandError::failed(format!(
                    "the state directory {} is in use by {holder}",
                    dir.display()
                ))
                .hint("stop it, or use another directory with `--state-dir`"));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(cannot)?;
        Ok(StateLock { dir: dir.to_owned(), _file: file })
    }

    /// What is held.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Which process holds the state directory, without taking it; `None` if none does, or it cannot be told.
#[must_use]
pub fn holder(dir: &Path) -> Option<u32> {
    let mut file = File::open(dir.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_pid(&mut file),
        _ => None,
    }
}

/// Makes the state directory, for its owner alone.
///
/// # Errors
/// If it cannot be made.
pub fn make_state_dir(dir: &Path) -> Result<(), CommandError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        CommandError::failed(format!("cannot make the state directory {}: {error}", dir.display()))
            .hint("choose another with `--state-dir DIR`, or run as the user it belongs to")
    })
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_error_names_it() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("state/keepwatch");
        let held = StateLock::take(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(dir.join(LOCK).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(holder(&dir), Some(std::process::id()));
        let error = StateLock::take(&dir).unwrap_err();
        assert!(error.message.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        assert_eq!(holder(&dir), None);
        StateLock::take(&dir).unwrap();
    }
}
