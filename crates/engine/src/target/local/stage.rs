//! What a local target has taken in and not yet put in its place.
//!
//! A file has no name until it is published (`O_TMPFILE`, open(2)): it costs one change of a directory in place of three, many
//! threads make them without waiting for one directory, and a crash leaves nothing behind. Where the file system cannot do that,
//! and for what is no file, the name is in the staging directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::meta::{set_link_meta, set_meta_of, set_node_meta};
use super::session::{io, of_errno};
use crate::model::RelPath;
use crate::target::{Content, Meta, Result, STAGING, Staged, TargetError, shown};

/// The most that is read at once.
const BUFFER_MAX: usize = 256 * 1024;
/// The most that the kernel copies at once.
const KERNEL_STEP: usize = 64 * 1024 * 1024;
/// Zeros are left out in runs of this length, and at such offsets.
const HOLE: usize = 4096;
/// Characters of a state's id in the names of what is staged: as many as a UUID has digits.
const TAG_MAX: usize = 32;
/// Files without a name that are held open; beyond, they are named.
const NAMELESS_MAX: u64 = 16_384;

/// The staging directory of a local target.
pub(super) struct Staging {
    dir: OwnedFd,
    /// What the names of all that is staged begin with.
    tag: String,
    next: AtomicU64,
    /// Files without a name, by their numbers.
    nameless: Mutex<HashMap<u64, OwnedFd>>,
    nameless_max: usize,
    /// Whether a file can be made without a name here, as far as it is known.
    can_be_nameless: AtomicBool,
}

