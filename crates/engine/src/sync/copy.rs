//! One original to a target: opened without leaving its root, read once, hashed on the way (unless that is not wanted), and the same
//! version before and after.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::plan::Original;
use crate::beneath::open_beneath;
use crate::model::{Digest, FileType, RelPath};
use crate::target::attributes::{meta_of, mtime_of, xattrs};
use crate::target::{Content, Meta, Session, Staged, TargetError};

/// A root, open to be read.
#[derive(Debug)]
pub struct Source {
    top: OwnedFd,
    /// Whether every file is read and hashed on its way.
    is_hashed: bool,
}

/// An original that a target has taken in.
#[derive(Debug)]
pub struct Taken {
    /// To be published.
    pub staged: Staged,
    /// The hash of a file's content; `None` of what is no file, and of one that was not read.
    pub sha256: Option<Digest>,
}

/// Why an original was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It is not what the record told of, or changed while it was read: another record comes.
    #[error("it changed")]
    Changed,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// The target did not take it.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Source {
    /// Opens a root.
    ///
    /// # Errors
    /// The system's answer.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Source { top: rustix::fs::open(root, flags, Mode::empty())?, is_hashed: true })
    }

    /// The same, but a target may take files in without their being read here: of what it takes so, only the size is known.
    #[must_use]
    pub fn unhashed(self) -> Self {
        Source { is_hashed: false, ..self }
    }

    /// The attributes that a directory has now.
    ///
    /// # Errors
    /// [`CopyError::Changed`] if no directory is there.
    pub fn dir_meta(&self, path: &RelPath) -> Result<Meta, CopyError> {
        Ok(self.dir_found(path)?.0)
    }

    /// The same, with its inode number.
    fn dir_found(&self, path: &RelPath) -> Result<(Meta, u64), CopyError> {
        let dir = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stat = rustix::fs::fstat(&dir).map_err(|error| CopyError::Unreadable(error.into()))?;
        Ok((meta_of(&stat, xattrs(dir.as_fd())), stat.st_ino))
    }

    /// The attributes that an object has now.
    ///
    /// # Errors
    /// [`CopyError::Changed`] if it is not the object that is meant.
    pub fn meta(&self, path: &RelPath, original: &Original) -> Result<Meta, CopyError> {
        match original.kind {
            FileType::Dir => match self.dir_found(path)? {
                (meta, inode) if inode == original.inode => Ok(meta),
                _ => Err(CopyError::Changed),
            },
            FileType::File => {
                let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
                Ok(meta_of(&self.checked(file.as_fd(), original)?, xattrs(file.as_fd())))
            }
            _ => {
                let node = self.open_at(path, OFlags::PATH)?;
                Ok(meta_of(&self.checked(node.as_fd(), original)?, Vec::new()))
            }
        }
    }

    /// Lets a target take an original in.
    ///
    /// # Errors
    /// [`CopyError`]; nothing is left at the target then.
    pub fn take(
        &self,
        path: &RelPath,
        original: &Original,
        session: &dyn Session,
        place: &RelPath,
    ) -> Result<Taken, CopyError> {
        match original.kind {
            FileType::File => self.take_file(path, original, session, place),
            _ => self.take_node(path, original, session, place),
        }
    }

    fn take_file(
        &self,
        path: &RelPath,
        original: &Original,
        session: &dyn Session,
        place: &RelPath,
    ) -> Result<Taken, CopyError> {
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let before = self.checked(file.as_fd(), original)?;
        let meta = meta_of(&before, xattrs(file.as_fd()));
        let file = File::from(file);
        let is_sparse = u64::try_from(before.st_blocks).unwrap_or(0).saturating_mul(512) < original.size;
        let unread = if self.is_hashed || is_sparse { None } else { session.stage_open(place, &meta, &file)? };
        let (staged, length, sha256) = match unread {
            Some((staged, length)) => (staged, length, None),
            None => {
                let mut bytes = Hashing { inner: &file, expected: original.size, hash: Sha256::new(), length: 0 };
                let content = Content::File { bytes: &mut bytes, size: original.size, is_sparse };
                let staged = session.stage(place, &meta, content)?;
                (staged, bytes.length, Some(Digest(bytes.hash.finalize().into())))
            }
        };
        let after = rustix::fs::fstat(&file);
        if length != original.size || !after.is_ok_and(|after| same_state(&before, &after)) {
            session.discard(staged);
            return Err(CopyError::Changed);
        }
        Ok(Taken { staged, sha256 })
    }

    fn take_node(
        &self,
        path: &RelPath,
        original: &Original,
        session: &dyn Session,
        place: &RelPath,
    ) -> Result<Taken, CopyError> {
        let node = self.open_at(path, OFlags::PATH)?;
        let stat = self.checked(node.as_fd(), original)?;
        let meta = meta_of(&stat, Vec::new());
        let staged = match original.kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&node, c"", Vec::new())
                    .map_err(|error| CopyError::Unreadable(error.into()))?;
                session.stage(place, &meta, Content::Symlink(target.as_bytes()))
            }
            FileType::Fifo => session.stage(place, &meta, Content::Fifo),
            kind => {
                let is_block = kind == FileType::Block;
                session.stage(place, &meta, Content::Device { is_block, number: stat.st_rdev })
            }
        }?;
        Ok(Taken { staged, sha256: None })
    }

    fn open_at(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, CopyError> {
        let flags = flags | OFlags::NOFOLLOW;
        // Only the owner, or who may act as the owner, may leave the access time alone (open(2), `O_NOATIME`).
        let quiet = if flags.contains(OFlags::PATH) { flags } else { flags | OFlags::NOATIME };
        let opened = match open_beneath(self.top.as_fd(), path, quiet) {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && quiet != flags => {
                open_beneath(self.top.as_fd(), path, flags)
            }
            opened => opened,
        };
        opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::XDEV) => CopyError::Changed,
            _ => CopyError::Unreadable(error),
        })
    }

    /// What is open, if it is what the records told of.
    fn checked(&self, open: BorrowedFd<'_>, original: &Original) -> Result<Stat, CopyError> {
        let stat = rustix::fs::statat(open, c"", AtFlags::EMPTY_PATH);
        let stat = stat.map_err(|error| CopyError::Unreadable(error.into()))?;
        let kind = FileType::of_mode(stat.st_mode);
        let is_same = kind == original.kind
            && stat.st_ino == original.inode
            && u64::try_from(stat.st_size).ok() == Some(original.size)
            && mtime_of(&stat) == original.mtime_ns;
        if is_same { Ok(stat) } else { Err(CopyError::Changed) }
    }
}

/// Reads as much as is expected, and hashes what it reads. Whether there is more, the file's state tells afterwards.
struct Hashing<R> {
    inner: R,
    expected: u64,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.length >= self.expected {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.length += read as u64;
        Ok(read)
    }
}

fn same_state(one: &Stat, other: &Stat) -> bool {
    let state =
        |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec, stat.st_ino);
    state(one) == state(other)
}
