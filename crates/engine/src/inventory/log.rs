//! `log`: the history, record by record, as it stands in the journal.

use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::acts;
use super::error::Result;
use super::past::{Past, seq_at};
use super::row::{read_facts, signed};
use super::view::View;
use crate::apply::codes::Code;
use crate::apply::told::{places, word};
use crate::model::{Body, By, Change, OldPlace, Op, Record, RelPath, RootName, Seq, Timestamp, Via};

/// Which records to tell.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// In which root; `None`: in all, and the acts that belong to none.
    pub root: Option<RootName>,
    /// Of what stands or ever stood at this path; of a directory, with all below it.
    pub path: Option<RelPath>,
    /// Follow what is at `path` to the names it had before and after.
    pub follow: bool,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Not after this moment.
    pub until: Option<Timestamp>,
    /// Only these words in `do`; none: all.
    pub words: Vec<String>,
}

impl View {
    /// Tells records in the order of their seq, as they stand in the journal. All of it shows one committed state.
    ///
    /// # Errors
    /// SQLite's.
    pub fn log(&self, query: &LogQuery, mut each: impl FnMut(Record) -> ControlFlow<()>) -> Result<()> {
        self.read(|db| {
            let tx = db.unchecked_transaction()?;
            let mut log = Log { db: &tx, past: Past::new(&tx)?, query, objects: Vec::new(), ends: Vec::new() };
            log.find_objects()?;
            // Whatever was journaled at or after `since` stands behind the last record whose running maximum is before it.
            let first = query.since.map_or(Ok(Seq::ZERO), |since| seq_at(&tx, Timestamp(since.0.saturating_sub(1))))?;
            log.tell(first.next(), &mut each)
        })
    }
}

struct Log<'v> {
    db: &'v Connection,
    past: Past<'v>,
    query: &'v LogQuery,
    /// What stands or ever stood at the path that was asked for.
    objects: Vec<i64>,
    /// The records that ended names there; the end of a directory tells of no name below it.
    ends: Vec<i64>,
}

/// Every record behind ?1, in order.
const ALL: &str = "SELECT seq FROM changes WHERE seq>=?1 UNION ALL SELECT seq FROM acts WHERE seq>=?1 ORDER BY seq";
/// The records behind ?1 about the objects ?2, and the records ?3.
const ABOUT: &str = "SELECT seq FROM changes WHERE seq>=?1 AND file_id<>seq AND file_id IN (SELECT value FROM json_each(?2)) \
    UNION SELECT seq FROM changes WHERE seq>=?1 AND seq=file_id AND seq IN (SELECT value FROM json_each(?2)) \
    UNION SELECT seq FROM acts WHERE seq>=?1 AND file_id IN (SELECT value FROM json_each(?2)) \
    UNION SELECT u.seq FROM triggers t JOIN runs u ON u.trigger_id=t.trigger_id WHERE u.seq>=?1 \
    AND u.file_id IN (SELECT value FROM json_each(?2)) \
    UNION SELECT value FROM json_each(?3) WHERE value>=?1 ORDER BY 1";

