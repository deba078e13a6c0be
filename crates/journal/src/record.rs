//! One record: what a line of the journal says.
//!
//! The JSON form of each, field by field, is `docs/journal-format.md`; [`Record::render`] writes it and
//! [`Record::parse`] reads it back. Rendering is canonical: the same record always gives the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fixity::{Enrolled, Hashed, Released, Repaired, Restored, Unsound, Verified};
use crate::value::{Digest, RelPath, ReplicaName, RootName, Seq, Timestamp, TriggerName};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// When it was journaled.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
    /// Fields this version does not know, kept and passed on in their order.
    pub extra: Extra,
}

/// Fields of a record that this version does not know, as JSON text; `None` almost always.
pub type Extra = Option<Box<serde_json::Map<String, serde_json::Value>>>;

/// What a record says, by its `do`.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// `create modify attrib move delete`: a change of a file.
    Change(Change),
    /// `settled`: the version is complete.
    Settled(Settled),
    /// `gap`: from here on changes may have been missed in its scope.
    Gap(Gap),
    /// `gap_closed`: the scope was scanned, what had changed is journaled.
    GapClosed(GapClosed),
    /// `config`: what is watched from here on.
    Config(Config),
    /// `copied`: a replica holds a version.
    Copied(Box<Copied>),
    /// `trashed removed foreign`: a replica does not hold a version any more.
    Withdrawn(Box<Withdrawn>),
    /// `failed`: an original could not be copied, and is not tried again soon.
    Failed(Box<Failed>),
    /// `config` of a replica: where it is, and what is known of its target.
    Replica(Box<Replica>),
    /// `started ran dead resumed` of a trigger: a command and a version.
    Run(Box<Run>),
    /// `config` of a trigger: from where on it runs.
    Trigger(Box<Trigger>),
    /// `hashed`: what the content of a version is.
    Hashed(Box<Hashed>),
    /// `verified`: contents were read again, and are what was recorded.
    Verified(Box<Verified>),
    /// `rot missed unreadable`: something is not what was recorded.
    Unsound(Box<Unsound>),
    /// `repaired`: an original or a copy was mended.
    Repaired(Box<Repaired>),
    /// `restored`: originals were fetched back from a replica.
    Restored(Box<Restored>),
    /// `released`: an original was removed to free its space, and is not deleted.
    Released(Box<Released>),
    /// `enrolled`: something in a backup was taken for another host's original.
    Enrolled(Box<Enrolled>),
    /// A `do` of a later version, or an act that this program only passes on; all its fields are in `extra`.
    Other(String),
}

/// What happened to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// It came to be.
    Create,
    /// Its content changed: size or mtime.
    Modify,
    /// Only its attributes changed: mode, owner, link count, times.
    Attrib,
    /// It got another name: `old_path` → `path`. What stood at `path` is gone. A directory takes along what it holds.
    Move,
    /// It is gone; of a directory, with all that it held.
    Delete,
}

/// A change of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What happened.
    pub op: Op,
    /// In which root.
    pub root: RootName,
    /// Its name now (for `delete`: the name that is gone).
    pub path: RelPath,
    /// Where it was before, for a `move`.
    pub old: Option<OldPlace>,
    /// What was found there; `None` where it was gone before it could be read, and for a `delete`.
    pub facts: Option<Facts>,
    /// Who told.
    pub via: Via,
    /// Who did it, where the kernel tells.
    pub by: Option<Arc<By>>,
    /// The kernel or a scan folded several operations into one notice.
    pub merged: bool,
    /// A `delete` of a directory that left the root with all it held (moved out, or gone unwitnessed).
    pub subtree: bool,
    /// One of the two `move`s of an exchange of names: what stands at `path` did not go, the record after or before
    /// this one moves it to `old_path`.
    pub exchange: bool,
}

/// Where a moved file was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldPlace {
    /// The root it left, where it is another than the record's.
    pub root: Option<RootName>,
    /// The path there.
    pub path: RelPath,
}

