//! A local target at work.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, AtFlags, Dir, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::LocalTarget;
use super::meta::{set_link_meta, set_meta_of, set_node_meta};
use super::stage::Staging;
use crate::beneath::open_beneath;
use crate::model::{FileType, RelPath};
use crate::target::attributes::{meta_of, xattrs};
use crate::target::{Content, Found, Meta, Result, Session, Staged, Stated, TargetError, is_own, numbered_name, shown};

/// Directories whose descriptors are held; beyond, all are closed and opened again.
const DIRS_MAX: usize = 256;
/// Up to so many directories are synced one by one, more by one sync of the file system.
const DIR_SYNCS_MAX: usize = 4;

/// A local target at work. The descriptor of its top was open before anything was written: `syncfs` tells of errors since.
pub(super) struct LocalSession {
    place: String,
    top: OwnedFd,
    staging: Staging,
    dirs: Mutex<HashMap<RelPath, Arc<OwnedFd>>>,
}

pub(super) fn io(doing: &'static str, path: &RelPath) -> impl Fn(Errno) -> TargetError {
    let path = path.clone();
    move |error| of_errno(doing, &path, error)
}

pub(super) fn of_errno(doing: &'static str, path: &RelPath, error: Errno) -> TargetError {
    let refused = |why: &str| TargetError::Refused { path: shown(path), why: why.to_owned() };
    match error {
        Errno::NOSPC | Errno::DQUOT => TargetError::Full { path: shown(path) },
        Errno::NAMETOOLONG => refused("its name is too long for the target"),
        Errno::ILSEQ => refused("the target does not take names of these bytes"),
        Errno::FBIG => refused("it is too large for the target's file system"),
        Errno::ISDIR | Errno::NOTDIR | Errno::EXIST => refused("something else stands in its way"),
        Errno::NOTEMPTY => refused("the directory holds what is not ours"),
        Errno::LOOP => refused("a symbolic link stands in the way"),
        error => TargetError::Io { doing, path: shown(path), source: error.into() },
    }
}

impl LocalSession {
    /// Begins; what an earlier session of this state left staged is dropped.
    pub(super) fn begin(target: &LocalTarget, top: OwnedFd, state: &str) -> Result<Self> {
        let staging = Staging::begin(&top, state);
        let staging = staging.map_err(|error| target.away(format!("it cannot be written: {error}")))?;
        Ok(LocalSession { place: target.top.display().to_string(), top, staging, dirs: Mutex::default() })
    }

