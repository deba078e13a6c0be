//! The first choice: one mark for a whole file system, events with names, renames with both ends.
//!
//! fanotify reports all of a marked file system, also outside the roots; the sequencer knows which directories are
//! its own. It merges undrained events of one process on one name into one, so a notice may carry several bits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::error::WatchError;
use super::feed::Feed;
use super::process::{Groups, Processes};
use super::reader::{Queue, READ_MAX, Reader};
use super::sys::fanotify as sys;
use super::sys::fanotify_record::{Entry, RawEvent};
use super::{Event, Loss, Notice, Place, What};

/// No event is longer: three handles, two of them with a name. With less room left in a buffer more may wait.
const EVENT_MAX: usize = 2048;

/// What is asked for of a file system.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_ONDIR;

/// What is asked for of a single directory besides: its own end, and that it moved. Of a whole file system the kernel would
/// tell that for every file, too, whose name's end or move it tells already.
const SELF_MASK: u64 = libc::FAN_DELETE_SELF | libc::FAN_MOVE_SELF | libc::FAN_ONDIR;

/// A running source by fanotify. Dropping it ends it.
#[derive(Debug)]
pub struct Fanotify {
    group: Arc<OwnedFd>,
    unlimited: bool,
    reader: Reader,
}

impl Fanotify {
    /// Makes a notification group and starts to read it into `feed`; the process groups of those who did it are noted in `groups`. Where the kernel does not grant a queue and marks
    /// without its limits, those hold: see [`Fanotify::is_unlimited`].
    ///
    /// # Errors
    /// [`WatchError::Privilege`] or [`WatchError::Unsupported`] where another method has to do.
    pub fn start(feed: Feed, groups: Arc<Groups>) -> Result<Fanotify, WatchError> {
        let (group, unlimited) = init()?;
        let group = Arc::new(group);
        let queue = FanotifyQueue {
            group: Arc::clone(&group),
            buffer: vec![0; READ_MAX],
            processes: Processes::new(Instant::now(), groups),
        };
        let reader = Reader::spawn("fanotify", queue, feed)
            .map_err(|source| WatchError::Os { action: "start the fanotify reader", source })?;
        Ok(Fanotify { group, unlimited, reader })
    }

    /// Whether a mark can be set on the file system of `dir`: sets one, in a group that ends at once.
    pub(super) fn try_mark(dir: BorrowedFd<'_>) -> Result<(), WatchError> {
        let (group, _) = init()?;
        mark_filesystem(group.as_fd(), dir)
    }

    /// Whether queue and marks are without the kernel's limits, which needs `CAP_SYS_ADMIN`.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.unlimited
    }

    /// Reports all that happens from now on in the file system of `dir`. The descriptor may be closed afterwards.
    ///
    /// # Errors
    /// [`WatchError::Unsupported`] for a btrfs subvolume, an overlay, FUSE and whatever else has no file handles.
    pub fn mark_filesystem(&self, dir: BorrowedFd<'_>) -> Result<(), WatchError> {
        mark_filesystem(self.group.as_fd(), dir)
    }

    /// Reports when the directory itself ends or moves.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn mark_itself(&self, dir: BorrowedFd<'_>) -> Result<(), WatchError> {
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR;
        sys::mark(self.group.as_fd(), flags, SELF_MASK, dir).map_err(|source| refusal("mark a directory", source))
    }

    /// Reports nothing more of the file system of `dir`. One that is not marked is no error.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says.
    pub fn unmark_filesystem(&self, dir: BorrowedFd<'_>) -> Result<(), WatchError> {
        let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM;
        match sys::mark(self.group.as_fd(), flags, MASK, dir) {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => {
                Err(refusal("unmark the file system", source))
            }
            _ => Ok(()),
        }
    }

    /// Asks for a [`Notice::Reached`] with this number behind all that has happened by now.
    pub fn mark_now(&self, number: u64) {
        self.reader.mark(number);
    }

    /// Reports nothing of `dir` itself and the names in it; directories below it have to be ignored one by one.
    /// For what Keepwatch writes without end: else the journal would feed on itself. A rename between an ignored
    /// directory and another is not reported either.
    ///
    /// # Errors
    /// What `fanotify_mark(2)` says; kernels before 6.0 refuse.
    pub fn ignore_dir(&self, dir: BorrowedFd<'_>) -> Result<(), WatchError> {
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORE_SURV | libc::FAN_MARK_ONLYDIR;
        sys::mark(self.group.as_fd(), flags, MASK | libc::FAN_EVENT_ON_CHILD, dir)
            .map_err(|source| refusal("ignore a directory", source))
    }
}

