//! The mark at a target's top: whose it is, and which. A disk that is not mounted has none.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::LocalTarget;
use crate::model::JournalId;
use crate::target::{Claim, MARK, Result, TargetError};

/// The format of the mark.
const FORMAT: u32 = 1;
/// No mark is longer.
const BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    keepwatch_replica: u32,
    id: String,
    owner: String,
    host: String,
}

/// The mark's id, if it is there and the one that is expected; `None` if there is none and none is expected.
pub(super) fn check(target: &LocalTarget, top: &OwnedFd, claim: &Claim) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(top, MARK, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) if claim.identity.is_none() => return Ok(None),
        Err(Errno::NOENT) => {
            return Err(target.away(
                "what is there is not the replica (its mark is missing): is it mounted? Nothing was written to it",
            ));
        }
        Err(error) => return Err(target.away(format!("its mark cannot be read: {error}"))),
    };
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text).map_err(|error| target.away(format!("its mark: {error}")))?;
    let mark: Mark =
        serde_json::from_slice(&text).map_err(|error| target.away(format!("its mark is damaged: {error}")))?;
    if mark.owner != claim.owner {
        let (place, mark_path) = (target.top.display().to_string(), String::from_utf8_lossy(MARK).into_owned());
        return Err(TargetError::Owned { place, host: mark.host, mark: mark_path });
    }
    match &claim.identity {
        Some(identity) if *identity != mark.id => {
            Err(target
                .away("another replica of this host is there: is the right disk mounted? Nothing was written to it"))
        }
        _ => Ok(Some(mark.id)),
    }
}

/// Marks a place that was never used. It is on disk when this returns.
pub(super) fn make(target: &LocalTarget, top: &OwnedFd, claim: &Claim) -> Result<String> {
    let id = JournalId::random().to_string();
    let mark = Mark { keepwatch_replica: FORMAT, id: id.clone(), owner: claim.owner.clone(), host: claim.host.clone() };
    let unwritable = |error: std::io::Error| target.away(format!("it cannot be written: {error}"));
    let text = serde_json::to_string_pretty(&mark).map_err(|error| unwritable(error.into()))?;
    // Whole or not at all: a mark that was torn by a crash would have to be removed by hand.
    let new = [MARK, b".new"].concat();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(top, &*new, flags, Mode::from(0o644)).map_err(|error| unwritable(error.into()))?;
    let mut file = File::from(file);
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(unwritable)?;
    rustix::fs::renameat_with(top, &*new, top, MARK, rustix::fs::RenameFlags::NOREPLACE)
        .or_else(|error| match error {
            Errno::INVAL | Errno::NOSYS => rustix::fs::renameat(top, &*new, top, MARK),
            error => Err(error),
        })
        .and_then(|()| rustix::fs::fsync(top.as_fd()))
        .map_err(|error| unwritable(error.into()))?;
    Ok(id)
}
