//! The UUID of a file system, `FS_IOC_GETFSUUID` (Linux 6.9).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, Opcode, ioctl, opcode};

/// `struct fsuuid2` of `linux/fs.h`.
#[repr(C)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

const FS_IOC_GETFSUUID: Opcode = opcode::read::<FsUuid>(0x15, 0);

/// The UUID, usually 16 bytes. `fd` must not be an `O_PATH` descriptor. `ENOTTY` and `EOPNOTSUPP`: it has none.
pub(crate) fn get(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // SAFETY: the opcode carries the size of `FsUuid`, which is all that the kernel writes, and any bytes make one.
    let answer = unsafe { ioctl(fd, Getter::<FS_IOC_GETFSUUID, FsUuid>::new()) }?;
    let len = usize::from(answer.len).min(answer.uuid.len());
    Ok(answer.uuid[..len].to_vec())
}
