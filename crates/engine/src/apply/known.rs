//! The values that rows are made of: what is known of an object under one of its names.

use crate::model::{Facts, FileType, Seq, Timestamp};

/// An object: the seq of the record that first told of it, or a negative number for a directory that only a path told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub i64);

/// A directory: its [`FileId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(pub i64);

/// The directory that holds the roots, each by its name.
pub(crate) const ROOTS: i64 = 0;
/// The same, to be asked for.
pub const ROOTS_DIR: DirId = DirId(ROOTS);

/// What is known of an object under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which object.
    pub file_id: FileId,
    /// What kind; known of a directory even where nothing else is. `None`: it was gone before it could be read.
    pub kind: Option<FileType>,
    /// What was last found; `None`: it was never read.
    pub facts: Option<Facts>,
    /// When the journal first told of the object.
    pub first_seen: Timestamp,
    /// From which record on it has this name.
    pub from_seq: Seq,
    /// The record that made its current content.
    pub version_seq: Seq,
    /// The last record that told of it.
    pub last_seq: Seq,
    /// When that was.
    pub last_change: Timestamp,
    /// The record that said it is settled; it holds for the current version if not before `version_seq`.
    pub settled_seq: Seq,
    /// The digest of the current version, where it is known.
    pub sha256: Option<[u8; 32]>,
}

impl Known {
    /// Whether the current version is settled.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled_seq >= self.version_seq
    }

    /// Its directory id, if it is a directory.
    #[must_use]
    pub fn dir_id(&self) -> Option<DirId> {
        (self.kind == Some(FileType::Dir)).then_some(DirId(self.file_id.0))
    }
}

/// A name in a directory, as a scan compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownChild<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Which object.
    pub file_id: FileId,
    /// Its directory id, if it is a directory.
    pub dir: Option<DirId>,
    /// What was last found; `None`: it was never read.
    pub facts: Option<Facts>,
}

/// Integers of SQL are signed: sizes, devices and inodes keep their 64 bits, the topmost as the sign.
#[expect(clippy::cast_possible_wrap, reason = "bit for bit, undone by `unsigned`")]
pub(crate) fn signed(number: u64) -> i64 {
    number as i64
}

/// Undoes [`signed`].
#[expect(clippy::cast_sign_loss, reason = "bit for bit, undoes `signed`")]
pub(crate) fn unsigned(number: i64) -> u64 {
    number as u64
}
