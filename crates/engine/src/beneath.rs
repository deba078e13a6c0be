//! Opening what lies below a directory, and nothing else: no link leads out, whoever swaps names meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::model::RelPath;

/// The longest path that one system call takes, its closing NUL included (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Opens `path` below `root` without leaving it and without following any symbolic link, however long the path.
/// A symbolic link at its end can be opened with `O_PATH | O_NOFOLLOW`.
///
/// # Errors
/// What the kernel says. A symbolic link on the way is `ELOOP`, or `ENOTDIR` where the kernel has no `openat2`.
pub fn open_beneath(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
    open_path(root, path, flags.union(OFlags::CLOEXEC)).map_err(io::Error::from)
}

pub(crate) fn open_path(root: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match open_in_pieces(root, path, flags, PATH_MAX - 1, open_resolved) {
        // Kernels before 5.6 do not have the call; seccomp filters that do not know it answer EPERM.
        Err(Errno::NOSYS | Errno::PERM) => open_in_pieces(root, path, flags, 1, open_component),
        opened => opened,
    }
}

/// Opens `path` in pieces of whole components: as many as fit in `piece_max` bytes, but at least one.
pub(crate) fn open_in_pieces(
    root: BorrowedFd<'_>,
    path: &RelPath,
    flags: OFlags,
    piece_max: usize,
    open: impl Fn(BorrowedFd<'_>, &[u8], OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    if path.is_root() {
        return rustix::fs::openat(root, c".", flags, Mode::empty());
    }
    let mut rest = path.as_bytes();
    let mut dir: Option<OwnedFd> = None;
    loop {
        let from = dir.as_ref().map_or(root, AsFd::as_fd);
        let Some(cut) = cut(rest, piece_max) else {
            return open(from, rest, flags);
        };
        dir = Some(open(from, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?);
        rest = &rest[cut + 1..];
    }
}

/// The slash to cut a path at, so that what stands before it is at most `piece_max` bytes or one component.
fn cut(path: &[u8], piece_max: usize) -> Option<usize> {
    if path.len() <= piece_max {
        return None;
    }
    let within = path[..=piece_max].iter().rposition(|byte| *byte == b'/');
    within.or_else(|| path.iter().position(|byte| *byte == b'/'))
}

fn open_resolved(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
}

pub(crate) fn open_component(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty())
}