    /// The directory that holds a path, and the name in it.
    fn parent<'p>(&self, path: &'p RelPath, make: bool) -> Result<(Arc<OwnedFd>, &'p OsStr)> {
        let (dir, name) = path
            .split()
            .ok_or_else(|| TargetError::Refused { path: String::new(), why: "it is the top".to_owned() })?;
        let dir = RelPath::new(dir).unwrap_or_default();
        let fd = self.dir(&dir, make).map_err(io("open the directory of", path))?;
        Ok((fd, OsStr::from_bytes(name)))
    }

    fn dir(&self, path: &RelPath, make: bool) -> rustix::io::Result<Arc<OwnedFd>> {
        let cached = self.dirs.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(fd) = cached {
            return Ok(fd);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match open_beneath(self.top.as_fd(), path, flags) {
            Err(error) if make && error.kind() == io::ErrorKind::NotFound => self.make_all(path, flags),
            opened => opened.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }?;
        let fd = Arc::new(opened);
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        if dirs.len() >= DIRS_MAX {
            dirs.clear();
        }
        dirs.insert(path.clone(), Arc::clone(&fd));
        Ok(fd)
    }

    fn make_all(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut at = rustix::fs::openat(&self.top, c".", flags, Mode::empty())?;
        for name in path.components() {
            match rustix::fs::mkdirat(&at, name, Mode::from(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
        }
        Ok(at)
    }

    fn forget_dirs(&self) {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One staged object to its place. What stood there goes, or is kept.
    fn put_in_place(&self, staged: &Staged, keep: Option<&RelPath>) -> Result<Arc<OwnedFd>> {
        let (dir, name) = self.parent(&staged.path, true)?;
        let failed = io("put in place", &staged.path);
        if self.staging.place(staged, &dir, name).map_err(&failed)? {
            return Ok(dir);
        }
        if let Some(keep) = keep {
            self.keep(&staged.path, &dir, name, keep)?;
        }
        self.staging.replace(staged, &dir, name).map_err(failed)?;
        Ok(dir)
    }

    /// Gives what stands at a path a second name in the trash, so that it is never without one.
    fn keep(&self, path: &RelPath, dir: &OwnedFd, name: &OsStr, trash: &RelPath) -> Result<()> {
        let wanted = path.components().fold(trash.clone(), |at, part| at.join(part));
        let (to_dir, to_name) = self.parent(&wanted, true)?;
        for attempt in 1_u32.. {
            let to = match attempt {
                1 => to_name.to_owned(),
                _ => OsStr::from_bytes(&numbered_name(to_name.as_bytes(), attempt)).to_owned(),
            };
            match rustix::fs::linkat(dir, name, &*to_dir, &*to, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                // No second names here: the old one goes first. A directory may hold what is not ours.
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {
                    let found = look_at(dir.as_fd(), name).map_err(io("look at", path))?;
                    if found.is_some_and(|found| found.kind == FileType::Dir) {
                        return Err(of_errno("replace", path, Errno::ISDIR));
                    }
                    return rustix::fs::renameat(dir, name, &*to_dir, &*to).map_err(io("keep the old", path));
                }
                Err(error) => return Err(of_errno("keep the old", path, error)),
            }
        }
        Ok(())
    }

    /// Everything that was staged is on disk.
    fn sync_staged(&self, staged: &[Staged]) -> Result<()> {
        let Some(first) = staged.first() else { return Ok(()) };
        let failed = io("make durable", &first.path);
        if staged.len() == 1 && self.staging.sync_one(first).map_err(&failed)? {
            return Ok(());
        }
        rustix::fs::syncfs(&self.top).map_err(failed)
    }
}

impl Session for LocalSession {
    fn list(&self, below: &RelPath, each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>) -> Result<()> {
        list_below(&self.top, below, each)
    }

    fn look(&self, path: &RelPath) -> Result<Option<Found>> {
        let (dir, name) = match self.parent(path, false) {
            Ok(place) => place,
            Err(TargetError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A file stands where a directory should: nothing is below it.
            Err(TargetError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        look_at(dir.as_fd(), name).map_err(io("look at", path))
    }

    fn read(&self, path: &RelPath) -> Result<Box<dyn Read + Send>> {
        let (dir, name) = self.parent(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&*dir, name, flags, Mode::empty()).map_err(io("read", path))?;
        // Whoever reads a copy wants to know what is on the medium; what is not written yet stays in the cache.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        Ok(Box::new(File::from(file)))
    }

    fn stat(&self, path: &RelPath) -> Result<Option<Stated>> {
        let (dir, name) = self.parent(path, false)?;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = rustix::fs::statx(&*dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted);
        let found = found.map_err(io("read the attributes of", path))?;
        let has_birth = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        let (seconds, nanos) = (found.stx_btime.tv_sec, i64::from(found.stx_btime.tv_nsec));
        Ok(Some(Stated {
            mode: u32::from(found.stx_mode) & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            born_ns: has_birth.then(|| seconds.saturating_mul(1_000_000_000).saturating_add(nanos)),
        }))
    }

    fn meta(&self, path: &RelPath) -> Result<Option<Meta>> {
        let (dir, name) = self.parent(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let failed = io("read the attributes of", path);
        let stat = rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
        let has_xattrs = matches!(FileType::of_mode(stat.st_mode), FileType::File | FileType::Dir);
        if !has_xattrs {
            return Ok(Some(meta_of(&stat, Vec::new())));
        }
        let file = rustix::fs::openat(&*dir, name, flags, Mode::empty()).map_err(&failed)?;
        let stat = rustix::fs::fstat(&file).map_err(&failed)?;
        Ok(Some(meta_of(&stat, xattrs(file.as_fd()))))
    }

    fn staging(&self) -> Option<BorrowedFd<'_>> {
        Some(self.staging.dir())
    }

    fn stage(&self, path: &RelPath, meta: &Meta, content: Content<'_>) -> Result<Staged> {
        self.staging.take(path, meta, content)
    }

    fn stage_open(&self, path: &RelPath, meta: &Meta, file: &File) -> Result<Option<(Staged, u64)>> {
        self.staging.take_open(path, meta, file)
    }

    fn discard(&self, staged: Staged) {
        self.staging.discard(&staged);
    }

    fn publish(&self, staged: Vec<Staged>, keep: Option<&RelPath>) -> Vec<Result<()>> {
        if let Err(error) = self.sync_staged(&staged) {
            let text = error.to_string();
            let away = || TargetError::Away { place: self.place.clone(), why: text.clone() };
            let failed = staged.iter().map(|_| Err(away())).collect();
            staged.into_iter().for_each(|one| self.discard(one));
            return failed;
        }
        let mut dirs: HashMap<Vec<u8>, Arc<OwnedFd>> = HashMap::new();
        let mut results = Vec::with_capacity(staged.len());
        for one in staged {
            match self.put_in_place(&one, keep) {
                Ok(dir) => {
                    let above = one.path.split().map(|(above, _)| above.to_vec()).unwrap_or_default();
                    dirs.entry(above).or_insert(dir);
                    results.push(Ok(()));
                }
                Err(error) => {
                    self.discard(one);
                    results.push(Err(error));
                }
            }
        }
        let synced = if dirs.len() <= DIR_SYNCS_MAX {
            dirs.values().try_for_each(|dir| rustix::fs::fsync(&**dir))
        } else {
            rustix::fs::syncfs(&self.top)
        };
        if let Err(error) = synced {
            let why = format!("what was copied could not be made durable: {error}");
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(TargetError::Away { place: self.place.clone(), why: why.clone() });
            }
        }
        results
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        self.dir(path, true).map(|_| ()).map_err(io("make the directory", path))
    }

    fn set_meta(&self, path: &RelPath, kind: FileType, meta: &Meta) -> Result<()> {
        let failed = io("set the attributes of", path);
        if path.is_root() {
            return Ok(());
        }
        let (dir, name) = self.parent(path, false)?;
        match kind {
            FileType::File | FileType::Dir => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                match rustix::fs::openat(&*dir, name, flags, Mode::empty()) {
                    Ok(file) => set_meta_of(file.as_fd(), meta).map_err(failed),
                    Err(Errno::ACCESS) => set_node_meta(dir.as_fd(), name, meta).map_err(failed),
                    Err(error) => Err(failed(error)),
                }
            }
            FileType::Symlink => set_link_meta(dir.as_fd(), name, meta).map_err(failed),
            FileType::Fifo | FileType::Socket | FileType::Block | FileType::Char => {
                set_node_meta(dir.as_fd(), name, meta).map_err(failed)
            }
        }
    }

    fn link(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let (from_dir, from_name) = self.parent(from, false)?;
        let (to_dir, to_name) = self.parent(to, true)?;
        let linked = self.staging.second_name((&from_dir, from_name), (&to_dir, to_name));
        linked.map_err(io("link", to))
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let (from_dir, from_name) = self.parent(from, false)?;
        let (to_dir, to_name) = self.parent(to, true)?;
        let failed = io("rename", from);
        let renamed = rustix::fs::renameat_with(&*from_dir, from_name, &*to_dir, to_name, RenameFlags::NOREPLACE)
            .or_else(|error| match error {
                Errno::INVAL | Errno::NOSYS => match rustix::fs::statat(&*to_dir, to_name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => rustix::fs::renameat(&*from_dir, from_name, &*to_dir, to_name),
                    Ok(_) => Err(Errno::EXIST),
                    Err(error) => Err(error),
                },
                error => Err(error),
            });
        self.forget_dirs();
        renamed.map_err(failed)
    }

    fn remove(&self, path: &RelPath) -> Result<bool> {
        let (dir, name) = match self.parent(path, false) {
            Ok(place) => place,
            Err(TargetError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let removed = match rustix::fs::unlinkat(&*dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&*dir, name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        match removed {
            Ok(()) => {
                self.forget_dirs();
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(of_errno("remove", path, error)),
        }
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.top).map_err(io("make durable", &RelPath::ROOT))
    }
}

fn look_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Found>> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = FileType::of_mode(stat.st_mode);
    let target = match kind {
        FileType::Symlink => Some(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()),
        _ => None,
    };
    let size = if kind == FileType::Dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
    let mtime_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let mtime_ns = i64::try_from(mtime_ns.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or(0);
    Ok(Some(Found { kind, size, mtime_ns, target }))
}

/// Lists all below a directory of a target.
pub(super) fn list_below(
    top: &OwnedFd,
    below: &RelPath,
    each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match open_beneath(top.as_fd(), below, flags) {
        Ok(top) => top,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => {
            return Err(of_errno("list", below, Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
    };
    list_dir(&top, below, each).map(|_| ())
}

/// Lists what a directory holds, in the order of whole paths. Holds the names of one directory for each level of depth.
fn list_dir(
    dir: &OwnedFd,
    path: &RelPath,
    each: &mut dyn FnMut(&RelPath, Found) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let failed = io("list", path);
    let mut keys = BTreeSet::new();
    for entry in Dir::read_from(dir).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || (path.is_root() && is_own(&path.join(name))) {
            continue;
        }
        let is_dir = match entry.file_type() {
            rustix::fs::FileType::Directory => true,
            rustix::fs::FileType::Unknown => {
                matches!(look_at(dir.as_fd(), OsStr::from_bytes(name)), Ok(Some(Found { kind: FileType::Dir, .. })))
            }
            _ => false,
        };
        keys.insert(if is_dir { [name, b"/"].concat() } else { name.to_vec() });
    }
    for key in keys {
        let name = key.strip_suffix(b"/").unwrap_or(&key);
        let below = path.join(name);
        // Gone since, or not to be looked at: it is not known to be there.
        let Ok(Some(found)) = look_at(dir.as_fd(), OsStr::from_bytes(name)) else { continue };
        let is_dir = found.kind == FileType::Dir;
        if each(&below, found).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if is_dir {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner =
                rustix::fs::openat(dir, OsStr::from_bytes(name), flags, Mode::empty()).map_err(io("list", &below))?;
            if list_dir(&inner, &below, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
