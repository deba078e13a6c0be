//! The real file systems, looked at by identity.
//!
//! A directory is opened by its file handle where the kernel lets us, else by its path below its root and then
//! checked. Descriptors are kept only while there is work: even one would make `umount` fail.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fstat, open, openat, readlink, statat};
use rustix::io::Errno;

use crate::beneath::open_beneath;
use crate::daemon::dirs::RootNo;
use crate::daemon::tree::{DirAt, Located, Look, Tree, Writers};
use crate::scan;
use crate::watch::DirKey;
use crate::watch::handle::{child_key, dir_key, fsid_of, is_object, open_by_key};
use crate::watch::lease::{Verdict, no_writer};

/// Directories kept open while there is work.
const OPEN_DIRS: usize = 32;
/// Levels to go up before giving up.
const LEVELS_MAX: usize = 64 * 1024;
/// A directory that is renamed while it is looked for is looked for so many times.
const LOCATE_TRIES: usize = 8;

/// A root's top directory, as it was when the root was found present.
#[derive(Debug)]
struct Top {
    path: PathBuf,
    /// Device and inode: another directory at the same path is not the root.
    object: Option<(u64, u64)>,
    fd: Option<OwnedFd>,
}

/// A file system that can be entered at `path` while it is mounted there.
#[derive(Debug)]
struct Entry {
    fsid: [u8; 8],
    /// What tells it where it has no id of its own.
    dev: u64,
    path: PathBuf,
    fd: Option<OwnedFd>,
}

/// File systems below the roots.
#[derive(Debug, Default)]
pub struct FsTree {
    tops: Vec<Top>,
    entries: Vec<Entry>,
    open: Vec<(DirKey, OwnedFd)>,
    /// Handles cannot be opened by this process: only paths can.
    no_handles: bool,
}

impl Entry {
    /// Its top directory, opened; `None` if it is not mounted there.
    fn enter(&mut self) -> Option<BorrowedFd<'_>> {
        if self.fd.is_none() {
            let fd = open(&self.path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let is_it = match self.fsid {
                NO_ID => fstat(&fd).ok()?.st_dev == self.dev,
                fsid => fsid_of(fd.as_fd()).ok()? == fsid,
            };
            if !is_it {
                return None;
            }
            self.fd = Some(fd);
        }
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

/// What a file system has that has no id of its own.
const NO_ID: [u8; 8] = [0; 8];

enum Opened {
    Fd,
    Gone,
    Unavailable,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl FsTree {
    /// Roots at these paths, all of them absent until told otherwise.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let tops = paths.into_iter().map(|path| Top { path, object: None, fd: None }).collect();
        FsTree { tops, ..FsTree::default() }
    }

    /// From now on the root is the directory with this device and inode; `None`: it is absent.
    pub fn set_top(&mut self, root: RootNo, object: Option<(u64, u64)>) {
        let top = &mut self.tops[usize::from(root.0)];
        top.object = object;
        top.fd = None;
        self.open.clear();
    }

    /// A file system that lies below a root, and where to enter it. It stays known when it is unmounted: what is known
    /// on it cannot be looked at then, and is not gone.
    pub fn set_entry(&mut self, (fsid, dev): ([u8; 8], u64), path: &Path) {
        self.entries.retain(|entry| entry.path != path);
        self.entries.push(Entry { fsid, dev, path: path.to_owned(), fd: None });
    }

    /// It is not mounted there any more.
    pub fn close_entry(&mut self, path: &Path) {
        for entry in self.entries.iter_mut().filter(|entry| entry.path == path) {
            entry.fd = None;
        }
        self.open.clear();
    }

    fn top(&mut self, root: RootNo) -> Option<BorrowedFd<'_>> {
        let top = self.tops.get_mut(usize::from(root.0))?;
        let object = top.object?;
        if top.fd.is_none() {
            let fd = open(&top.path, DIRECTORY | OFlags::PATH, Mode::empty()).ok()?;
            let stat = fstat(&fd).ok()?;
            if (stat.st_dev, stat.st_ino) != object {
                return None;
            }
            top.fd = Some(fd);
        }
        top.fd.as_ref().map(AsFd::as_fd)
    }

    fn mount(&mut self, fsid: [u8; 8]) -> Option<BorrowedFd<'_>> {
        self.entries.iter_mut().filter(|entry| entry.fsid == fsid).find_map(Entry::enter)
    }

    /// Whether the directory lies on a file system that is known and mounted nowhere now. Where it was nothing of it is
    /// found, and that tells nothing.
    fn is_away(&mut self, key: &DirKey) -> bool {
        let (fsid, dev) = (key.fsid(), key.dev());
        let mut known = false;
        for entry in self.entries.iter_mut().filter(|entry| Some(entry.fsid) == fsid || Some(entry.dev) == dev) {
            if entry.enter().is_some() {
                return false;
            }
            known = true;
        }
        known
    }

