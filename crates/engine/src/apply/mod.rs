//! What a record means for the live tree: names, directories, objects. Decided here once, for whatever keeps the rows.
//!
//! A [`Tree`] takes changes and says which rows a [`Store`] has to add, change or end. It does no I/O: the inventory
//! gives it a store over SQLite, the shared index one over the rows of a batch in memory.
//!
//! # What a record means
//!
//! Every change is the observed state of a name, whatever its operation: `create`, `modify` and `attrib` differ only for
//! the reader of the history. Another inode (or kind) under a known name is another object; the old one ended there. Content
//! is taken to have changed, and a new version begins, when size or mtime differ. Facts that are missing change
//! nothing but history and name. A `move` looks for its object at the old path, then by inode. The end of a
//! directory's name is the end of all that it held.
//!
//! `record` decides what a record means; `tree` changes live names and `dirs` directories; `known` are the values,
//! `codes`, `copies` and `acts` how they lie in columns; `told` is what a record is asked by.

pub(crate) mod acts;
pub(crate) mod codes;
mod copies;
mod dirs;
mod known;
mod record;
mod store;
pub(crate) mod told;
mod tree;

pub use copies::copy_key;
pub(crate) use copies::range_end;
pub(crate) use dirs::{DEPTH_BITS, below};
pub use known::{DirId, FileId, Known, KnownChild, ROOTS_DIR};
pub(crate) use known::{ROOTS, signed, unsigned};
pub(crate) use record::{Halves, Spot, first_seen};
pub(crate) use store::{Delta, Dir, Fault, NewDir, Place, Stamp, Store};
pub(crate) use tree::{Memory, Tree, size};
