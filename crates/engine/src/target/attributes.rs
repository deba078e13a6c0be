//! The attributes of an object of a file system, as a target keeps them.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::Meta;

/// The longest value of an extended attribute, and the longest list of their names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 65_536;

/// `st_mtime`, in nanoseconds.
pub(crate) fn mtime_of(stat: &Stat) -> i64 {
    let exact = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    i64::try_from(exact.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or(0)
}

/// What `stat` told, with these extended attributes.
pub(crate) fn meta_of(stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Meta {
    Meta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime_ns: mtime_of(stat), xattrs }
}

/// The extended attributes that can be read. A file system without any has none.
pub(crate) fn xattrs(file: BorrowedFd<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut small = [0; 256];
    let mut large;
    let names: &[u8] = match rustix::fs::flistxattr(file, &mut small[..]) {
        Ok(0) => return Vec::new(),
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            large = vec![0; XATTR_MAX];
            match rustix::fs::flistxattr(file, &mut large[..]) {
                Ok(length) => &large[..length],
                Err(_) => return Vec::new(),
            }
        }
        Err(_) => return Vec::new(),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_MAX];
        if let Ok(length) = rustix::fs::fgetxattr(file, OsStr::from_bytes(name), &mut value[..]) {
            value.truncate(length);
            value.shrink_to_fit();
            found.push((name.to_vec(), value));
        }
    }
    found
}
