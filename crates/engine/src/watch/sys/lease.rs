//! Read leases, `fcntl(2)` `F_SETLEASE`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::done;

/// `F_SETSIG` of `asm-generic/fcntl.h`; the same number on every architecture.
const F_SETSIG: libc::c_int = 10;

/// Takes a read lease on `file`, which must be open for reading only. `WouldBlock`: somebody has it open for writing.
///
/// It ends when the file is closed. A break of the lease is told by SIGURG, which nobody notices, in place of SIGIO, which would end the process.
pub(crate) fn take(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integer arguments only.
    done(unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) })?;
    // SAFETY: integer arguments only.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) })
}