fn mark_filesystem(group: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Result<(), WatchError> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    sys::mark(group, flags, MASK, dir).map_err(|source| refusal("mark the file system", source))
}

/// A group, and whether it is without the kernel's limits.
///
/// Not with `FAN_REPORT_PIDFD`: a descriptor for each event, made and closed, was measured to cost the reader as much as
/// all the rest of it. [`Processes`] tells a process from a later one with its number without them.
fn init() -> Result<(OwnedFd, bool), WatchError> {
    let flags = libc::FAN_REPORT_DFID_NAME_TARGET;
    if let Ok(group) = sys::init(flags | libc::FAN_UNLIMITED_QUEUE | libc::FAN_UNLIMITED_MARKS) {
        return Ok((group, true));
    }
    sys::init(flags).map(|group| (group, false)).map_err(|source| refusal("use fanotify", source))
}

fn refusal(action: &'static str, source: io::Error) -> WatchError {
    let why = match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => {
            return WatchError::Privilege { action, capability: "CAP_SYS_ADMIN", source };
        }
        Some(Errno::MFILE) => return WatchError::limit(action, "fs.fanotify.max_user_groups", 1, source),
        Some(Errno::NOSPC) => return WatchError::limit(action, "fs.fanotify.max_user_marks", 1, source),
        Some(Errno::XDEV) => "it is a btrfs subvolume, whose events would carry another file system's id",
        Some(Errno::OPNOTSUPP | Errno::NODEV) => "the file system has no file handles or no id",
        Some(Errno::INVAL | Errno::NOSYS) => "the kernel is older than Linux 5.17",
        _ => return WatchError::Os { action, source },
    };
    WatchError::Unsupported { action, why, source }
}

/// The group's queue, as the reader thread sees it.
struct FanotifyQueue {
    group: Arc<OwnedFd>,
    buffer: Vec<u8>,
    processes: Processes,
}

impl Queue for FanotifyQueue {
    fn fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<bool> {
        let FanotifyQueue { group, buffer, processes } = self;
        let now = Instant::now();
        processes.next_buffer(now);
        let len = sys::read(group.as_fd(), buffer, |raw| {
            out.extend(notice_of(&raw).map(|notice| match notice {
                Notice::Event(event) => Notice::Event(Event { by: processes.who(raw.pid), ..event }),
                other @ (Notice::Lost(_) | Notice::Reached(_)) => other,
            }));
        })?;
        let is_empty = buffer.len() - len >= EVENT_MAX;
        if is_empty {
            processes.queue_was_empty(now);
        }
        Ok(is_empty)
    }
}

/// What an event of the kernel says, but for who did it. `None` for what says nothing.
fn notice_of(raw: &RawEvent<'_>) -> Option<Notice> {
    if raw.mask & libc::FAN_Q_OVERFLOW != 0 {
        return Some(Notice::Lost(Loss::KernelQueue));
    }
    let is_dir = raw.mask & libc::FAN_ONDIR != 0;
    let (place, to) = match (raw.old.or(raw.entry), raw.new, raw.object) {
        (Some(entry), to, _) => (place_of(&entry), to.as_ref().map(place_of)),
        // Renamed from where we may not look: the name it has now is what counts.
        (None, Some(to), _) => (place_of(&to), None),
        // Written through a file handle, by an NFS server say, or its link count changed: it has no name here.
        (None, None, Some(object)) => (Place { dir: object.key(), name: Box::default() }, None),
        (None, None, None) => return None,
    };
    let what = what_of(raw.mask, to.is_some());
    let object = raw.object.map(|object| object.key());
    Some(Notice::Event(Event { place, to, what, is_dir, object, by: None }))
}

fn place_of(entry: &Entry<'_>) -> Place {
    Place { dir: entry.dir.key(), name: entry.name.into() }
}

fn what_of(mask: u64, has_both_ends: bool) -> What {
    let rename = if has_both_ends { What::RENAME } else { What::MOVED_IN };
    [
        (libc::FAN_CREATE, What::CREATE),
        (libc::FAN_DELETE, What::DELETE),
        (libc::FAN_RENAME, rename),
        (libc::FAN_MODIFY, What::MODIFY),
        (libc::FAN_CLOSE_WRITE, What::CLOSE_WRITE),
        (libc::FAN_ATTRIB, What::ATTRIB),
        (libc::FAN_DELETE_SELF, What::DELETE_SELF),
        (libc::FAN_MOVE_SELF, What::MOVE_SELF),
    ]
    .into_iter()
    .filter(|(bit, _)| mask & bit != 0)
    .fold(What::default(), |all, (_, what)| all.with(what))
}

#[cfg(test)]
mod tests;