impl Staging {
    /// Begins; what an earlier session of this state left staged is dropped.
    pub(super) fn begin(top: &OwnedFd, state: &str) -> rustix::io::Result<Self> {
        match rustix::fs::mkdirat(top, STAGING, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(top, STAGING, flags, Mode::empty())?;
        let tag = tag_of(state);
        clear(&dir, &tag)?;
        // Half of what this process may have open is left to everything else.
        let open_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(NAMELESS_MAX);
        Ok(Staging {
            dir,
            tag,
            next: AtomicU64::new(first_number()),
            nameless: Mutex::default(),
            nameless_max: usize::try_from(NAMELESS_MAX.min(open_max / 2)).unwrap_or(0),
            can_be_nameless: AtomicBool::new(true),
        })
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn nameless(&self) -> MutexGuard<'_, HashMap<u64, OwnedFd>> {
        self.nameless.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, number: u64) -> String {
        format!("{}{number:x}", self.tag)
    }

    /// Takes something in.
    pub(super) fn take(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        let (staged, ()) = self.taking(path, |number| self.write(number, path, meta, content))?;
        Ok(staged)
    }

    /// Takes a file in that the kernel copies, and its bytes. `None`: it cannot copy between these two.
    pub(super) fn take_open(&self, path: &RelPath, meta: &Meta, from: &File) -> Result<Option<(Staged, u64)>> {
        let copy = |to: &mut File| copy_by_kernel(from, to).map_err(io("write", path));
        let (staged, copied) = self.taking(path, |number| self.put_file(number, path, meta, copy))?;
        if copied.is_none() {
            self.discard(&staged);
        }
        Ok(copied.map(|copied| (staged, copied)))
    }

    /// Has something taken in under a new number; if that fails nothing is left of it.
    fn taking<T>(&self, path: &RelPath, put: impl FnOnce(u64) -> Result<T>) -> Result<(Staged, T)> {
        let staged = Staged { path: path.clone(), number: self.next.fetch_add(1, Ordering::Relaxed) };
        match put(staged.number) {
            Ok(put) => Ok((staged, put)),
            Err(error) => {
                self.discard(&staged);
                Err(error)
            }
        }
    }

    /// Makes a file, has it filled, and gives it its attributes.
    fn put_file<T>(
        &self,
        number: u64,
        path: &RelPath,
        meta: &Meta,
        fill: impl FnOnce(&mut File) -> Result<T>,
    ) -> Result<T> {
        // Nobody else finds it here, so it may have its mode from the start.
        let mode = Mode::from(meta.mode & 0o777);
        let nameless = self.make_nameless(mode).map_err(io("write", path))?;
        let is_nameless = nameless.is_some();
        let made = match nameless {
            Some(file) => file,
            None => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&self.dir, &*self.name(number), flags, mode).map_err(io("write", path))?
            }
        };
        let mut file = File::from(made);
        let filled = fill(&mut file)?;
        set_meta_of(file.as_fd(), meta).map_err(io("set the attributes of", path))?;
        if is_nameless {
            self.nameless().insert(number, file.into());
        }
        Ok(filled)
    }

    fn write(&self, number: u64, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<()> {
        let (dir, name) = (self.dir.as_fd(), self.name(number));
        match content {
            Content::File { bytes, size, is_sparse } => {
                self.put_file(number, path, meta, |file| fill(file, path, bytes, size, is_sparse))?;
            }
            Content::Symlink(to) => {
                rustix::fs::symlinkat(OsStr::from_bytes(to), dir, &*name).map_err(io("make the link", path))?;
                set_link_meta(dir, OsStr::new(&name), meta).map_err(io("set the attributes of", path))?;
            }
            Content::Fifo => {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(dir, &*name, kind, Mode::from(0o600), 0).map_err(io("make the pipe", path))?;
                set_node_meta(dir, OsStr::new(&name), meta).map_err(io("set the attributes of", path))?;
            }
            Content::Device { is_block, number } => {
                let kind = match is_block {
                    true => rustix::fs::FileType::BlockDevice,
                    false => rustix::fs::FileType::CharacterDevice,
                };
                let made = rustix::fs::mknodat(dir, &*name, kind, Mode::from(0o600), number);
                made.map_err(io("make the device", path))?;
                set_node_meta(dir, OsStr::new(&name), meta).map_err(io("set the attributes of", path))?;
            }
        }
        Ok(())
    }

    /// A file without a name; `None` where there can be none.
    fn make_nameless(&self, mode: Mode) -> rustix::io::Result<Option<OwnedFd>> {
        if !self.can_be_nameless.load(Ordering::Relaxed) || self.nameless().len() >= self.nameless_max {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, c".", flags, mode) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::MFILE | Errno::NFILE) => Ok(None),
            // What a kernel or a file system without it says: open(2).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT) => {
                self.can_be_nameless.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives up what was taken in.
    pub(super) fn discard(&self, staged: &Staged) {
        if self.nameless().remove(&staged.number).is_none() {
            let _ = rustix::fs::unlinkat(&self.dir, &*self.name(staged.number), AtFlags::empty());
        }
    }

    /// Makes one file durable by itself. `false`: that cannot be done, it is no file or not even its owner may read it.
    pub(super) fn sync_one(&self, staged: &Staged) -> rustix::io::Result<bool> {
        if let Some(file) = self.nameless().get(&staged.number) {
            return rustix::fs::fsync(file).map(|()| true);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.dir, &*self.name(staged.number), flags, Mode::empty()) {
            Ok(file) => rustix::fs::fsync(file).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Gives one its name in a directory where nothing has it. `false`: something has; it is in the staging directory then.
    pub(super) fn place(&self, staged: &Staged, dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
        let temporary = self.name(staged.number);
        let nameless = self.nameless().remove(&staged.number);
        if let Some(file) = nameless {
            return match self.link(&file, dir, name) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => self.link(&file, &self.dir, OsStr::new(&temporary)).map(|()| false),
                Err(error) => Err(error),
            };
        }
        match rustix::fs::renameat_with(&self.dir, &*temporary, dir, name, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            // A file system without that flag: look instead.
            Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => rustix::fs::renameat(&self.dir, &*temporary, dir, name).map(|()| true),
                _ => Ok(false),
            },
            Err(error) => Err(error),
        }
    }

    /// Puts what [`Staging::place`] has left in the staging directory to where something stands, which goes.
    pub(super) fn replace(&self, staged: &Staged, dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.dir, &*self.name(staged.number), dir, name)
    }

    /// A second name, put in place of what stands there.
    pub(super) fn second_name(
        &self,
        (from_dir, from_name): (&OwnedFd, &OsStr),
        (to_dir, to_name): (&OwnedFd, &OsStr),
    ) -> rustix::io::Result<()> {
        let temporary = self.name(self.next.fetch_add(1, Ordering::Relaxed));
        rustix::fs::linkat(from_dir, from_name, &self.dir, &*temporary, AtFlags::empty())?;
        rustix::fs::renameat(&self.dir, &*temporary, to_dir, to_name)?;
        // Of two names of one file rename(2) leaves both.
        let _ = rustix::fs::unlinkat(&self.dir, &*temporary, AtFlags::empty());
        Ok(())
    }

    /// Gives a file without a name one.
    fn link(&self, file: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
        let linked = match rustix::fs::linkat(file, c"", dir, name, AtFlags::EMPTY_PATH) {
            // Before Linux 6.10 that needs a capability, and this does not: linkat(2).
            Err(Errno::NOENT) => {
                let open = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, open, dir, name, AtFlags::SYMLINK_FOLLOW)
            }
            linked => linked,
        };
        // Whatever it is that does not let us, the next try is made with names.
        if linked.is_err_and(|error| error != Errno::EXIST) {
            self.can_be_nameless.store(false, Ordering::Relaxed);
        }
        linked
    }
}

