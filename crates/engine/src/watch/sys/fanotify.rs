//! `fanotify_init(2)`, `fanotify_mark(2)`, and reading a group's events.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::fanotify_record::{self, Malformed, RawEvent};
use super::{done, owned};

/// Makes a notification group with `flags` in addition to close-on-exec and non-blocking.
pub(crate) fn init(flags: u32) -> io::Result<OwnedFd> {
    let flags = flags | libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    let event_flags = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
    // SAFETY: takes two integers and touches no memory of ours.
    owned(unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) })
}

/// Changes the group's marks on the directory `dir`, which may be an `O_PATH` descriptor.
pub(crate) fn mark(group: BorrowedFd<'_>, flags: u32, mask: u64, dir: BorrowedFd<'_>) -> io::Result<()> {
    // A null path would be shorter, but is refused with an O_PATH descriptor; "." means the same.
    // SAFETY: the path is a constant, NUL-terminated string; both descriptors are borrowed for the call.
    done(unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, dir.as_raw_fd(), c".".as_ptr()) })
}

/// Reads once into `buffer` and hands each event to `each`. Returns how many bytes came; `WouldBlock` means that the queue is empty.
///
/// # Errors
/// What `read(2)` says, or `InvalidData` for bytes that are no fanotify events.
pub(crate) fn read(group: BorrowedFd<'_>, buffer: &mut [u8], mut each: impl FnMut(RawEvent<'_>)) -> io::Result<usize> {
    let len = rustix::io::retry_on_intr(|| rustix::io::read(group, &mut *buffer))?;
    for event in fanotify_record::events(&buffer[..len]) {
        let event = event.map_err(|Malformed(why)| io::Error::new(io::ErrorKind::InvalidData, why))?;
        each(event);
    }
    Ok(len)
}
