//! `ls`: what stands in a tree, now or at a moment, name by name.

use std::ops::ControlFlow;

use rusqlite::{Connection, params};

use super::error::Result;
use super::past::seq_at;
use super::row::{FileId, signed};
use super::view::View;
use super::walk::Walk;
use crate::model::{Facts, FileType, RelPath, RootName, Seq, Timestamp};

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// In which root; `None`: in all, by name.
    pub root: Option<RootName>,
    /// The object at this path and all below it.
    pub path: RelPath,
    /// As it was at this moment; `None`: as it is.
    pub at: Option<Timestamp>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In which root.
    pub root: RootName,
    /// The whole path.
    pub path: RelPath,
    /// Which object.
    pub file_id: FileId,
    /// What kind, if it was ever read.
    pub kind: Option<FileType>,
    /// What was last found by then.
    pub facts: Option<Facts>,
    /// The digest of its content, where it is known that it was this content by then.
    pub sha256: Option<[u8; 32]>,
    /// When the journal first told of the object.
    pub first_seen: Timestamp,
    /// When the last record by then told of it.
    pub last_change: Timestamp,
}

/// How a listing is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The last record that it takes account of.
    pub seq: Seq,
    /// Whether a gap was open then: changes may have been missed.
    pub uncertain: bool,
}

impl View {
    /// Lists names in path order: each directory is followed by what it holds, its names in the order of their bytes. All
    /// of it shows one committed state. Holds a few names for each level of depth, never the whole.
    ///
    /// # Errors
    /// SQLite's.
    pub fn list(&self, query: &ListQuery, mut each: impl FnMut(Listed) -> ControlFlow<()>) -> Result<Listing> {
        self.read(|db| {
            let tx = db.unchecked_transaction()?;
            let now = super::writer::read_cursor(&tx)?.map_or(Seq::ZERO, |cursor| cursor.seq);
            let seq = query.at.map_or(Ok(now), |at| seq_at(&tx, at))?;
            let listing = Listing { seq, uncertain: is_uncertain(&tx, query, seq)? };
            let walk = Walk { db: &tx, at: query.at.is_some().then_some(seq) };
            let mut find = tx.prepare("SELECT root_id, name FROM roots WHERE ?1 IS NULL OR name=?1 ORDER BY name")?;
            let roots = find.query_map([query.root.as_ref().map(RootName::as_str)], |row| {
                Ok((row.get::<_, i64>(0)?, RootName::new(row.get::<_, String>(1)?)))
            })?;
            for root in roots {
                let (id, name) = root?;
                if walk.tree(id, &name, &query.path, &mut each)?.is_break() {
                    break;
                }
            }
            Ok(listing)
        })
    }
}

/// Whether a gap that touches what is listed was open at the record that ends it, or began before that moment unnoticed.
fn is_uncertain(db: &Connection, query: &ListQuery, seq: Seq) -> rusqlite::Result<bool> {
    let mut find = db.prepare(
        "SELECT g.path FROM gaps g LEFT JOIN roots r ON r.root_id=g.root_id \
         WHERE g.since_ns<=?1 AND (g.closed_seq IS NULL OR g.closed_seq>?2) AND (?3 IS NULL OR r.name IS NULL OR r.name=?3)",
    )?;
    let at = query.at.map_or(i64::MAX, |at| at.0);
    let mut rows = find.query(params![at, signed(seq.0), query.root.as_ref().map(RootName::as_str)])?;
    while let Some(row) = rows.next()? {
        // What cannot be read as a path is taken to touch everything.
        let path = RelPath::new(row.get::<_, Vec<u8>>(0)?).unwrap_or(RelPath::ROOT);
        if path.is_within(&query.path) || query.path.is_within(&path) {
            return Ok(true);
        }
    }
    Ok(false)
}
