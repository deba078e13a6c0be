//! Reading an original whole, so that neither the cache nor anybody else's work suffers much.

use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{Advice, AtFlags, Mode, OFlags, Stat};
use rustix::io::{Errno, ReadWriteFlags};

use super::hash::{Hasher, Hashes, Wanted};
use super::tree::{self, Parts};
use super::verdict::{Expected, Look, Seen, is_version};
use crate::beneath::{open_beneath, open_component};
use crate::model::{FileType, RelPath};
use crate::target::Limit;

/// The most that is read at once: what was read is still in a core's own cache when it is hashed there.
pub const BUFFER_BYTES: usize = 256 << 10;

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner<'m> {
    /// What the page cache holds is dropped first, so that the medium is read.
    pub from_medium: bool,
    /// What reading is held to.
    pub limit: Option<&'m Limit>,
    /// Who else reads.
    pub readers: Option<Readers<'m>>,
}

/// Threads that read files at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Readers<'m> {
    /// How many files are read at this moment.
    pub count: &'m AtomicUsize,
    /// How many threads may read at once.
    pub most: NonZero<usize>,
}

impl Readers<'_> {
    /// Whether just one file is read at this moment.
    pub(super) fn are_one(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 1
    }
}

/// Opens a directory whose files are to be read.
///
/// # Errors
/// The system's answer.
pub fn open_top(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a directory below it.
///
/// # Errors
/// The system's answer; a symbolic link on the way is an error.
pub fn open_dir(top: BorrowedFd<'_>, path: &RelPath) -> io::Result<OwnedFd> {
    open_beneath(top, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Reads a file of a directory whole if it still is the version that is expected, and hashes it.
#[must_use]
pub fn read(
    dir: BorrowedFd<'_>,
    name: &[u8],
    expected: &Expected,
    wanted: Wanted,
    manner: Manner<'_>,
    buffer: &mut Vec<u8>,
) -> Look {
    let file = match open(dir, name) {
        Ok(file) => file,
        Err(error) => return unopened(dir, name, error),
    };
    let before = match stat_of(file.as_fd()) {
        Ok(stat) => stat,
        Err(error) => return Look::Unreadable(error.to_string()),
    };
    let seen = seen_of(&before);
    if FileType::of_mode(before.st_mode) != FileType::File {
        return Look::Other(None);
    }
    if !is_version(expected, &seen, 1) {
        return Look::Other(Some(seen));
    }
    let count = |change: fn(&AtomicUsize, usize, Ordering) -> usize| {
        manner.readers.map(|readers| change(readers.count, 1, Ordering::Relaxed));
    };
    count(AtomicUsize::fetch_add);
    let content = hashes(file.as_fd(), seen.size, wanted, manner, buffer);
    count(AtomicUsize::fetch_sub);
    let hashes = match content {
        Ok(hashes) => hashes,
        Err(error) => return Look::Unreadable(error.to_string()),
    };
    match (stat_of(file.as_fd()), hashes) {
        (Ok(after), Some(hashes)) if seen_of(&after) == seen => Look::Content(seen, hashes),
        (Ok(_), _) => Look::Moving,
        (Err(error), _) => Look::Unreadable(error.to_string()),
    }
}

fn open(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Only the owner, or who may act as the owner, may leave the access time alone (open(2), `O_NOATIME`).
    match open_component(dir, name, flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open_component(dir, name, flags),
        opened => opened,
    }
}

/// Something that cannot be opened may still be seen to be another thing.
fn unopened(dir: BorrowedFd<'_>, name: &[u8], error: Errno) -> Look {
    match error {
        Errno::NOENT | Errno::NOTDIR => Look::Gone,
        Errno::LOOP | Errno::NXIO => Look::Other(None),
        error => match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Look::Gone,
            Ok(stat) if FileType::of_mode(stat.st_mode) != FileType::File => Look::Other(None),
            _ => Look::Unreadable(io::Error::from(error).to_string()),
        },
    }
}

fn stat_of(file: BorrowedFd<'_>) -> io::Result<Stat> {
    Ok(rustix::fs::fstat(file)?)
}

fn seen_of(stat: &Stat) -> Seen {
    let moment = |seconds: i64, nanoseconds: u64| {
        let exact = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        i64::try_from(exact.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or(0)
    };
    Seen {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: moment(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: Some(moment(stat.st_ctime, stat.st_ctime_nsec)),
        inode: Some(stat.st_ino),
    }
}

/// Reads to the end and hashes; `None` if it is not of that size. What was not in the page cache before does not stay there.
fn hashes(
    file: BorrowedFd<'_>,
    size: u64,
    wanted: Wanted,
    manner: Manner<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Hashes>> {
    if manner.from_medium {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    }
    let pieces = Pieces::of(file, manner.limit, !manner.from_medium);
    let hashes = match (manner.readers, Parts::of(size)) {
        (Some(readers), Some(parts)) if wanted == Wanted::BLAKE3 => {
            let blake3 = tree::hash(&pieces, parts, readers, buffer)?;
            blake3.map(|blake3| Hashes { blake3: Some(blake3), ..Hashes::default() })
        }
        _ => in_order(&pieces, size, Hasher::new(wanted), buffer)?,
    };
    if !pieces.was_cached.into_inner() && size > 0 {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    }
    Ok(hashes)
}

/// Hashes from the first byte to the last.
fn in_order(pieces: &Pieces<'_>, size: u64, mut hasher: Hasher, buffer: &mut Vec<u8>) -> io::Result<Option<Hashes>> {
    // One more than is expected, to see the end.
    let wanted = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(BUFFER_BYTES);
    let mut length = 0;
    loop {
        let read = pieces.read(buffer, wanted, length)?;
        hasher.update(&buffer[..read]);
        length += read as u64;
        // A file that has grown since shows by its size afterwards.
        if read == 0 || (length == size && read < wanted) {
            return Ok((length == size).then(|| hasher.finish()));
        }
    }
}

/// A file that is read piece by piece, by one thread or several.
pub(super) struct Pieces<'f> {
    file: BorrowedFd<'f>,
    limit: Option<&'f Limit>,
    /// All of it so far was in the page cache.
    was_cached: AtomicBool,
}

impl<'f> Pieces<'f> {
    pub(super) fn of(file: BorrowedFd<'f>, limit: Option<&'f Limit>, may_be_cached: bool) -> Self {
        Pieces { file, limit, was_cached: AtomicBool::new(may_be_cached) }
    }

    /// Reads up to so many bytes from a place on to the front of the buffer, once the limit allows.
    pub(super) fn read(&self, buffer: &mut Vec<u8>, wanted: usize, at: u64) -> io::Result<usize> {
        let limit = self.limit.and_then(|limit| Some((limit, limit.most()?)));
        let wanted = limit.map_or(wanted, |(_, (_, most))| wanted.min(most));
        if buffer.len() < wanted {
            buffer.resize(wanted.next_power_of_two(), 0);
        }
        let read = self.read_now(&mut buffer[..wanted], at)?;
        if let Some((limit, (rate, _))) = limit {
            limit.take(read, rate);
        }
        Ok(read)
    }

    fn read_now(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if self.was_cached.load(Ordering::Relaxed)
            && let Ok(read) = read_cached(self.file, buffer, at)
        {
            return Ok(read);
        }
        // Not all file systems can say what they have at hand.
        self.was_cached.store(false, Ordering::Relaxed);
        read_on(self.file, buffer, at)
    }
}

fn read_cached(file: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> rustix::io::Result<usize> {
    let mut parts = [io::IoSliceMut::new(buffer)];
    rustix::io::preadv2(file, &mut parts, at, ReadWriteFlags::NOWAIT)
}

fn read_on(file: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pread(file, &mut *buffer, at) {
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}
