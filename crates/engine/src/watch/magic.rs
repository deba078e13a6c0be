//! Kinds of file systems, by the number that `statfs(2)` gives (`linux/magic.h`).

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::fstatfs;

/// What a file system's changes can be known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// This machine alone writes to it.
    Local,
    /// Others may write to it, and the kernel does not hear of that.
    Network,
    /// The kernel makes its files up.
    Pseudo,
}

const KNOWN: &[(u32, &str, Reach)] = &[
    (0xef53, "ext4", Reach::Local),
    (0x5846_5342, "xfs", Reach::Local),
    (0x9123_683e, "btrfs", Reach::Local),
    (0x0102_1994, "tmpfs", Reach::Local),
    (0x8584_58f6, "ramfs", Reach::Local),
    (0xf2f5_2010, "f2fs", Reach::Local),
    (0x2fc1_2fc1, "zfs", Reach::Local),
    (0xca45_1a4e, "bcachefs", Reach::Local),
    (0x794c_7630, "overlay", Reach::Local),
    (0x4d44, "vfat", Reach::Local),
    (0x2011_bab0, "exfat", Reach::Local),
    (0x7366_746e, "ntfs3", Reach::Local),
    (0x5265_4973, "reiserfs", Reach::Local),
    (0x3153_464a, "jfs", Reach::Local),
    (0x3434, "nilfs2", Reach::Local),
    (0x9660, "iso9660", Reach::Local),
    (0x1501_3346, "udf", Reach::Local),
    (0x7371_7368, "squashfs", Reach::Local),
    (0xe0f5_e1e2, "erofs", Reach::Local),
    (0xf15f, "ecryptfs", Reach::Local),
    (0x6969, "nfs", Reach::Network),
    (0x517b, "smb", Reach::Network),
    (0xff53_4d42, "cifs", Reach::Network),
    (0xfe53_4d42, "smb3", Reach::Network),
    // Whose files a FUSE program serves, only it knows; most serve another machine's.
    (0x6573_5546, "fuse", Reach::Network),
    (0x0102_1997, "9p", Reach::Network),
    (0x00c3_6400, "ceph", Reach::Network),
    (0x5346_414f, "afs", Reach::Network),
    (0x6b41_4653, "afs", Reach::Network),
    (0x7375_7245, "coda", Reach::Network),
    (0x564c, "ncp", Reach::Network),
    (0x0116_1970, "gfs2", Reach::Network),
    (0x7461_636f, "ocfs2", Reach::Network),
    (0x0bd0_0bd0, "lustre", Reach::Network),
    (0x4750_4653, "gpfs", Reach::Network),
    (0x9fa0, "proc", Reach::Pseudo),
    (0x6265_6572, "sysfs", Reach::Pseudo),
    (0x1cd1, "devpts", Reach::Pseudo),
    (0x0027_e0eb, "cgroup", Reach::Pseudo),
    (0x6367_7270, "cgroup2", Reach::Pseudo),
    (0x6462_6720, "debugfs", Reach::Pseudo),
    (0x7472_6163, "tracefs", Reach::Pseudo),
    (0x7363_6673, "securityfs", Reach::Pseudo),
    (0xf97c_ff8c, "selinuxfs", Reach::Pseudo),
    (0xcafe_4a11, "bpf", Reach::Pseudo),
    (0x6165_676c, "pstore", Reach::Pseudo),
    (0xde5e_81e4, "efivarfs", Reach::Pseudo),
    (0x6265_6570, "configfs", Reach::Pseudo),
    (0x4249_4e4d, "binfmt_misc", Reach::Pseudo),
    (0x6573_5543, "fusectl", Reach::Pseudo),
    (0x1980_0202, "mqueue", Reach::Pseudo),
    (0x6e73_6673, "nsfs", Reach::Pseudo),
    (0x9584_58f6, "hugetlbfs", Reach::Pseudo),
    (0x0187, "autofs", Reach::Pseudo),
];

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FsMagic(pub u32);

impl FsMagic {
    /// btrfs, whose subvolumes need care.
    pub const BTRFS: FsMagic = FsMagic(0x9123_683e);

    /// Of the file system that `fd` lies on.
    ///
    /// # Errors
    /// What `fstatfs(2)` says.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<FsMagic> {
        // The field's width and sign differ between architectures; all numbers have 32 bits.
        Ok(FsMagic(fstatfs(fd)?.f_type as u32))
    }

    /// Whether other machines may change its files unseen: NFS, SMB, FUSE, 9p, Ceph, AFS, cluster file systems.
    #[must_use]
    pub fn is_network(self) -> bool {
        self.known().is_some_and(|(_, reach)| reach == Reach::Network)
    }

    /// Whether the kernel makes its files up, as `proc` does: nothing there can be watched or kept.
    #[must_use]
    pub fn is_pseudo(self) -> bool {
        self.known().is_some_and(|(_, reach)| reach == Reach::Pseudo)
    }

    fn known(self) -> Option<(&'static str, Reach)> {
        KNOWN.iter().find(|(magic, ..)| *magic == self.0).map(|(_, name, reach)| (*name, *reach))
    }
}

impl fmt::Display for FsMagic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "file system {:#x}", self.0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::testing::open_dir;
    use std::collections::HashSet;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn no_number_stands_twice() {
        let numbers: HashSet<u32> = KNOWN.iter().map(|(magic, ..)| *magic).collect();
        assert_eq!(numbers.len(), KNOWN.len());
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        for (magic, name) in [
            (libc::EXT4_SUPER_MAGIC, "ext4"),
            (libc::XFS_SUPER_MAGIC, "xfs"),
            (libc::BTRFS_SUPER_MAGIC, "btrfs"),
            (libc::TMPFS_MAGIC, "tmpfs"),
            (libc::F2FS_SUPER_MAGIC, "f2fs"),
            (libc::OVERLAYFS_SUPER_MAGIC, "overlay"),
            (libc::NFS_SUPER_MAGIC, "nfs"),
            (libc::SMB_SUPER_MAGIC, "smb"),
            (libc::FUSE_SUPER_MAGIC, "fuse"),
            (libc::AFS_SUPER_MAGIC, "afs"),
            (libc::CODA_SUPER_MAGIC, "coda"),
            (libc::PROC_SUPER_MAGIC, "proc"),
            (libc::SYSFS_MAGIC, "sysfs"),
            (libc::CGROUP2_SUPER_MAGIC, "cgroup2"),
            (libc::DEBUGFS_MAGIC, "debugfs"),
            (libc::BPF_FS_MAGIC, "bpf"),
        ] {
            assert_eq!(FsMagic(magic as u32).to_string(), name);
        }
    }

    #[test]
    fn proc_is_pseudo_and_nfs_is_of_the_network() {
        let proc = FsMagic::of(open_dir(Path::new("/proc")).as_fd()).unwrap();
        assert!(proc.is_pseudo() && !proc.is_network());
        assert!(FsMagic(0x6969).is_network() && !FsMagic(0x6969).is_pseudo());
        assert!(!FsMagic(0xef53).is_network() && !FsMagic(0xef53).is_pseudo());
        assert_eq!(FsMagic(0x1234_5678).to_string(), "file system 0x12345678");
    }
}
