//! Where the sequencer writes, and what it knows: the journal and the inventory that follows it.

use keepwatch_journal::{Body, Facts, RelPath, RootName, Seq};

/// What the inventory knows of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// What was last journaled of it; `None` where nothing could be read then.
    pub facts: Option<Facts>,
    /// Whether its current version has settled.
    pub settled: bool,
}

/// A version of a file that has not settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsettled {
    /// In which root.
    pub root: RootName,
    /// Under which name.
    pub path: RelPath,
    /// The record that made it.
    pub version: Seq,
    /// What was last journaled of it.
    pub facts: Facts,
}

/// What the inventory says of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Knowledge {
    /// It knows the name.
    Yes(Known),
    /// It knows that nothing has that name.
    No,
    /// There is no inventory, or it cannot be asked now.
    Unknown,
}

/// The journal did not take a batch. What was appended stays pending and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal: {reason}")]
pub struct NotDurable {
    /// The disk's words.
    pub reason: String,
}

/// The journal and what follows it, as far as the sequencer needs them.
pub trait Ledger {
    /// Adds a record to the batch. It is not durable before [`Ledger::commit`].
    fn append(&mut self, body: Body) -> Seq;
    /// Records that are not durable yet.
    fn pending(&self) -> usize;
    /// Makes the batch durable.
    ///
    /// # Errors
    /// The batch stays pending; nothing may act on it.
    fn commit(&mut self) -> Result<(), NotDurable>;
    /// Drops the pending batch because it outgrew its bound; the caller journals a gap when it can.
    fn discard(&mut self);
    /// Commits and waits until the inventory has all of it. `false`: not now.
    fn catch_up(&mut self) -> bool;
    /// Up to which record the inventory has come.
    fn applied(&self) -> Seq;
    /// What the inventory knows of `name` in the directory `dir` (an empty name: the directory itself).
    fn child(&mut self, root: &RootName, dir: &RelPath, name: &[u8]) -> Knowledge;
    /// Which names it knows of an inode.
    fn by_inode(&mut self, root: &RootName, inode: u64) -> Vec<(RelPath, Known)>;
    /// Some versions that have not settled, by the records that made them, beginning behind `after`. Empty: there
    /// are no more, or the inventory cannot be asked now.
    fn unsettled(&mut self, after: Seq, limit: usize) -> Vec<Unsettled>;
}