/// What kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Block device.
    Block,
    /// Character device.
    Char,
}

impl FileType {
    /// The kind in `st_mode`. Linux has no others; a filesystem that made one up would be taken for files.
    #[must_use]
    pub const fn of_mode(mode: u32) -> FileType {
        match mode & 0o170_000 {
            0o040_000 => FileType::Dir,
            0o120_000 => FileType::Symlink,
            0o010_000 => FileType::Fifo,
            0o140_000 => FileType::Socket,
            0o060_000 => FileType::Block,
            0o020_000 => FileType::Char,
            _ => FileType::File,
        }
    }
}

/// What `statx` told of a file, never following a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What kind.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970 UTC; times beyond what 64 bits hold (1677 to 2262) are cut to them.
    pub mtime_ns: i64,
    /// The same for the last change of the inode.
    pub ctime_ns: i64,
    /// The device number, `st_dev`; it may change with a reboot.
    pub dev: u64,
    /// The inode number.
    pub inode: u64,
    /// Permission bits, `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Where a symbolic link points, as bytes.
    pub target: Option<Box<[u8]>>,
}

/// Who told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// The kernel, by a filesystem mark.
    Fanotify,
    /// The kernel, by a watch on the directory.
    Inotify,
    /// A scan at intervals.
    Poll,
    /// A scan at start-up, after a gap, or asked for.
    Scan,
}

/// Which process did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Process id.
    pub pid: u32,
    /// Its real user id.
    pub uid: Option<u32>,
    /// Its executable's path, as bytes.
    pub exe: Option<Box<[u8]>>,
}

/// The version of a file is complete: no writer will add to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// In which root.
    pub root: RootName,
    /// Which file.
    pub path: RelPath,
    /// On what evidence.
    pub evidence: Evidence,
    /// The size of the version that settled.
    pub size: u64,
    /// Its mtime.
    pub mtime_ns: i64,
    /// Its inode.
    pub inode: u64,
}

/// Why a version is held to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// A read lease was granted: nobody on this machine has the file open for writing.
    Lease,
    /// Size and mtime stayed the same for the root's `settle` time.
    Quiet,
    /// It was renamed into place and a lease was granted.
    Rename,
}

/// From here on changes may have been missed.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// In which root; `None`: in all.
    pub root: Option<RootName>,
    /// Below which directory of it.
    pub path: RelPath,
    /// Why.
    pub reason: GapReason,
    /// The last moment of which the journal is sure, where that is not the record before.
    pub since: Option<Timestamp>,
    /// Words for people: what was seen, the error's text.
    pub note: Option<String>,
}

/// Why changes may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The program was not running.
    Restart,
    /// The root was not known before.
    New,
    /// A queue ran over.
    Overflow,
    /// The root's file system was not there.
    Absent,
    /// A file system was mounted or unmounted below the root.
    Mount,
    /// A watch could not be set, or its thread died.
    Watch,
    /// The journal could not be written.
    Journal,
    /// The journal's end was torn.
    Torn,
    /// A new epoch of the journal began.
    Epoch,
    /// Somebody asked for it.
    Asked,
}

/// The scope of a gap was scanned.
#[derive(Clone, Debug, PartialEq)]
pub struct GapClosed {
    /// The gap's seq.
    pub gap: Seq,
    /// In which root.
    pub root: Option<RootName>,
    /// How many objects were looked at.
    pub scanned: u64,
    /// How many changes that found.
    pub found: u64,
}

/// What is watched from here on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which root.
    pub root: RootName,
    /// Its absolute path, as bytes; `None`: it is no longer watched.
    pub dir: Option<Box<[u8]>>,
    /// The identity of its file system and top directory (`uuid:… handle:…`), by which another disk is told.
    pub identity: Option<String>,
    /// A person accepted a new identity in place of the old one.
    pub accepted: bool,
}

