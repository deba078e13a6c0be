//! Values without I/O that all the engine speaks in.

pub use keepwatch_journal::{
    Body, By, Change, Config, Copied, Cursor, Digest, Evidence, Facts, Failed, FileType, Gap, GapClosed, GapReason,
    JournalId, OldPlace, Op, Proof, Record, RelPath, Replica, ReplicaName, RootName, Seq, Settled, Timestamp, Via,
    Withdrawal, Withdrawn,
};
