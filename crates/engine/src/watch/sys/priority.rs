//! How a thread's reading gives way to others'.

use std::io;

/// The class that is served when nobody else wants the disk, `IOPRIO_CLASS_IDLE` shifted by `IOPRIO_CLASS_SHIFT`
/// (ioprio_set(2)).
const IDLE: libc::c_int = 3 << 13;
/// One thread: `IOPRIO_WHO_PROCESS`; the calling one: 0.
const WHO_PROCESS: libc::c_int = 1;

/// The calling thread's reads and writes wait for all others.
pub(crate) fn give_way() -> io::Result<()> {
    // SAFETY: the call takes numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