/// A state's id as the beginning of a name.
fn tag_of(state: &str) -> String {
    let fit: String = state.chars().filter(char::is_ascii_alphanumeric).take(TAG_MAX).collect();
    format!("{fit}.")
}

/// Where a session begins to number: no two begin at the same nanosecond, so that one which is thought to be dead, and is not,
/// never meets what a later one stages.
fn first_number() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(1)
}

/// Drops everything in the staging directory that has this tag.
fn clear(staging: &OwnedFd, tag: &str) -> rustix::io::Result<()> {
    let names: Vec<_> = Dir::read_from(staging)?.filter_map(|entry| Some(entry.ok()?.file_name().to_owned())).collect();
    for name in names.iter().filter(|name| name.to_bytes().starts_with(tag.as_bytes())) {
        rustix::fs::unlinkat(staging, &**name, AtFlags::empty())?;
    }
    Ok(())
}

/// Has the kernel copy what is open, as much as it has now, and tells how much that was; where it can, both share their blocks then. `None`: it
/// cannot copy between these two, and nothing was read.
fn copy_by_kernel(from: &File, to: &File) -> rustix::io::Result<Option<u64>> {
    // One that grows meanwhile would have no end.
    let size = u64::try_from(rustix::fs::fstat(from)?.st_size).unwrap_or(0);
    let mut copied: u64 = 0;
    loop {
        let step = KERNEL_STEP.min(usize::try_from(size - copied).unwrap_or(KERNEL_STEP));
        match rustix::fs::copy_file_range(from, None, to, None, step) {
            // Of some files that can only be read it says that they are empty.
            Ok(0) => return Ok((copied > 0).then_some(copied)),
            Ok(step) => copied += step as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) if copied == 0 => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Copies until the end of what is read.
fn fill(file: &mut File, path: &RelPath, bytes: &mut dyn Read, size: u64, is_sparse: bool) -> Result<()> {
    let failed = |error: io::Error| of_errno("write", path, Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let expected = usize::try_from(size).unwrap_or(usize::MAX);
    let mut buffer = vec![0; expected.saturating_add(1).clamp(HOLE, BUFFER_MAX)];
    let mut length: u64 = 0;
    let mut ends_in_hole = false;
    loop {
        let read = match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(TargetError::Source { path: shown(path), source }),
        };
        length += read as u64;
        if !is_sparse {
            file.write_all(&buffer[..read]).map_err(failed)?;
            continue;
        }
        for block in buffer[..read].chunks(HOLE) {
            ends_in_hole = block.iter().all(|byte| *byte == 0);
            if ends_in_hole {
                file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or(0))).map_err(failed)?;
            } else {
                file.write_all(block).map_err(failed)?;
            }
        }
    }
    if ends_in_hole {
        file.set_len(length).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_names_the_same_comes_of_it() {
        for nameless_max in [0, 1, 8] {
            let dir = tempfile::tempdir().unwrap();
            let top: OwnedFd = File::open(dir.path()).unwrap().into();
            let mut staging = Staging::begin(&top, "one").unwrap();
            staging.nameless_max = nameless_max;
            let take = |content: &[u8]| {
                let meta = Meta { mode: 0o640, mtime_ns: 5, ..Meta::default() };
                let content = Content::File { bytes: &mut &*content, size: content.len() as u64, is_sparse: false };
                staging.take(&RelPath::new("x").unwrap(), &meta, content).unwrap()
            };
            let (one, other, third) = (take(b"one"), take(b"the other"), take(b""));
            assert!(staging.sync_one(&one).unwrap());
            assert_eq!(staging.nameless().len(), nameless_max.min(3));
            let staged = || std::fs::read_dir(dir.path().join(".keepwatch-tmp")).unwrap().count();
            assert_eq!(staged(), 3 - nameless_max.min(3), "only what has a name is seen");
            staging.discard(&third);
            assert!(staging.place(&one, &top, OsStr::new("x")).unwrap());
            assert!(!staging.place(&other, &top, OsStr::new("x")).unwrap(), "something stands there");
            assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"one");
            staging.replace(&other, &top, OsStr::new("x")).unwrap();
            assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"the other");
            let stat = rustix::fs::stat(dir.path().join("x")).unwrap();
            assert_eq!((stat.st_mode & 0o7777, stat.st_mtime_nsec, stat.st_nlink), (0o640, 5, 1));
            assert_eq!((staged(), staging.nameless().len()), (0, 0));
        }
    }
}
