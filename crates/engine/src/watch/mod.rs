//! What the kernel tells of a tree, in the kernel's order, as [`Event`]s.
//!
//! A source only reports: which directory, which name, what was done. It looks at no file, decides nothing and
//! keeps no path. The sequencer (`daemon`) turns events into records.

pub mod error;
pub mod fanotify;
pub mod feed;
pub mod handle;
pub mod identity;
pub mod inotify;
pub mod lease;
pub mod magic;
pub mod memory;
pub mod mounts;
pub mod priority;
pub mod probe;
pub mod process;
mod reader;
mod rename;
pub mod settle;
mod sys;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::Arc;

use keepwatch_journal::By;

/// The identity of a directory, kept across renames: file system and file handle where the file system has
/// handles (so a deleted directory's inode that is used again is another key), else device and inode.
/// Opaque bytes; equal keys are the same directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirKey(pub Box<[u8]>);

impl fmt::Debug for DirKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A name in a directory. An empty name is the directory itself; or, where the event is not of a directory, a file of
/// which the kernel gave no name (its link count changed, or it was written through a file handle): `dir` then is
/// the file's own key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which directory.
    pub dir: DirKey,
    /// The name in it, raw bytes.
    pub name: Box<[u8]>,
}

/// Operations on one place that one notice tells of; the kernel may fold several into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct What(pub u16);

impl What {
    /// A name came to be: create, mkdir, link, symlink, mknod.
    pub const CREATE: What = What(1);
    /// A name is gone: unlink, rmdir.
    pub const DELETE: What = What(1 << 1);
    /// Renamed, both ends known: `place` → `to`.
    pub const RENAME: What = What(1 << 2);
    /// Renamed away to where the source does not watch.
    pub const MOVED_OUT: What = What(1 << 3);
    /// Renamed in from where the source does not watch.
    pub const MOVED_IN: What = What(1 << 4);
    /// Written, truncated or allocated.
    pub const MODIFY: What = What(1 << 5);
    /// A descriptor that could write was closed.
    pub const CLOSE_WRITE: What = What(1 << 6);
    /// Mode, owner, times, link count, extended attributes.
    pub const ATTRIB: What = What(1 << 7);
    /// The object itself was deleted (its last name gone).
    pub const DELETE_SELF: What = What(1 << 8);
    /// The object itself was moved.
    pub const MOVE_SELF: What = What(1 << 9);
    /// Its file system was unmounted.
    pub const UNMOUNT: What = What(1 << 10);

    /// Whether any bit of `other` is set.
    #[must_use]
    pub fn has(self, other: What) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: What) -> What {
        What(self.0 | other.0)
    }
}

/// One notice of the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Where.
    pub place: Place,
    /// Where to, for [`What::RENAME`].
    pub to: Option<Place>,
    /// What was done.
    pub what: What,
    /// Whether the object is a directory.
    pub is_dir: bool,
    /// The object's own identity, where the kernel tells.
    pub object: Option<DirKey>,
    /// Who did it, where the kernel tells.
    pub by: Option<Arc<By>>,
}

/// What a source sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The kernel told of an operation.
    Event(Event),
    /// Notices were lost here: all that stands before is sound, all roots of this source have a gap.
    Lost(Loss),
    /// All that had happened when this mark was asked for stands before it.
    Reached(u64),
}

/// Why notices were lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The kernel's queue ran over.
    KernelQueue,
    /// Our own backlog reached its cap.
    Backlog,
    /// The reader died, for this reason; it has to be started again.
    ReaderDied(String),
}
