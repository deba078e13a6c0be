//! The machine's own file systems, below one directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Facts, File, Files, Kind};
use crate::name::STAGING_DIR;

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The files below a directory. Every path is walked component by component from there, without following links, so
/// that nothing that somebody put below the base leads out of it.
#[derive(Debug)]
pub struct RealFiles {
    base: OwnedFd,
}

impl RealFiles {
    /// Opens a base. Links on the way to the base itself are followed.
    ///
    /// # Errors
    /// If there is no such directory, or it cannot be opened.
    pub fn open(base: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(RealFiles { base: fs::open(base, flags, Mode::empty())? })
    }

    /// Does something with the directory that holds a path, and the name there.
    fn at<T>(&self, path: &Path, work: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>) -> io::Result<T> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(match self.dir(parent)? {
            Some(dir) => work(dir.as_fd(), name)?,
            // The packer's own directory, whose kind was looked at when it was made, needs no walk.
            None => work(self.base.as_fd(), path.as_os_str())?,
        })
    }

    /// The directory at a path; `None` where a path in it may be given to the kernel as it is.
    fn dir(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        if path.as_os_str().is_empty() || path == Path::new(STAGING_DIR) {
            return Ok(None);
        }
        Ok(Some(self.walk(path)?))
    }

    fn walk(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut dir: Option<OwnedFd> = None;
        for component in path.components() {
            let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
            let at = dir.as_ref().map_or(self.base.as_fd(), AsFd::as_fd);
            dir = Some(fs::openat(at, name, DIR_FLAGS, Mode::empty())?);
        }
        match dir {
            Some(dir) => Ok(dir),
            None => Ok(fs::openat(&self.base, ".", DIR_FLAGS, Mode::empty())?),
        }
    }
}

impl Files for RealFiles {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::new(self.walk(dir)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    fn stat(&self, path: &Path) -> io::Result<Facts> {
        self.at(path, |dir, name| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)).map(|stat| facts_of(&stat))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match self.at(dir, |parent, name| fs::mkdirat(parent, name, Mode::RWXU | Mode::RWXG | Mode::RWXO)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.stat(dir)?.kind == Kind::Dir => Ok(()),
            result => result,
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // As any program would create it: the umask says who may read and write.
        let mode = Mode::from_raw_mode(0o666);
        let fd = self.at(path, |dir, name| fs::openat(dir, name, flags, mode))?;
        Ok(Box::new(RealFile(fd)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        // Without O_NONBLOCK a pipe that somebody put there would hold us for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = RealFile(self.at(path, |dir, name| fs::openat(dir, name, flags, Mode::empty()))?);
        match file.facts()?.kind {
            Kind::File => Ok(Box::new(file)),
            Kind::Dir | Kind::Other => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.at(from, |from_dir, from_name| {
            Ok(self.at(to, |to_dir, to_name| fs::renameat(from_dir, from_name, to_dir, to_name)))
        })?
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.at(from, |from_dir, from_name| {
            Ok(self.at(to, |to_dir, to_name| fs::linkat(from_dir, from_name, to_dir, to_name, AtFlags::empty())))
        })?
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.at(path, |dir, name| fs::unlinkat(dir, name, AtFlags::empty()))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.at(dir, |parent, name| fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::fsync(self.walk(dir)?) {
            // File systems that have nothing to sync for a directory say so in these ways.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

struct RealFile(OwnedFd);

impl File for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pread(&self.0, &mut *into, offset))?)
    }

    fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.0, bytes, offset))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| fs::ftruncate(&self.0, len))?)
    }

    fn sync(&self) -> io::Result<()> {
        // Not retried on EINTR: whether a second call would still know of the first one's failure is nowhere promised.
        Ok(fs::fdatasync(&self.0)?)
    }

    fn start_sync(&self, offset: u64, len: u64) {
        // On Linux this advice begins write-back of dirty pages; what is not clean stays where it is.
        let _ = fs::fadvise(&self.0, offset, std::num::NonZeroU64::new(len), fs::Advice::DontNeed);
    }

    fn facts(&self) -> io::Result<Facts> {
        Ok(facts_of(&fs::fstat(&self.0)?))
    }
}

#[expect(clippy::allow_attributes, reason = "which of these casts are needless differs between machines")]
#[allow(clippy::useless_conversion, clippy::unnecessary_cast, clippy::cast_lossless)]
fn facts_of(stat: &Stat) -> Facts {
    Facts {
        dev: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        size: stat.st_size.unsigned_abs(),
        mtime_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec as i64),
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            _ => Kind::Other,
        },
    }
}