impl Log<'_> {
    fn tell(&mut self, first: Seq, each: &mut impl FnMut(Record) -> ControlFlow<()>) -> rusqlite::Result<()> {
        let has_dir = self.query.path.is_none()
            || self.objects.iter().try_fold(false, |any, id| self.is_dir(*id).map(|dir| any || dir))?;
        let by_object = self.query.follow && !has_dir;
        let (objects, ends) = (format!("{:?}", self.objects), format!("{:?}", self.ends));
        let db = self.db;
        let mut seqs = db.prepare(if by_object { ABOUT } else { ALL })?;
        let mut rows = if by_object {
            seqs.query(params![signed(first.0), objects, ends])?
        } else {
            seqs.query([signed(first.0)])?
        };
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let Some((record, told)) = self.record(seq)? else { continue };
            if self.is_asked_for(&record, by_object, &told)? && each(record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn is_asked_for(&mut self, record: &Record, is_about: bool, told: &About) -> rusqlite::Result<bool> {
        let query = self.query;
        if query.since.is_some_and(|since| record.at < since) || query.until.is_some_and(|until| record.at > until) {
            return Ok(false);
        }
        if !query.words.is_empty() && !query.words.iter().any(|asked| asked == word(&record.body)) {
            return Ok(false);
        }
        let places = places(&record.body);
        let in_root = |named: Option<&RootName>| query.root.as_ref().is_none_or(|root| named == Some(root));
        let Some(path) = &query.path else {
            return Ok(places.iter().any(|(named, _)| in_root(*named)) || query.root.is_none());
        };
        // What is followed may have been in another root.
        if is_about
            || places.iter().any(|(named, place)| in_root(*named) && place.is_some_and(|place| place.is_within(path)))
        {
            return Ok(true);
        }
        if !query.follow {
            return Ok(false);
        }
        if told.file.is_some_and(|file| self.objects.contains(&file)) {
            return Ok(true);
        }
        for (dir, seq) in &told.dirs {
            if let Some(span) = self.past.dir(*dir, *seq)?
                && span.lineage.iter().any(|dir| self.objects.contains(dir))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything that stands or ever stood at the path, whatever directories led there.
    fn find_objects(&mut self) -> rusqlite::Result<()> {
        let Some(path) = &self.query.path else { return Ok(()) };
        let mut roots = self.db.prepare("SELECT root_id FROM roots WHERE ?1 IS NULL OR name=?1")?;
        let roots = roots.query_map([self.query.root.as_ref().map(RootName::as_str)], |row| row.get(0))?;
        let mut level: Vec<i64> = roots.collect::<rusqlite::Result<_>>()?;
        let mut ends = Vec::new();
        let mut find = self.db.prepare(
            "SELECT file_id, 0 FROM files WHERE dir_id=?1 AND name=?2 \
             UNION ALL SELECT file_id, to_seq FROM past_names WHERE dir_id=?1 AND name=?2",
        )?;
        for component in path.components() {
            let mut next = Vec::new();
            ends.clear();
            for dir in level {
                let mut rows = find.query(params![dir, component])?;
                while let Some(row) = rows.next()? {
                    next.push(row.get(0)?);
                    ends.extend(Some(row.get::<_, i64>(1)?).filter(|end| *end != 0));
                }
            }
            next.sort_unstable();
            next.dedup();
            level = next;
        }
        (self.objects, self.ends) = (level, ends);
        Ok(())
    }

    fn is_dir(&self, id: i64) -> rusqlite::Result<bool> {
        let mut find = self.db.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM dir_names WHERE dir_id=?1) OR EXISTS (SELECT 1 FROM roots WHERE root_id=?1)",
        )?;
        find.query_row([id], |row| row.get(0))
    }

    fn record(&mut self, seq: i64) -> rusqlite::Result<Option<(Record, About)>> {
        if let Some(found) = self.change(seq)? {
            return Ok(Some(found));
        }
        let mut find = self
            .db
            .prepare_cached("SELECT at_ns, act, root_id, path, detail, extra, file_id FROM acts WHERE seq=?1")?;
        let found = find.query_row([seq], |row| {
            let root = row.get::<_, Option<i64>>(2)?.and_then(|root| self.past.root_name(root).cloned());
            let body = acts::body(row.get(1)?, root, row.get(3)?, &row.get::<_, String>(4)?);
            let about = About { file: row.get(6)?, dirs: Vec::new() };
            let (at, extra) = (Timestamp(row.get(0)?), acts::extra_of(row.get(5)?));
            Ok(body.map(|body| (Record { seq: acts::seq(seq), at, body, extra }, about)))
        });
        Ok(found.optional()?.flatten())
    }

    fn change(&mut self, seq: i64) -> rusqlite::Result<Option<(Record, About)>> {
        let db = self.db;
        let mut find = db.prepare_cached(
            "SELECT at_ns, op, root_id, dir_id, name, old_root_id, old_dir_id, old_name, via, by_pid, by_uid, by_exe, \
             merged, subtree, exchange, extra, file_id, kind, size, mtime_ns, ctime_ns, dev, inode, mode, uid, gid, nlink, target \
             FROM changes WHERE seq=?1",
        )?;
        let mut rows = find.query([seq])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let now = acts::seq(seq);
        let before = Seq(now.0.saturating_sub(1));
        let dir: i64 = row.get(3)?;
        let mut about = About { file: row.get(16)?, dirs: vec![(dir, now)] };
        let path = self.past.path(dir, row.get_ref(4)?.as_blob()?, now)?;
        let old = match row.get::<_, Option<i64>>(6)? {
            None => None,
            Some(old_dir) => {
                about.dirs.push((old_dir, before));
                let path = self.past.path(old_dir, row.get_ref(7)?.as_blob()?, before)?;
                let root = row.get::<_, Option<i64>>(5)?.and_then(|root| self.past.root_name(root).cloned());
                path.map(|path| OldPlace { root, path })
            }
        };
        let root = self.past.root_name(row.get(2)?).cloned();
        let (op, via) = (Op::decode(row.get(1)?), Via::decode(row.get(8)?));
        // What none of our versions wrote is no record of ours.
        let (Some(op), Some(via), Some(path), Some(root)) = (op, via, path, root) else { return Ok(None) };
        let by = match row.get(9)? {
            None => None,
            Some(pid) => {
                Some(Arc::new(By { pid, uid: row.get(10)?, exe: row.get::<_, Option<Vec<u8>>>(11)?.map(Into::into) }))
            }
        };
        let (merged, subtree, exchange) = (row.get(12)?, row.get(13)?, row.get(14)?);
        let change = Change { op, root, path, old, facts: read_facts(row, 17)?.1, via, by, merged, subtree, exchange };
        let extra = acts::extra_of(row.get(15)?);
        Ok(Some((Record { seq: now, at: Timestamp(row.get(0)?), body: Body::Change(change), extra }, about)))
    }
}

/// What a record was about, by id: the object, and the directories it named, each as of a record.
struct About {
    file: Option<i64>,
    dirs: Vec<(i64, Seq)>,
}