    /// `None`: it was renamed while it was looked for.
    fn locate_once(&mut self, key: &DirKey, known: &mut dyn FnMut(&DirKey) -> bool) -> Option<Located> {
        let mut fd = match self.by_handle(key) {
            Some(Ok(fd)) => fd,
            Some(Err(error)) if Errno::from_io_error(&error) == Some(Errno::STALE) => return Some(Located::Gone),
            Some(Err(_)) | None => return Some(Located::Unavailable),
        };
        let mut here = key.clone();
        let mut chain = Vec::new();
        for _ in 0..LEVELS_MAX {
            if known(&here) {
                chain.reverse();
                return Some(Located::Below(here, chain));
            }
            let Ok(above) = openat(&fd, "..", DIRECTORY | OFlags::PATH, Mode::empty()) else {
                return Some(Located::Unavailable);
            };
            let Ok(above_key) = dir_key(above.as_fd()) else { return Some(Located::Unavailable) };
            if above_key == here {
                return Some(Located::Outside);
            }
            match name_in(&fd, &above, &here) {
                Some(name) => chain.push((here, name)),
                None => return removed(&fd).then_some(Located::Gone),
            }
            (fd, here) = (above, above_key);
        }
        Some(Located::Outside)
    }

    fn by_handle(&mut self, key: &DirKey) -> Option<io::Result<OwnedFd>> {
        let fsid = key.fsid()?;
        if self.no_handles {
            return None;
        }
        let mount = self.mount(fsid)?;
        match open_by_key(mount, key, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                self.no_handles = true;
                None
            }
            result => Some(result),
        }
    }

    fn by_path(&mut self, dir: DirAt<'_>) -> io::Result<Option<OwnedFd>> {
        let Some(top) = self.top(dir.root) else { return Err(Errno::NODEV.into()) };
        let fd = match open_beneath(top, dir.path, DIRECTORY | OFlags::PATH) {
            Ok(fd) => fd,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                    _ => Err(error),
                };
            }
        };
        Ok((dir_key(fd.as_fd())? == *dir.key).then_some(fd))
    }

    fn open(&mut self, dir: DirAt<'_>) -> Opened {
        if let Some(index) = self.open.iter().position(|(key, _)| key == dir.key) {
            let last = self.open.len() - 1;
            self.open.swap(index, last);
            return Opened::Fd;
        }
        // Even where a handle would do: what is mounted over a root's path is not the root.
        if self.top(dir.root).is_none() {
            return Opened::Unavailable;
        }
        let fd = match self.by_handle(dir.key) {
            Some(Ok(fd)) => fd,
            Some(Err(error)) if Errno::from_io_error(&error) == Some(Errno::STALE) => return Opened::Gone,
            Some(Err(_)) => return Opened::Unavailable,
            None => match self.by_path(dir) {
                Ok(Some(fd)) => fd,
                Ok(None) if self.is_away(dir.key) => return Opened::Unavailable,
                Ok(None) => return Opened::Gone,
                Err(_) => return Opened::Unavailable,
            },
        };
        if self.open.len() >= OPEN_DIRS {
            self.open.remove(0);
        }
        self.open.push((dir.key.clone(), fd));
        Opened::Fd
    }

    fn last(&self) -> Option<BorrowedFd<'_>> {
        self.open.last().map(|(_, fd)| fd.as_fd())
    }
}

impl Tree for FsTree {
    fn look(&mut self, dir: DirAt<'_>, name: &[u8]) -> Look {
        match self.open(dir) {
            Opened::Fd => {}
            Opened::Gone => return Look::Gone,
            Opened::Unavailable => return Look::Unavailable,
        }
        let Some(fd) = self.last() else { return Look::Unavailable };
        if name.contains(&0) {
            return Look::Gone;
        }
        match scan::look(fd, name) {
            Ok(Some(facts)) if name.is_empty() && facts.nlink == 0 => Look::Gone,
            Ok(Some(facts)) => Look::There(facts),
            Ok(None) => Look::Gone,
            Err(_) => Look::Unavailable,
        }
    }

    fn key_of(&mut self, dir: DirAt<'_>, name: &[u8]) -> Option<DirKey> {
        match self.open(dir) {
            Opened::Fd => child_key(self.last()?, name).ok(),
            Opened::Gone | Opened::Unavailable => None,
        }
    }

    fn is_object(&mut self, dir: DirAt<'_>, name: &[u8], object: &DirKey) -> Option<bool> {
        match self.open(dir) {
            Opened::Fd => is_object(self.last()?, name, object),
            Opened::Gone | Opened::Unavailable => None,
        }
    }

    fn born(&mut self, dir: DirAt<'_>, name: &[u8]) -> Option<i64> {
        match self.open(dir) {
            Opened::Fd => scan::born(self.last()?, name).ok()?,
            Opened::Gone | Opened::Unavailable => None,
        }
    }

