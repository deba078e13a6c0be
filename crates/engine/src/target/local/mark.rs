//! The mark in a directory of this machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::LocalTarget;
use crate::target::mark::{BYTES_MAX, fresh, judge};
use crate::target::{Claim, MARK, Result};

/// The mark's id, if it is there and the one that is expected; `None` if there is none and none is expected.
pub(super) fn check(target: &LocalTarget, top: &OwnedFd, claim: &Claim) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let text = match rustix::fs::openat(top, MARK, flags, Mode::empty()) {
        Ok(file) => {
            let mut text = Vec::new();
            let read = File::from(file).take(BYTES_MAX).read_to_end(&mut text);
            read.map_err(|error| target.away(format!("its mark: {error}")))?;
            Some(text)
        }
        Err(Errno::NOENT) => None,
        Err(error) => return Err(target.away(format!("its mark cannot be read: {error}"))),
    };
    judge(&target.top.display().to_string(), text.as_deref(), claim)
}

/// Marks a place that was never used. It is on disk when this returns.
pub(super) fn make(target: &LocalTarget, top: &OwnedFd, claim: &Claim) -> Result<String> {
    let unwritable = |error: std::io::Error| target.away(format!("it cannot be written: {error}"));
    let (id, text) = fresh(claim).map_err(|error| unwritable(error.into()))?;
    // Whole or not at all: a mark that was torn by a crash would have to be removed by hand.
    let new = [MARK, b".new"].concat();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(top, &*new, flags, Mode::from(0o644)).map_err(|error| unwritable(error.into()))?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable)?;
    rustix::fs::renameat_with(top, &*new, top, MARK, rustix::fs::RenameFlags::NOREPLACE)
        .or_else(|error| match error {
            Errno::INVAL | Errno::NOSYS => rustix::fs::renameat(top, &*new, top, MARK),
            error => Err(error),
        })
        .and_then(|()| rustix::fs::fsync(top.as_fd()))
        .map_err(|error| unwritable(error.into()))?;
    Ok(id)
}
