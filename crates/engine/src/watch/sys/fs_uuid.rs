//! The UUID of a file system: `FS_IOC_GETFSUUID` (Linux 6.9), and btrfs's own way.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

/// `struct fsuuid2` of `linux/fs.h`.
#[repr(C)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `struct btrfs_ioctl_fs_info_args` of `linux/btrfs.h`.
#[repr(C)]
struct BtrfsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}

const FS_IOC_GETFSUUID: Opcode = opcode::read::<FsUuid>(0x15, 0);
const BTRFS_IOC_FS_INFO: Opcode = opcode::read::<BtrfsInfo>(0x94, 31);

/// The UUID, usually 16 bytes. `fd` must not be an `O_PATH` descriptor. `ENOTTY` and `EOPNOTSUPP`: it has none.
pub(crate) fn get(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // SAFETY: the opcode carries the size of `FsUuid`, which is all that the kernel writes, and any bytes make one.
    let answer = unsafe { ioctl(fd, Getter::<FS_IOC_GETFSUUID, FsUuid>::new()) }?;
    let len = usize::from(answer.len).min(answer.uuid.len());
    Ok(answer.uuid[..len].to_vec())
}

/// The UUID of the btrfs that `fd` lies on; the same for all its subvolumes. For `fd` on btrfs only.
pub(crate) fn get_btrfs(fd: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    let mut info = BtrfsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: the opcode carries the size of `BtrfsInfo`, which is all that the kernel reads and writes; any bytes
    // make one.
    unsafe { ioctl(fd, Updater::<BTRFS_IOC_FS_INFO, BtrfsInfo>::new(&mut info)) }?;
    Ok(info.fsid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!((size_of::<FsUuid>(), size_of::<BtrfsInfo>()), (17, 1024));
        assert_eq!(std::mem::offset_of!(BtrfsInfo, fsid), 16);
    }
}