    fn object_of(&mut self, object: &DirKey) -> Option<((u64, u64), u64)> {
        let fsid = object.fsid()?;
        if self.no_handles {
            return None;
        }
        let mount = self.mount(fsid)?;
        let fd = open_by_key(mount, object, OFlags::PATH | OFlags::CLOEXEC).ok()?;
        let stat = fstat(&fd).ok()?;
        (stat.st_nlink > 0).then_some(((stat.st_dev, stat.st_ino), stat.st_nlink))
    }

    fn locate(&mut self, key: &DirKey, known: &mut dyn FnMut(&DirKey) -> bool) -> Located {
        // What is renamed just now has no name for a moment; it is not gone for that.
        (0..LOCATE_TRIES).find_map(|_| self.locate_once(key, known)).unwrap_or(Located::Unavailable)
    }

    fn writers(&mut self, dir: DirAt<'_>, name: &[u8], inode: u64) -> Writers {
        match self.open(dir) {
            Opened::Fd => {}
            Opened::Gone | Opened::Unavailable => return Writers::Unknown,
        }
        let Some(fd) = self.last() else { return Writers::Unknown };
        match no_writer(fd, name) {
            Ok(lease) if lease.stat.st_ino != inode => Writers::Unknown,
            Ok(lease) => match lease.verdict {
                Verdict::NoWriter => Writers::None(scan::Stat::from(&lease.stat).facts(None)),
                Verdict::Busy => Writers::Some,
                Verdict::Unsupported => Writers::Unknown,
            },
            Err(_) => Writers::Unknown,
        }
    }

    fn rest(&mut self) {
        self.open.clear();
        for top in &mut self.tops {
            top.fd = None;
        }
        for entry in &mut self.entries {
            entry.fd = None;
        }
    }
}

fn removed(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| stat.st_nlink == 0)
}

/// What the directory is called in the one above it: the kernel's word, checked against what has that name now.
fn name_in(fd: &OwnedFd, above: &OwnedFd, key: &DirKey) -> Option<Box<[u8]>> {
    use std::os::fd::AsRawFd;
    if removed(fd) {
        return None;
    }
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?.into_bytes();
    let start = link.iter().rposition(|byte| *byte == b'/')? + 1;
    let name = &link[start..];
    if !name.is_empty() && child_key(above.as_fd(), name).is_ok_and(|found| found == *key) {
        return Some(name.into());
    }
    // Its path is longer than the kernel tells of, or it was renamed just now: look through the directory above.
    let own = fstat(fd).ok()?;
    let listing = openat(above, ".", OFlags::RDONLY | DIRECTORY, Mode::empty()).ok()?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = rustix::fs::RawDir::new(&listing, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || entry.ino() != own.st_ino {
            continue;
        }
        let stat = statat(above, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) {
            return Some(std::ffi::OsString::from_vec(name.to_vec()).into_vec().into());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::watch::handle::dir_key;
    use crate::watch::testing::{Mount, given, open_dir};
    use keepwatch_journal::RelPath;

    /// What a look at a file of a nested file system shows: while that is mounted, without the file, and unmounted.
    fn looks(mount: &Mount) -> [Look; 3] {
        let (top, path) = (mount.at.parent().unwrap(), RelPath::new(b"mounted/dir").unwrap());
        let dir = mount.at.join("dir");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("file"), "x").unwrap();
        let key = dir_key(open_dir(&dir).as_fd()).unwrap();
        let ids = |path: &Path| {
            let fd = open_dir(path);
            let stat = fstat(&fd).unwrap();
            ((fsid_of(fd.as_fd()).unwrap(), stat.st_dev), (stat.st_dev, stat.st_ino))
        };
        let mut tree = FsTree::new([top.to_owned()]);
        let (top_ids, object) = ids(top);
        tree.set_top(RootNo(0), Some(object));
        tree.set_entry(top_ids, top);
        tree.set_entry(ids(&mount.at).0, &mount.at);
        let mut look = |name: &[u8]| {
            let look = tree.look(DirAt { key: &key, root: RootNo(0), path: &path }, name);
            tree.rest();
            look
        };
        let (there, gone) = (look(b"file"), look(b"other"));
        mount.unmount().unwrap();
        [there, gone, look(b"file")]
    }

    #[test]
    fn what_lies_on_an_unmounted_file_system_is_not_gone() {
        for mount in [Mount::tmpfs(), Mount::on_loop("ext4"), Mount::overlay()] {
            let test = "what_lies_on_an_unmounted_file_system_is_not_gone";
            let Some(mount) = given(test, mount) else { return };
            let [there, gone, unmounted] = looks(&mount);
            assert!(matches!(there, Look::There(_)));
            assert_eq!(gone, Look::Gone);
            assert_eq!(unmounted, Look::Unavailable);
        }
    }
}