/// How far it is known that a copy is what the original was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// Size and mtime fit.
    Presumed,
    /// The hash of what was read is known, and the target acknowledged all of it.
    Written,
    /// The target's bytes were read again, or checked by the store, against the hash.
    Proved,
}

/// A replica holds a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Copied {
    /// Which replica.
    pub replica: ReplicaName,
    /// The root of the original.
    pub root: RootName,
    /// The path in that root for which the replica holds it.
    pub path: RelPath,
    /// The copy stood for this path before and was renamed at the target, of a directory with all below it. Nothing was sent.
    pub old_path: Option<RelPath>,
    /// The original's file id.
    pub file: i64,
    /// The last record that had told of the original: the copy is what it was then.
    pub of: Seq,
    /// What kind.
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// The original's mtime.
    pub mtime_ns: i64,
    /// The hash of what was copied.
    pub sha256: Option<Digest>,
    /// How far it is proved.
    pub proof: Proof,
}

/// What became of a copy that a replica holds no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// It lies in the target's trash.
    Trashed,
    /// It is deleted, or was found to be gone.
    Removed,
    /// It lies where it lay, but by a change of the configuration it is no copy of ours any more: nothing follows it.
    Foreign,
}

/// A replica does not hold a version any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Withdrawn {
    /// What became of it.
    pub how: Withdrawal,
    /// Which replica.
    pub replica: ReplicaName,
    /// The root of the original.
    pub root: RootName,
    /// The path in that root for which the replica held it; of a directory with all below it, of the root's own with all.
    pub path: RelPath,
    /// What kind.
    pub kind: FileType,
}

/// An original could not be copied.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Which replica.
    pub replica: ReplicaName,
    /// The root of the original.
    pub root: RootName,
    /// Its path there.
    pub path: RelPath,
    /// Why, for people.
    pub why: String,
}

/// Where a replica is, and what is known of its target.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Which replica.
    pub replica: ReplicaName,
    /// Its URL, without secrets; `None`: it is no longer kept, and if there is no identity either, forgotten.
    pub url: Option<String>,
    /// The id in the mark by which the target is told from another.
    pub identity: Option<String>,
    /// Of which roots all that was at the target is known: it was listed and held against the originals, in this layout
    /// and by these filters. What the text says is the replica's own affair.
    pub roots: BTreeMap<String, String>,
}

/// What became of a version at a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStep {
    /// A command is about to be run for it.
    Started,
    /// It is done: the command was fine, or is not to be run for it.
    Ran,
    /// The command failed too often; it is not run again for this version unless a person asks for it.
    Dead,
    /// A person asked for it: what was dead is tried again.
    Resumed,
}

/// A command of a trigger, and the version of a file that it is run for.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What became of it.
    pub step: RunStep,
    /// Which trigger.
    pub trigger: TriggerName,
    /// The root of the file.
    pub root: RootName,
    /// Its path there.
    pub path: RelPath,
    /// Its file id.
    pub file: i64,
    /// The record that made this version.
    pub version: Seq,
    /// Further files that the same command is run for, by file id, and the records that made their versions.
    pub more: Vec<(i64, Seq)>,
    /// As what it runs, of a `started`.
    pub process: Option<RunProcess>,
    /// Of a `dead` why it failed last; of a `ran` why no command was run. For people.
    pub why: Option<String>,
}

/// The process group in which a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunProcess {
    /// What the command can tell repeated runs for one version by.
    pub key: String,
    /// The group's number: the process id of its leader, which was there before the command.
    pub group: u32,
    /// When its leader began, in clock ticks since the machine did: field 22 of `/proc/PID/stat`.
    pub born: u64,
    /// Which boot of the machine: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// From where on a trigger runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Which trigger.
    pub trigger: TriggerName,
    /// For each of its roots the last record whose version is left alone; `None`: it is no longer configured.
    pub roots: Option<BTreeMap<String, u64>>,
}
