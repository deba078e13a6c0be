//! Values without I/O that all the engine speaks in.

pub use keepwatch_journal::{
    Algorithm, Body, By, Change, Config, Copied, Cursor, Digest, Drift, Enrolled, Evidence, Facts, Failed, FileType,
    Gap, GapClosed, GapReason, Hashed, JournalId, OldPlace, Op, Proof, Record, RelPath, Released, Repaired, Replica,
    ReplicaName, Restored, RootName, Run, RunProcess, RunStep, Seq, Settled, Timestamp, Trigger, TriggerName, Unsound,
    Unsoundness, Verified, Via, Withdrawal, Withdrawn,
};
