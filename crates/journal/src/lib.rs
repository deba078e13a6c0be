//! The durable log of Keepwatch.
//!
//! A journal is a chain of files of JSON lines. [`Record`] is one line; the writer makes batches durable with one
//! `fdatasync` each and closes them with a commit line that carries a SHA-256 over everything before it.
//! The format is specified in `docs/journal-format.md`.

mod compress;
pub mod disk;
mod epoch;
mod files;
mod fixity;
mod format;
mod frames;
pub mod json;
mod reader;
pub mod record;
mod recovery;
mod tail;
pub mod time;
pub mod value;
mod verify;
mod window;
mod writer;

pub use compress::{CompressError, compress_closed};
pub use disk::{Disk, DiskError, DiskFile, RealDisk};
pub use epoch::{SetAside, new_epoch, survey_epoch};
pub use fixity::{Algorithm, Drift, Enrolled, Hashed, Released, Repaired, Restored, Unsound, Unsoundness, Verified};
pub use format::FORMAT;
pub use json::ParseError;
pub use reader::{ReadError, Reader};
pub use record::{
    Body, By, Change, Config, Copied, Evidence, Extra, Facts, Failed, FileType, Gap, GapClosed, GapReason, OldPlace,
    Op, Proof, Record, Replica, Run, RunProcess, RunStep, Settled, Trigger, Via, Withdrawal, Withdrawn,
};
pub use recovery::{OpenError, Recovery, Torn};
pub use tail::{Batch, Tail};
pub use value::{
    ChainHash, Cursor, Digest, JournalId, NotACursor, NotRelative, RelPath, ReplicaName, RootName, Seq, Timestamp,
    TriggerName,
};
pub use verify::{Finding, FindingKind, Report, VerifyOptions, verify};
pub use writer::{CommitError, Writer, WriterOptions};
