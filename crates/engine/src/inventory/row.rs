//! The values that rows are made of, and how facts lie in their columns.

use rusqlite::{Row, Statement};

use super::codes::Code;
use crate::model::{Facts, FileType, Seq, Timestamp};

/// An object: the seq of the record that first told of it, or a negative number for a directory that only a path told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub i64);

/// A directory: its [`FileId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(pub i64);

/// The directory that holds the roots, each by its name.
pub(super) const ROOTS: i64 = 0;

/// What the inventory knows of an object under one of its names.
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

/// The columns of facts, in the order in which [`read_facts`] and [`bind_facts`] take them.
macro_rules! fact_columns {
    () => {
        "kind, size, mtime_ns, ctime_ns, dev, inode, mode, uid, gid, nlink, target"
    };
}
/// The columns of a [`Known`], in the order in which [`read_known`] takes them.
macro_rules! known_columns {
    () => {
        concat!(
            "file_id, ",
            $crate::inventory::row::fact_columns!(),
            ", first_seen_ns, from_seq, version_seq, last_seq, last_change_ns, settled_seq, sha256"
        )
    };
}
pub(super) use {fact_columns, known_columns};

/// How many columns [`fact_columns`] names.
pub(super) const FACT_COLUMNS: usize = 11;

/// SQLite's integers are signed: sizes, devices and inodes keep their 64 bits, the topmost as the sign.
#[expect(clippy::cast_possible_wrap, reason = "bit for bit, undone by `unsigned`")]
pub(super) fn signed(number: u64) -> i64 {
    number as i64
}

/// Undoes [`signed`].
#[expect(clippy::cast_sign_loss, reason = "bit for bit, undoes `signed`")]
pub(super) fn unsigned(number: i64) -> u64 {
    number as u64
}

fn narrow(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Binds facts from parameter `first` on.
pub(super) fn bind_facts(
    statement: &mut Statement<'_>,
    first: usize,
    kind: Option<FileType>,
    facts: Option<&Facts>,
) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(first, kind.map(Code::code))?;
    let Some(facts) = facts else {
        for parameter in first + 1..first + FACT_COLUMNS {
            statement.raw_bind_parameter(parameter, None::<i64>)?;
        }
        return Ok(());
    };
    statement.raw_bind_parameter(first + 1, signed(facts.size))?;
    statement.raw_bind_parameter(first + 2, facts.mtime_ns)?;
    statement.raw_bind_parameter(first + 3, facts.ctime_ns)?;
    statement.raw_bind_parameter(first + 4, signed(facts.dev))?;
    statement.raw_bind_parameter(first + 5, signed(facts.inode))?;
    statement.raw_bind_parameter(first + 6, facts.mode)?;
    statement.raw_bind_parameter(first + 7, facts.uid)?;
    statement.raw_bind_parameter(first + 8, facts.gid)?;
    statement.raw_bind_parameter(first + 9, facts.nlink)?;
    statement.raw_bind_parameter(first + 10, facts.target.as_deref())
}

/// Reads kind and facts from column `first` on.
pub(super) fn read_facts(row: &Row<'_>, first: usize) -> rusqlite::Result<(Option<FileType>, Option<Facts>)> {
    let kind = row.get::<_, Option<i64>>(first)?.and_then(FileType::decode);
    let (Some(known), Some(inode)) = (kind, row.get::<_, Option<i64>>(first + 5)?) else { return Ok((kind, None)) };
    let facts = Facts {
        kind: known,
        size: unsigned(row.get(first + 1)?),
        mtime_ns: row.get(first + 2)?,
        ctime_ns: row.get(first + 3)?,
        dev: unsigned(row.get(first + 4)?),
        inode: unsigned(inode),
        mode: narrow(row.get(first + 6)?),
        uid: narrow(row.get(first + 7)?),
        gid: narrow(row.get(first + 8)?),
        nlink: narrow(row.get(first + 9)?),
        target: row.get_ref(first + 10)?.as_blob_or_null()?.map(Into::into),
    };
    Ok((kind, Some(facts)))
}

/// Reads a [`Known`] from column `first` on.
pub(super) fn read_known(row: &Row<'_>, first: usize) -> rusqlite::Result<Known> {
    let (kind, facts) = read_facts(row, first + 1)?;
    let rest = first + 1 + FACT_COLUMNS;
    let seq = |column: usize| row.get(column).map(unsigned).map(Seq);
    Ok(Known {
        file_id: FileId(row.get(first)?),
        kind,
        facts,
        first_seen: Timestamp(row.get(rest)?),
        from_seq: seq(rest + 1)?,
        version_seq: seq(rest + 2)?,
        last_seq: seq(rest + 3)?,
        last_change: Timestamp(row.get(rest + 4)?),
        settled_seq: seq(rest + 5)?,
        sha256: row.get(rest + 6)?,
    })
}
