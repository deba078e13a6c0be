//! The durable log of Keepwatch.
//!
//! A journal is a chain of files of JSON lines. [`Record`] is one line; the writer makes batches durable with one
//! `fdatasync` each and closes them with a commit line that carries a SHA-256 over everything before it.
//! The format is specified in `docs/journal-format.md`.

pub mod disk;
mod json;
pub mod record;
pub mod time;
pub mod value;

pub use disk::{Disk, DiskError, DiskFile, RealDisk};
pub use json::ParseError;
pub use record::{
    Body, By, Change, Config, Evidence, Extra, Facts, FileType, Gap, GapClosed, GapReason, OldPlace, Op, Record,
    Settled, Via,
};
pub use value::{ChainHash, Cursor, JournalId, NotACursor, NotRelative, RelPath, RootName, Seq, Timestamp};
