//! Giving what was made here the attributes of its original, as far as this file system and our rights go.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::target::Meta;

fn timestamps(mtime_ns: i64) -> Timestamps {
    let mtime = Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT }, last_modification: mtime }
}

/// What only a privileged process may set is set as far as it goes.
fn as_far_as_allowed(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// Of what is open. Owner first: changing it takes set-id bits and capabilities away. Times last.
pub(super) fn set_meta_of(file: BorrowedFd<'_>, meta: &Meta) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    let is_given_away = (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid);
    if is_given_away {
        let (uid, gid) = (rustix::fs::Uid::from_raw(meta.uid), rustix::fs::Gid::from_raw(meta.gid));
        as_far_as_allowed(rustix::fs::fchown(file, Some(uid), Some(gid)))?;
    }
    for (name, value) in &meta.xattrs {
        as_far_as_allowed(rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()))?;
    }
    // An access control list among the attributes changes the mode, too.
    if is_given_away || !meta.xattrs.is_empty() || stat.st_mode & 0o7777 != meta.mode {
        rustix::fs::fchmod(file, Mode::from(meta.mode))?;
    }
    rustix::fs::futimens(file, &timestamps(meta.mtime_ns))
}

pub(super) fn set_link_meta(dir: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(meta.uid), rustix::fs::Gid::from_raw(meta.gid));
    as_far_as_allowed(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
    rustix::fs::utimensat(dir, name, &timestamps(meta.mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
}

/// Of what cannot be opened without effect. chmod(2) follows links, so that is only for names that nobody else can swap.
pub(super) fn set_node_meta(dir: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(meta.uid), rustix::fs::Gid::from_raw(meta.gid));
    as_far_as_allowed(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
    rustix::fs::chmodat(dir, name, Mode::from(meta.mode), AtFlags::empty())?;
    rustix::fs::utimensat(dir, name, &timestamps(meta.mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
}
