//! The parallel walker: every directory below a place, every entry with what `statx` says of it, in bounded memory.
//!
//! It decides nothing. A [`Visitor`] hears of each directory before it is read ([`Visitor::enter`]), then of its
//! entries in chunks ([`Visitor::entries`]), and says which sub-directories to walk. Order that holds on any number
//! of threads: a directory's own calls come one after the other; all of them return before one of its
//! sub-directories is entered (see [`Options::subdirs_max`] for the one exception).
//!
//! Bounds, however wide or deep the tree: entries in memory by [`Options::chunk_max`] a thread, pending
//! sub-directories by [`Options::subdirs_max`] a level, descriptors by [`Options::descriptors_max`]. Symbolic links
//! are never followed; paths may be longer than `PATH_MAX`, because each directory is opened from its parent.

mod chunk;
mod listing;
mod look;
mod pending;
mod visit;
mod worker;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;
use std::thread;

use keepwatch_journal::RelPath;

pub use chunk::{Chunk, Entry, Seen};
pub use look::{Stat, born, facts_of, look, stat_at, stat_of};
pub use visit::{Descend, OpenDir, Outcome, Step, Visitor};

use pending::Pending;
use worker::Worker;

/// How to walk: the bounds of a walk, and how to end it early.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Threads that walk, the caller's included.
    pub threads: NonZeroUsize,
    /// Entries in one call of [`Visitor::entries`]; each takes about 100 bytes and its name, once for each thread.
    pub chunk_max: NonZeroUsize,
    /// Directories that may be held open for their pending sub-directories. Beyond it they are opened again by path.
    /// Each thread holds two more at most, for what it is reading, and each directory that waits by
    /// [`Options::subdirs_max`] holds one.
    pub descriptors_max: usize,
    /// Pending sub-directories of one directory. A directory that has more is left half read while those go first:
    /// there, and only there, are sub-directories entered before the last call of [`Visitor::entries`].
    pub subdirs_max: NonZeroUsize,
    /// Ends the walk soon after it turns true.
    pub cancel: Option<&'a AtomicBool>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            chunk_max: const { NonZeroUsize::new(65_536).expect("not zero") },
            descriptors_max: 256,
            subdirs_max: const { NonZeroUsize::new(1 << 20).expect("not zero") },
            cancel: None,
        }
    }
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Directories whose entries were all delivered.
    pub directories: u64,
    /// Entries delivered, sub-directories included, vanished ones not.
    pub entries: u64,
    /// Entries that were listed but gone when looked at.
    pub vanished: u64,
    /// Directories that could not be opened or read to their end, and entries that could not be looked at.
    pub failed: u64,
    /// Whether the walk was ended by [`Options::cancel`].
    pub cancelled: bool,
}

impl Summary {
    fn plus(self, other: Summary) -> Summary {
        Summary {
            directories: self.directories + other.directories,
            entries: self.entries + other.entries,
            vanished: self.vanished + other.vanished,
            failed: self.failed + other.failed,
            cancelled: self.cancelled || other.cancelled,
        }
    }
}

/// Walks the directory `at` below the open directory `root`, and returns when all of it was visited.
///
/// No error ends it: a directory that cannot be opened goes to [`Visitor::failed`], one that cannot be read to its
/// end to [`Visitor::leave`], an entry that cannot be looked at to [`Visitor::entries`].
///
/// # Panics
/// If the visitor panics, once all threads have stopped.
pub fn walk<V: Visitor>(
    root: BorrowedFd<'_>,
    at: &RelPath,
    token: V::Token,
    visitor: &V,
    options: &Options<'_>,
) -> Summary {
    let pending = Pending::new(at, token, options);
    let work = || Worker::new(root, visitor, options, &pending).run();
    thread::scope(|scope| {
        // A thread that the system refuses is one less, not a failure: the caller's own walks in any case.
        let others: Vec<_> = (1..options.threads.get())
            .map_while(|n| thread::Builder::new().name(format!("scan-{n}")).spawn_scoped(scope, work).ok())
            .collect();
        let own = work();
        others.into_iter().fold(own, |sum, other| match other.join() {
            Ok(summary) => sum.plus(summary),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
