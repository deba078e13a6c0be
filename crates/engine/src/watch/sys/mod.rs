//! System calls that no crate wraps safely, each behind a safe function. The only `unsafe` of the program.
//!
//! What the kernel writes is taken apart in [`fanotify_record`] and [`inotify_record`], which are pure functions
//! over bytes and trust nothing they read.
#![allow(unsafe_code)]

pub(crate) mod fanotify;
pub(crate) mod fanotify_record;
pub(crate) mod fs_uuid;
pub(crate) mod handle;
pub(crate) mod inotify_record;
pub(crate) mod lease;
pub(crate) mod memory;
pub(crate) mod priority;
pub(crate) mod signal;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The result of a system call that returns a new descriptor, or -1 and `errno`.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call has just returned this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The result of a system call that returns nothing, or -1 and `errno`.
fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
