//! Looking at one name: what is there now, without following anything.
//!
//! `statx` is asked without `AT_STATX_DONT_SYNC`: on a network filesystem cached attributes would hide just those
//! changes of other hosts that a scan is there to find, and on a local one the flag changes nothing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use keepwatch_journal::{Facts, FileType, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// Only what [`Facts`] hold: a network filesystem may have to ask for each.
const WANTED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::MODE)
    .union(StatxFlags::NLINK)
    .union(StatxFlags::UID)
    .union(StatxFlags::GID)
    .union(StatxFlags::MTIME)
    .union(StatxFlags::CTIME)
    .union(StatxFlags::INO)
    .union(StatxFlags::SIZE);

/// How a directory is opened to be read: never through a link, and without marking it as read.
const READ_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOATIME);

/// What `statx` told of a name: [`Facts`] without the target of a symbolic link, small enough to be held by the
/// ten thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970 UTC, cut to what 64 bits hold.
    pub mtime_ns: i64,
    /// The same for the last change of the inode.
    pub ctime_ns: i64,
    /// The device number, `st_dev`; of a mount point that of what is mounted there.
    pub dev: u64,
    /// The inode number.
    pub inode: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Permission bits, `st_mode & 0o7777`.
    pub mode: u16,
    /// What kind.
    pub kind: FileType,
    /// Whether something is mounted here. False on kernels before 5.8, which do not tell.
    pub mount_root: bool,
}

impl From<&Statx> for Stat {
    fn from(statx: &Statx) -> Self {
        Stat {
            size: statx.stx_size,
            mtime_ns: nanoseconds(statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
            ctime_ns: nanoseconds(statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
            dev: rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
            inode: statx.stx_ino,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            nlink: statx.stx_nlink,
            mode: statx.stx_mode & 0o7777,
            kind: FileType::of_mode(statx.stx_mode.into()),
            mount_root: statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }
}

impl From<&rustix::fs::Stat> for Stat {
    fn from(stat: &rustix::fs::Stat) -> Self {
        let rest = |nanoseconds| u32::try_from(nanoseconds).unwrap_or(0);
        Stat {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime, rest(stat.st_mtime_nsec)),
            ctime_ns: nanoseconds(stat.st_ctime, rest(stat.st_ctime_nsec)),
            dev: stat.st_dev,
            inode: stat.st_ino,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            kind: FileType::of_mode(stat.st_mode),
            mount_root: false,
        }
    }
}

impl Stat {
    /// The facts, with where a symbolic link points if that was read.
    #[must_use]
    pub fn facts(self, target: Option<Box<[u8]>>) -> Facts {
        Facts {
            kind: self.kind,
            size: self.size,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            dev: self.dev,
            inode: self.inode,
            mode: u32::from(self.mode),
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            target,
        }
    }
}

/// Seconds and nanoseconds as nanoseconds, cut to what 64 bits hold.
pub(super) fn nanoseconds(seconds: i64, rest: u32) -> i64 {
    let exact = i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    exact.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// What `statx` told, as facts; the target of a symbolic link is not in it.
#[must_use]
pub fn facts_of(statx: &Statx) -> Facts {
    Stat::from(statx).facts(None)
}

/// What is at `name` in `dir`, of a symbolic link with its target; `None` if nothing is. An empty name is the
/// directory itself.
///
/// # Errors
/// What the kernel says, other than that there is nothing; `InvalidInput` if `name` is more than a name.
pub fn look(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Facts>> {
    if name.contains(&b'/') || name.contains(&0) || name == b"." || name == b".." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a directory entry"));
    }
    match look_at(dir.as_fd(), OsStr::from_bytes(name)) {
        Ok(facts) => Ok(Some(facts)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn look_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Facts> {
    let stat = if name.is_empty() { stat_of(dir)? } else { stat_at(dir, name)? };
    if stat.kind != FileType::Symlink {
        return Ok(stat.facts(None));
    }
    // Facts and target must be those of one link, and by its name it could be replaced between two calls.
    let link = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = stat_of(link.as_fd())?;
    if stat.kind != FileType::Symlink {
        return Ok(stat.facts(None));
    }
    let target = rustix::fs::readlinkat(&link, c"", Vec::new())?;
    Ok(stat.facts(Some(target.into_bytes().into_boxed_slice())))
}

/// What `statx` tells of `name` in `dir`.
///
/// # Errors
/// What the kernel says: `NOENT` if nothing is there.
pub fn stat_at(dir: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<Stat> {
    // AT_NO_AUTOMOUNT: to look must not mount. AT_EMPTY_PATH costs 2 % and is left to `stat_of`.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, WANTED).map(|statx| Stat::from(&statx))
}

/// When `name` in `dir` came to be, in nanoseconds since 1970 UTC; `None` on file systems that do not keep that.
///
/// # Errors
/// What the kernel says: `NOENT` if nothing is there.
pub fn born(dir: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<Option<i64>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let statx = rustix::fs::statx(dir, name, flags, StatxFlags::BTIME)?;
    let is_kept = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(is_kept.then(|| nanoseconds(statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec)))
}

/// What `statx` tells of what is open, also with `O_PATH`.
///
/// # Errors
/// What the kernel says.
pub fn stat_of(open: BorrowedFd<'_>) -> rustix::io::Result<Stat> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(open, c"", flags, WANTED).map(|statx| Stat::from(&statx))
}

/// Opens the directory `name` of `parent` to read it.
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    or_with_atime(|flags| rustix::fs::openat(parent, name, flags, Mode::empty()))
}

/// Opens the directory `path` below `root` to read it.
pub(super) fn open_dir_beneath(root: BorrowedFd<'_>, path: &RelPath) -> rustix::io::Result<OwnedFd> {
    or_with_atime(|flags| crate::beneath::open_path(root, path, flags))
}

/// Only the owner, or who may act as the owner, may leave the access time alone (open(2), `O_NOATIME`).
fn or_with_atime(open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    match open(READ_DIR) {
        Err(Errno::PERM) => open(READ_DIR.difference(OFlags::NOATIME)),
        opened => opened,
    }
}
