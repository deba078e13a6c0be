//! Values without I/O that all the engine speaks in.

pub use keepwatch_journal::{
    Body, By, Change, Config, Copied, Cursor, Digest, Evidence, Facts, Failed, FileType, Gap, GapClosed, GapReason,
    JournalId, OldPlace, Op, Proof, Record, RelPath, Replica, ReplicaName, RootName, Run, RunProcess, RunStep, Seq,
    Settled, Timestamp, Trigger, TriggerName, Via, Withdrawal, Withdrawn,
};
