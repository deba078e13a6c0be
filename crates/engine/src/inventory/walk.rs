//! Walking the tree as it is, or as it was after a record: live names and those that ended later, merged.

use std::ops::ControlFlow;

use rusqlite::{Connection, params};

use super::list::Listed;
use super::past::object_then;
use super::row::{FileId, Known, known_columns, read_known, signed};
use crate::apply::codes::Code;
use crate::model::{FileType, RelPath, RootName, Seq};

/// Names read at once from a directory: what a walk holds in memory for each level of depth.
const PAGE: usize = 256;

/// A name as it stands in the tables: live, or ended with only what its interval says.
struct Found {
    name: Vec<u8>,
    file_id: i64,
    kind: Option<FileType>,
    live: Option<Known>,
}

/// A directory that is being listed.
struct Level {
    dir: i64,
    path: RelPath,
    page: std::vec::IntoIter<Found>,
    after: Vec<u8>,
    is_last: bool,
}

/// Walks the tree as it is, or as it was after a record.
pub(super) struct Walk<'c> {
    pub(super) db: &'c Connection,
    pub(super) at: Option<Seq>,
}

impl Walk<'_> {
    /// Tells of the object at a path and of all below it.
    pub(super) fn tree(
        &self,
        root: i64,
        name: &RootName,
        top: &RelPath,
        each: &mut impl FnMut(Listed) -> ControlFlow<()>,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let mut dir = root;
        let mut components = top.components().peekable();
        while let Some(component) = components.next() {
            let Some(found) = self.name(dir, component)? else { return Ok(ControlFlow::Continue(())) };
            let (id, kind) = (found.file_id, found.kind);
            if components.peek().is_none() {
                let listed = self.listed(name, top.clone(), found)?;
                if listed.is_some_and(|listed| each(listed).is_break()) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if kind != Some(FileType::Dir) {
                return Ok(ControlFlow::Continue(()));
            }
            dir = id;
        }
        let mut levels = vec![self.level(dir, top.clone())?];
        while let Some(level) = levels.last_mut() {
            let Some(found) = level.page.next() else {
                if level.is_last {
                    levels.pop();
                } else {
                    self.turn(level)?;
                }
                continue;
            };
            let path = level.path.join(&found.name);
            level.after.clone_from(&found.name);
            // Between its two halves an exchange keeps one of the objects under a name that no file has.
            if found.name.first() == Some(&0) {
                continue;
            }
            let below = (found.kind == Some(FileType::Dir)).then_some(found.file_id);
            if let Some(listed) = self.listed(name, path.clone(), found)?
                && each(listed).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            if let Some(dir) = below {
                levels.push(self.level(dir, path)?);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn level(&self, dir: i64, path: RelPath) -> rusqlite::Result<Level> {
        let mut level = Level { dir, path, page: Vec::new().into_iter(), after: Vec::new(), is_last: false };
        self.turn(&mut level)?;
        Ok(level)
    }

    /// Reads a directory's next page.
    fn turn(&self, level: &mut Level) -> rusqlite::Result<()> {
        let mut found = Vec::new();
        let mut live = self.db.prepare_cached(concat!(
            "SELECT name, ",
            known_columns!(),
            " FROM files WHERE dir_id=?1 AND name>?2 AND from_seq<=?3 ORDER BY name LIMIT ?4"
        ))?;
        let until = self.at.map_or(i64::MAX, |seq| signed(seq.0));
        let mut rows = live.query(params![level.dir, level.after, until, signed(PAGE as u64)])?;
        while let Some(row) = rows.next()? {
            found.push(live_name(row.get(0)?, read_known(row, 1)?));
        }
        let live_end = if found.len() == PAGE { found.last().map(|last| last.name.clone()) } else { None };
        let mut past_end = None;
        if self.at.is_some() {
            let mut past = self.db.prepare_cached(
                "SELECT name, file_id, kind FROM past_names \
                 WHERE dir_id=?1 AND name>?2 AND from_seq<=?3 AND to_seq>?3 ORDER BY name LIMIT ?4",
            )?;
            let mut rows = past.query(params![level.dir, level.after, until, signed(PAGE as u64)])?;
            let before = found.len();
            while let Some(row) = rows.next()? {
                let kind = row.get::<_, Option<i64>>(2)?.and_then(FileType::decode);
                found.push(Found { name: row.get(0)?, file_id: row.get(1)?, kind, live: None });
            }
            if found.len() - before == PAGE {
                past_end = found.last().map(|last| last.name.clone());
            }
            found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        // Behind the end of either page the other one may lack names.
        let end = match (live_end, past_end) {
            (Some(live), Some(past)) => Some(live.min(past)),
            (live, past) => live.or(past),
        };
        if let Some(end) = &end {
            found.truncate(found.partition_point(|found| found.name <= *end));
        }
        level.is_last = end.is_none();
        level.page = found.into_iter();
        Ok(())
    }

    /// What stands, or stood, under a name.
    fn name(&self, dir: i64, name: &[u8]) -> rusqlite::Result<Option<Found>> {
        let until = self.at.map_or(i64::MAX, |seq| signed(seq.0));
        let mut live = self.db.prepare_cached(concat!(
            "SELECT ",
            known_columns!(),
            " FROM files WHERE dir_id=?1 AND name=?2 AND from_seq<=?3"
        ))?;
        let mut rows = live.query(params![dir, name, until])?;
        if let Some(row) = rows.next()? {
            return Ok(Some(live_name(name.to_vec(), read_known(row, 0)?)));
        }
        if self.at.is_none() {
            return Ok(None);
        }
        let mut past = self.db.prepare_cached(
            "SELECT file_id, kind FROM past_names WHERE dir_id=?1 AND name=?2 AND from_seq<=?3 AND to_seq>?3",
        )?;
        let mut rows = past.query(params![dir, name, until])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let kind = row.get::<_, Option<i64>>(1)?.and_then(FileType::decode);
        Ok(Some(Found { name: name.to_vec(), file_id: row.get(0)?, kind, live: None }))
    }

    /// A name with what was known of its object by then.
    fn listed(&self, root: &RootName, path: RelPath, found: Found) -> rusqlite::Result<Option<Listed>> {
        let (root, file_id) = (root.clone(), FileId(found.file_id));
        let at = match (self.at, found.live) {
            (at, Some(live)) if at.is_none_or(|at| live.last_seq <= at) => {
                let Known { kind, facts, sha256, first_seen, last_change, .. } = live;
                return Ok(Some(Listed { root, path, file_id, kind, facts, sha256, first_seen, last_change }));
            }
            (Some(at), live) => (at, live),
            (None, _) => return Ok(None),
        };
        let (at, live) = at;
        let sha256 = live.filter(|live| live.version_seq <= at).and_then(|live| live.sha256);
        let then = object_then(self.db, found.file_id, at)?;
        let kind = then.facts.as_ref().map(|facts| facts.kind).or(found.kind);
        let (facts, first_seen, last_change) = (then.facts, then.first_seen, then.last_change);
        Ok(Some(Listed { root, path, file_id, kind, facts, sha256, first_seen, last_change }))
    }
}

fn live_name(name: Vec<u8>, known: Known) -> Found {
    Found { name, file_id: known.file_id.0, kind: known.kind, live: Some(known) }
}
