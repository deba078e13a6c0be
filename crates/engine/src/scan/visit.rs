//! What a walk tells, and what it asks.

use std::io;
use std::os::fd::BorrowedFd;

use keepwatch_journal::RelPath;

use super::chunk::{Chunk, Entry};
use super::look::Stat;

/// Who walks with the walker, on all its threads at once.
///
/// For each directory that can be opened: [`enter`](Visitor::enter) once, then [`entries`](Visitor::entries) at
/// least once, then [`leave`](Visitor::leave) once, one after the other. What these calls did is visible to the calls
/// for its sub-directories, which come later and perhaps on another thread.
pub trait Visitor: Sync {
    /// What the visitor knows of a directory, such as its id in the inventory; it travels with the directory.
    type Token: Send;

    /// The directory is open, nothing of it was read: the moment to set a watch on it.
    fn enter(&self, dir: &OpenDir<'_>, token: &mut Self::Token) -> Step;

    /// Some entries of the directory, or all of them if the chunk is [`whole`](Chunk::whole): then sorted, and empty
    /// if the directory is. Sub-directories are walked if they are put into `descend`.
    fn entries(
        &self,
        dir: &OpenDir<'_>,
        token: &mut Self::Token,
        chunk: &Chunk<'_>,
        descend: &mut Descend<Self::Token>,
    );

    /// The directory's own entries were delivered, as far as `outcome` says; its sub-directories are yet to come.
    fn leave(&self, dir: &OpenDir<'_>, token: Self::Token, outcome: Outcome);

    /// The directory could not be opened: it is gone, is no directory any more, or may not be read.
    fn failed(&self, path: &RelPath, token: Self::Token, error: io::Error);
}

/// A directory that is being visited.
#[derive(Clone, Copy, Debug)]
pub struct OpenDir<'a> {
    /// Open for reading; its position belongs to the walker.
    pub fd: BorrowedFd<'a>,
    /// Its path below the walk's root.
    pub path: &'a RelPath,
    /// What `statx` says of what was opened, which need not be what its parent's entry said shortly before.
    pub stat: Stat,
    /// How many levels below the start of the walk; 0 is the start itself.
    pub depth: usize,
}

/// Whether to go on with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read it.
    Read,
    /// Leave it alone, with all it holds; nothing more is heard of it, not even [`Visitor::leave`].
    Skip,
}

/// How far the reading of a directory came.
#[derive(Debug)]
pub enum Outcome {
    /// To its end.
    Complete,
    /// Not to its end; what was delivered may lack any entry.
    Failed(io::Error),
    /// Not to its end, because the walk was cancelled.
    Cancelled,
}

/// Sub-directories that the visitor wants walked, in the order they were put in.
#[derive(Debug)]
pub struct Descend<T> {
    /// Their names one after the other: no allocation for each.
    pub(super) names: Vec<u8>,
    /// For each the length of its name, at most 255, and its token.
    pub(super) tokens: Vec<(u16, T)>,
}

impl<T> Descend<T> {
    pub(super) fn new() -> Self {
        Descend { names: Vec::new(), tokens: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Walk this entry of the chunk too. One that is no directory comes back by [`Visitor::failed`].
    pub fn walk(&mut self, entry: &Entry<'_>, token: T) {
        // A name of a filesystem that allowed more than 64 KiB could not be opened either; the kernel's limit is 255.
        let Ok(len) = u16::try_from(entry.name.len()) else { return };
        self.names.extend_from_slice(entry.name);
        self.tokens.push((len, token));
    }
}
