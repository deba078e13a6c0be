//! Who has the state directory, seen from outside. Taking it is the engine's business.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::error::CommandError;

/// Which process holds the state directory, without taking it; `None` if none does, or it cannot be told.
#[must_use]
pub fn holder(dir: &Path) -> Option<u32> {
    let mut file = File::open(dir.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            (&mut file).take(32).read_to_string(&mut text).ok()?;
            text.trim().parse().ok()
        }
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
