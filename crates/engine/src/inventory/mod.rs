//! The inventory of this host: SQLite, written only by applying journal records in order.
//!
//! It is derived state. The journal is the ground truth, and `keepwatch replay --to inventory` rebuilds the identical
//! tables from nothing; so the inventory never invents, never asks the file system, and keeps no fact that is not in
//! a record.
//!
//! # How a batch is applied
//!
//! [`Inventory::apply`] takes the records that follow its cursor, in ONE transaction with the cursor's move to the commit
//! that covers them. After a crash both are there or neither. The database runs with `synchronous=NORMAL`: after a power
//! cut SQLite may lose its last transactions whole, but never a part of one, so the cursor falls back together with
//! the effects, to a commit that the journal (synced before any follower saw it) still has; the records behind it
//! are applied again. Records at or before the cursor are skipped: replaying any prefix changes nothing.
//!
//! Each record has two parts that stand alone: the *audit* part (its row in `changes` or `acts`) and the *inventory* part
//! (names, directories, facts). The inventory part runs in a savepoint; where a constraint refuses it, or the record
//! contradicts itself, the savepoint is undone, the reason goes to `problems`, and all else goes on.
//!
//! # How objects and names are kept
//!
//! - An object's id ([`FileId`]) is the seq of the record that first told of it, kept across renames. A directory's
//!   [`DirId`] is its file id; a root's is the seq of its first `config` record. A directory or root that no record
//!   named, but of which a path gave proof, is a *placeholder*: its id is negative, made of that record's seq and its
//!   depth, so that a replay finds the same.
//! - `files` holds live names by (directory, name), directories too. A path stands only in `dirs`, once for each live
//!   directory: renaming a directory of a million files changes the rows of it and its sub-directories.
//! - `past_names` (from a directory down) and `dir_names` (from a directory up) hold where names were, by seq: they give
//!   `ls --at` and the path that a change had then. An interval holds its `from_seq` and ends before its `to_seq`.
//! - An object with several names has its facts in each; what is learnt through one is written to all.
//!
//! What a record means for names and directories is decided in [`crate::apply`].
//!
//! # Where what is
//!
//! `writer` keeps transaction, cursor and savepoints; `store` are the rows of the live tree; `acts` are roots and gaps,
//! `copies` what replicas hold, `checks` what was read again, `runs` what triggers are done with; `history` writes the audit part;
//! `view`, `list` (with `walk`) and `log` read; `past` finds
//! paths and moments in the past; `rebuild` replays beside the old database and swaps; `schema` opens connections; `row`
//! are the columns.

mod acts;
mod checks;
mod copies;
mod error;
mod history;
mod list;
mod log;
mod past;
mod rebuild;
mod row;
mod runs;
mod schema;
mod store;
mod view;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::apply::copy_key;
pub(crate) use crate::apply::range_end;
pub use checks::{CheckRow, FindingRow, Named, Verdict};
pub use copies::{CopyCounts, CopyRow, FailureRow, Misplaced, ReplicaRow};
pub use error::{InventoryError, Result};
pub use list::{ListQuery, Listed, Listing};
pub use log::LogQuery;
pub use row::{DirId, FileId, Known, KnownChild, ROOTS_DIR};
pub use runs::{Offered, OfferedPage, RunRow, RunState, TriggerRow};
pub use schema::{Host, SCHEMA_VERSION};
pub use view::{Counts, OpenGap, Problem, RootRow, Unsettled, View};
pub use writer::{Applied, Inventory};
