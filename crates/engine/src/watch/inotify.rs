//! The second choice, where fanotify is refused: a watch on every directory, which costs kernel memory each and is
//! blind to a new directory until it is watched. Who watches one has to look into it afterwards.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::error::WatchError;
use super::feed::Feed;
use super::reader::{Queue, READ_MAX, Reader};
use super::rename::{Half, Pairing};
use super::sys::inotify_record::{self, RawEvent};
use super::{DirKey, Event, Loss, Notice, Place, What};

/// No event is longer: its head and a name. With less room left in a buffer more may wait.
const EVENT_MAX: usize = 16 + 256;
const WATCHES: &str = "fs.inotify.max_user_watches";
const INSTANCES: &str = "fs.inotify.max_user_instances";

/// A running source by inotify. Dropping it ends it.
#[derive(Debug)]
pub struct Inotify {
    shared: Arc<Shared>,
    reader: Reader,
}

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    /// Held while a watch is set, so that its first event finds it here.
    watches: Mutex<Watches>,
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, Watches> {
        // Nothing that can panic happens between two changes that belong together.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which directory each watch stands for.
#[derive(Debug, Default)]
struct Watches {
    keys: HashMap<i32, DirKey>,
    wds: HashMap<DirKey, i32>,
}

impl Watches {
    fn insert(&mut self, wd: i32, key: &DirKey) {
        if let Some(old) = self.keys.insert(wd, key.clone()) {
            self.wds.remove(&old);
        }
        self.wds.insert(key.clone(), wd);
    }

    fn forget(&mut self, wd: i32) {
        if let Some(key) = self.keys.remove(&wd)
            && self.wds.get(&key) == Some(&wd)
        {
            self.wds.remove(&key);
        }
    }
}

impl Inotify {
    /// Makes a queue and starts to read it into `feed`.
    ///
    /// # Errors
    /// [`WatchError::Limit`] where this user has too many queues already.
    pub fn start(feed: Feed) -> Result<Inotify, WatchError> {
        let shared = Arc::new(Shared { fd: init()?, watches: Mutex::default() });
        let queue =
            InotifyQueue { shared: Arc::clone(&shared), buffer: vec![0; READ_MAX], pairing: Pairing::default() };
        let reader = Reader::spawn("inotify", queue, feed)
            .map_err(|source| WatchError::Os { action: "start the inotify reader", source })?;
        Ok(Inotify { shared, reader })
    }

    /// Whether a watch can be set on `dir`: sets one, in a queue that ends at once.
    pub(super) fn try_watch(dir: BorrowedFd<'_>) -> Result<(), WatchError> {
        add_watch(init()?.as_fd(), dir, 0).map(drop)
    }

    /// Reports from now on what happens to the names in `dir`, whose key is `key`. A directory that is watched
    /// already stays so. The descriptor may be closed afterwards.
    ///
    /// # Errors
    /// [`WatchError::Limit`] where this user has too many watches; its `needed` counts only those set so far and
    /// this one, so a caller who knows the number of directories should raise it.
    pub fn watch_dir(&self, dir: BorrowedFd<'_>, key: &DirKey) -> Result<(), WatchError> {
        let mut watches = self.shared.watches();
        let wd = add_watch(self.shared.fd.as_fd(), dir, watches.keys.len())?;
        watches.insert(wd, key);
        Ok(())
    }

    /// Reports no more of this directory, which was moved to where nobody asked for it. One that is not watched
    /// is no error.
    pub fn unwatch_dir(&self, key: &DirKey) {
        let wd = self.shared.watches().wds.remove(key);
        if let Some(wd) = wd {
            // It fails only if the directory is gone, and the watch with it. The kernel's IN_IGNORED, behind the
            // events that are queued still, makes the reader forget the key.
            let _ = inotify::remove_watch(&self.shared.fd, wd);
        }
    }

    /// Asks for a [`Notice::Reached`] with this number behind all that has happened by now.
    pub fn mark_now(&self, number: u64) {
        self.reader.mark(number);
    }

    /// How many directories are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.shared.watches().wds.len()
    }
}

fn init() -> Result<OwnedFd, WatchError> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| match errno {
        Errno::MFILE => WatchError::limit("start inotify", INSTANCES, 1, errno.into()),
        _ => WatchError::Os { action: "start inotify", source: errno.into() },
    })
}

fn add_watch(queue: BorrowedFd<'_>, dir: BorrowedFd<'_>, watched: usize) -> Result<i32, WatchError> {
    let flags = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::MODIFY
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::EXCL_UNLINK;
    // Through the descriptor, so that no name can have come to mean another directory.
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    inotify::add_watch(queue, path, flags).map_err(|errno| match errno {
        Errno::NOSPC => WatchError::limit("watch a directory", WATCHES, watched as u64 + 1, errno.into()),
        _ => WatchError::Os { action: "watch a directory", source: errno.into() },
    })
}

/// The queue, as the reader thread sees it.
struct InotifyQueue {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    pairing: Pairing,
}

impl Queue for InotifyQueue {
    fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }

    fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<bool> {
        let InotifyQueue { shared, buffer, pairing } = self;
        let len = rustix::io::retry_on_intr(|| rustix::io::read(&shared.fd, &mut buffer[..]))?;
        let now = Instant::now();
        let mut watches = shared.watches();
        for raw in inotify_record::events(&buffer[..len]) {
            let raw = raw.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
            if raw.mask & libc::IN_Q_OVERFLOW != 0 {
                pairing.give_up(out);
                out.push(Notice::Lost(Loss::KernelQueue));
            } else if raw.mask & libc::IN_IGNORED != 0 {
                watches.forget(raw.wd);
            } else if let Some(dir) = watches.keys.get(&raw.wd) {
                pairing.take(half_of(&raw), event_of(&raw, dir), now, out);
            }
        }
        Ok(buffer.len() - len >= EVENT_MAX)
    }

    fn drained(&mut self, now: Instant, out: &mut Vec<Notice>) {
        self.pairing.drained(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.pairing.deadline()
    }
}

fn half_of(raw: &RawEvent<'_>) -> Half {
    match raw.mask & (libc::IN_MOVED_FROM | libc::IN_MOVED_TO) {
        libc::IN_MOVED_FROM => Half::From(raw.cookie),
        libc::IN_MOVED_TO => Half::To(raw.cookie),
        _ => Half::Neither,
    }
}

fn event_of(raw: &RawEvent<'_>, dir: &DirKey) -> Event {
    let what = [
        (libc::IN_CREATE, What::CREATE),
        (libc::IN_DELETE, What::DELETE),
        (libc::IN_MOVED_FROM, What::MOVED_OUT),
        (libc::IN_MOVED_TO, What::MOVED_IN),
        (libc::IN_MODIFY, What::MODIFY),
        (libc::IN_CLOSE_WRITE, What::CLOSE_WRITE),
        (libc::IN_ATTRIB, What::ATTRIB),
        (libc::IN_DELETE_SELF, What::DELETE_SELF),
        (libc::IN_MOVE_SELF, What::MOVE_SELF),
        (libc::IN_UNMOUNT, What::UNMOUNT),
    ]
    .into_iter()
    .filter(|(bit, _)| raw.mask & bit != 0)
    .fold(What::default(), |all, (_, what)| all.with(what));
    let place = Place { dir: dir.clone(), name: raw.name.into() };
    // Only directories are watched, so what is told without a name is told of one.
    let is_dir = raw.mask & libc::IN_ISDIR != 0 || raw.name.is_empty();
    Event { place, to: None, what, is_dir, object: None, by: None }
}

#[cfg(test)]
mod tests;
