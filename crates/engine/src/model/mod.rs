//! Values without I/O that all the engine speaks in.

pub use keepwatch_journal::{
    Body, By, Change, Config, Cursor, Evidence, Facts, FileType, Gap, GapClosed, GapReason, JournalId, OldPlace, Op,
    Record, RelPath, RootName, Seq, Settled, Timestamp, Via,
};
