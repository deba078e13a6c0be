//! How the sequencer looks at a file tree: by a directory's identity and a name, never by a path that may have moved.

use keepwatch_journal::{Facts, RelPath};

use crate::daemon::dirs::RootNo;
use crate::watch::DirKey;

/// A directory to look into.
#[derive(Clone, Copy, Debug)]
pub struct DirAt<'a> {
    /// Its identity.
    pub key: &'a DirKey,
    /// Its root.
    pub root: RootNo,
    /// Its path there, as journaled.
    pub path: &'a RelPath,
}

/// What a look at a name showed.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// This.
    There(Facts),
    /// Nothing has that name, or the directory itself is gone.
    Gone,
    /// It could not be looked at: the file system is away, or permission was denied. This proves nothing.
    Unavailable,
}

/// Where a directory was found by its identity alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Located {
    /// Below the known directory, through these, from the top down; the last one is the directory itself.
    Below(DirKey, Vec<(DirKey, Box<[u8]>)>),
    /// In no root.
    Outside,
    /// Deleted.
    Gone,
    /// It could not be found out.
    Unavailable,
}

/// What the kernel says about writers.
#[derive(Clone, Debug, PartialEq)]
pub enum Writers {
    /// Nobody on this machine has it open for writing, and this is what it was while nobody could.
    None(Facts),
    /// Somebody has.
    Some,
    /// Leases do not work here, or say nothing.
    Unknown,
}

/// A tree of files, or of several file systems.
pub trait Tree {
    /// Looks at `name` in `dir`, or, with an empty name, at `dir` itself. Never follows a symbolic link.
    fn look(&mut self, dir: DirAt<'_>, name: &[u8]) -> Look;
    /// The identity of the directory called `name` in `dir`.
    fn key_of(&mut self, dir: DirAt<'_>, name: &[u8]) -> Option<DirKey>;
    /// Whether `name` in `dir` is the object with this identity; `None` where that cannot be told.
    fn is_object(&mut self, dir: DirAt<'_>, name: &[u8], object: &DirKey) -> Option<bool>;
    /// Device and inode of an object that is known by its identity alone, if it exists still, and how many names it has.
    fn object_of(&mut self, object: &DirKey) -> Option<((u64, u64), u64)>;
    /// When what has this name came to be, in nanoseconds since 1970 UTC; `None` where that is not kept.
    fn born(&mut self, dir: DirAt<'_>, name: &[u8]) -> Option<i64>;
    /// Finds a directory by its identity and goes up until `known` says yes.
    fn locate(&mut self, key: &DirKey, known: &mut dyn FnMut(&DirKey) -> bool) -> Located;
    /// Asks whether anybody writes to the file `name` in `dir` that has this inode.
    fn writers(&mut self, dir: DirAt<'_>, name: &[u8], inode: u64) -> Writers;
    /// Nothing is to be done now: no descriptor on a watched file system may stay open.
    fn rest(&mut self);
}
