//! Reading an original whole, so that neither the cache nor anybody else's work suffers much.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Advice, AtFlags, Mode, OFlags, Stat};
use rustix::io::{Errno, ReadWriteFlags};

use super::hash::{Hasher, Wanted};
use super::verdict::{Expected, Look, Seen, is_version};
use crate::beneath::{open_beneath, open_component};
use crate::model::{FileType, RelPath};
use crate::target::Limit;

/// The most that is read at once: what was read is still in a core's own cache when it is hashed there.
pub const BUFFER_BYTES: usize = 256 << 10;
/// So much of it is worth being hashed on several cores.
const SHARED_MIN: usize = 128 << 10;
/// And so much is read at once then.
const SHARED_BYTES: usize = 4 << 20;

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner<'m> {
    /// What the page cache holds is dropped first, so that the medium is read.
    pub from_medium: bool,
    /// What reading is held to.
    pub limit: Option<&'m Limit>,
    /// How many files are read at this moment: where it is one, all cores hash it.
    pub readers: Option<&'m AtomicUsize>,
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
    let mut hasher = Hasher::new(wanted);
    let count = |change: fn(&AtomicUsize, usize, Ordering) -> usize| {
        manner.readers.map(|readers| change(readers, 1, Ordering::Relaxed));
    };
    count(AtomicUsize::fetch_add);
    let fed = feed(file.as_fd(), seen.size, manner, buffer, &mut hasher);
    count(AtomicUsize::fetch_sub);
    let length = match fed {
        Ok(length) => length,
        Err(error) => return Look::Unreadable(error.to_string()),
    };
    match stat_of(file.as_fd()) {
        Ok(after) if seen_of(&after) == seen && length == seen.size => Look::Content(seen, hasher.finish()),
        Ok(_) => Look::Moving,
        Err(error) => Look::Unreadable(error.to_string()),
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

/// Reads to the end; how many bytes that were. What was not in the page cache before does not stay there.
fn feed(
    file: BorrowedFd<'_>,
    size: u64,
    manner: Manner<'_>,
    buffer: &mut Vec<u8>,
    hasher: &mut Hasher,
) -> io::Result<u64> {
    if manner.from_medium {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    }
    let most = manner.limit.and_then(Limit::most);
    let is_alone = || manner.readers.is_some_and(|count| count.load(Ordering::Relaxed) == 1);
    let piece = || {
        let bytes = if is_alone() { SHARED_BYTES } else { BUFFER_BYTES };
        // One more than is expected, to see the end.
        let expected = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).next_power_of_two();
        most.map_or(bytes, |(_, limit)| bytes.min(limit)).min(expected)
    };
    let take = |bytes: usize| {
        if let (Some(limit), Some((rate, _))) = (manner.limit, most) {
            limit.take(bytes, rate);
        }
    };
    let mut pieces = Pieces { file, was_cached: !manner.from_medium };
    let (mut length, mut next, mut wanted) = (0, Vec::new(), piece());
    let mut read = pieces.read(buffer, wanted, length)?;
    while read > 0 {
        take(read);
        length += read as u64;
        let bytes = &buffer[..read];
        if length == size && read < wanted {
            // A file that has grown since shows by its size afterwards.
            hasher.update(bytes);
            break;
        }
        wanted = piece();
        read = if is_alone() && read >= SHARED_MIN {
            let read = std::thread::scope(|scope| {
                let reading = scope.spawn(|| pieces.read(&mut next, wanted, length));
                hasher.update_on_all_cores(bytes);
                reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
            std::mem::swap(buffer, &mut next);
            read
        } else {
            hasher.update(bytes);
            pieces.read(buffer, wanted, length)?
        };
    }
    if !pieces.was_cached && length > 0 {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    }
    Ok(length)
}

/// A file that is read piece by piece.
struct Pieces<'f> {
    file: BorrowedFd<'f>,
    /// All of it so far was in the page cache.
    was_cached: bool,
}

impl Pieces<'_> {
    /// Reads up to so many bytes from a place on to the front of the buffer.
    fn read(&mut self, buffer: &mut Vec<u8>, wanted: usize, at: u64) -> io::Result<usize> {
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let buffer = &mut buffer[..wanted];
        if self.was_cached
            && let Ok(read) = read_cached(self.file, buffer, at)
        {
            return Ok(read);
        }
        // Not all file systems can say what they have at hand.
        self.was_cached = false;
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
