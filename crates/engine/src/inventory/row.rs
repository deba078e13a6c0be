//! How facts and what is known lie in the inventory's columns.

use rusqlite::{Row, Statement};

use crate::apply::codes::Code;
pub use crate::apply::{DirId, FileId, Known, KnownChild, ROOTS_DIR};
pub(super) use crate::apply::{ROOTS, signed, unsigned};
use crate::model::{Facts, FileType, Seq, Timestamp};

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
