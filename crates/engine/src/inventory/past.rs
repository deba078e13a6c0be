//! The past: which record was the last at a moment, and where a directory stood at a record.

use std::collections::HashMap;
use std::rc::Rc;

use rusqlite::{Connection, OptionalExtension, params};

use super::row::{fact_columns, read_facts, signed, unsigned};
use crate::apply::DEPTH_BITS;
use crate::model::{Facts, RelPath, RootName, Seq, Timestamp};

/// Directories whose place is remembered; beyond, all are forgotten and looked up again.
const SPANS_MAX: usize = 16_384;

/// The last record whose running maximum of `at` is not after a moment.
pub(super) fn seq_at(db: &Connection, at: Timestamp) -> rusqlite::Result<Seq> {
    let mut mark = db.prepare_cached(
        "SELECT seq, max_at_ns FROM moments WHERE max_at_ns<=?1 ORDER BY max_at_ns DESC, seq DESC LIMIT 1",
    )?;
    let mark = mark.query_row([at.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (mut seq, _): (i64, i64) = mark.unwrap_or((0, i64::MIN));
    let mut since = db.prepare_cached(
        "SELECT seq, at_ns FROM changes WHERE seq>?1 UNION ALL SELECT seq, at_ns FROM acts WHERE seq>?1 ORDER BY seq",
    )?;
    let mut rows = since.query([seq])?;
    while let Some(row) = rows.next()? {
        // The maximum passes `at` where the first record behind the mark does.
        if row.get::<_, i64>(1)? > at.0 {
            break;
        }
        seq = row.get(0)?;
    }
    Ok(Seq(unsigned(seq)))
}

/// Where a directory stood during a stretch of records.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) root: i64,
    pub(super) path: Vec<u8>,
    /// The directory and all above it, up to the root.
    pub(super) lineage: Vec<i64>,
    from_seq: i64,
    to_seq: i64,
}

impl Span {
    /// The path of a name in it.
    pub(super) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() }
    }
}

/// Finds where directories stood, and remembers it.
pub(super) struct Past<'v> {
    db: &'v Connection,
    roots: HashMap<i64, RootName>,
    spans: HashMap<i64, Rc<Span>>,
}

impl<'v> Past<'v> {
    pub(super) fn new(db: &'v Connection) -> rusqlite::Result<Self> {
        let mut find = db.prepare_cached("SELECT root_id, name FROM roots")?;
        let roots = find.query_map([], |row| Ok((row.get(0)?, RootName::new(row.get::<_, String>(1)?))))?;
        Ok(Past { db, roots: roots.collect::<rusqlite::Result<_>>()?, spans: HashMap::new() })
    }

    pub(super) fn root_name(&self, root: i64) -> Option<&RootName> {
        self.roots.get(&root)
    }

    /// Where a directory stood when a record had been applied; `None` if it did not stand anywhere.
    pub(super) fn dir(&mut self, dir: i64, seq: Seq) -> rusqlite::Result<Option<Rc<Span>>> {
        let at = signed(seq.0);
        // Upwards to what is known, then down again.
        let mut climbed: Vec<(i64, i64, i64, Vec<u8>)> = Vec::new();
        let mut above = dir;
        let mut span = loop {
            if let Some(span) = self.spans.get(&above).filter(|span| span.from_seq <= at && at < span.to_seq) {
                break Rc::clone(span);
            }
            if self.roots.contains_key(&above) {
                let lineage = vec![above];
                break Rc::new(Span { root: above, path: Vec::new(), lineage, from_seq: 0, to_seq: i64::MAX });
            }
            let mut find = self.db.prepare_cached(
                "SELECT from_seq, coalesce(to_seq, 9223372036854775807), parent, name FROM dir_names \
                 WHERE dir_id=?1 AND from_seq<=?2 ORDER BY from_seq DESC LIMIT 1",
            )?;
            let place = find.query_row(params![above, at], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?))
            });
            let Some((from_seq, to_seq, parent, name)) = place.optional()?.filter(|place| at < place.1) else {
                return Ok(None);
            };
            climbed.push((above, from_seq, to_seq, name));
            above = parent;
        };
        if self.spans.len() + climbed.len() > SPANS_MAX {
            self.spans.clear();
        }
        for (id, from_seq, to_seq, name) in climbed.into_iter().rev() {
            let mut lineage = span.lineage.clone();
            lineage.push(id);
            let (from_seq, to_seq) = (from_seq.max(span.from_seq), to_seq.min(span.to_seq));
            span = Rc::new(Span { root: span.root, path: span.join(&name), lineage, from_seq, to_seq });
            self.spans.insert(id, Rc::clone(&span));
        }
        Ok(Some(span))
    }

    /// The path of a name in a directory as it stood then. Directory 0 holds the roots: that is a root itself.
    pub(super) fn path(&mut self, dir: i64, name: &[u8], seq: Seq) -> rusqlite::Result<Option<RelPath>> {
        if dir == super::row::ROOTS {
            return Ok(Some(RelPath::ROOT));
        }
        Ok(self.dir(dir, seq)?.and_then(|span| RelPath::new(span.join(name)).ok()))
    }
}

/// What was known of an object when a record had been applied.
pub(super) struct ObjectThen {
    pub(super) facts: Option<Facts>,
    pub(super) first_seen: Timestamp,
    pub(super) last_change: Timestamp,
}

/// What was known of an object when a record had been applied, by its history.
pub(super) fn object_then(db: &Connection, file_id: i64, at: Seq) -> rusqlite::Result<ObjectThen> {
    let first = if file_id < 0 { -file_id >> DEPTH_BITS } else { file_id };
    let mut moment = db.prepare_cached(
        "SELECT at_ns FROM changes WHERE seq=?1 UNION ALL SELECT at_ns FROM acts WHERE seq=?1 LIMIT 1",
    )?;
    let first_seen = moment.query_row([first], |row| row.get(0)).optional()?.unwrap_or(0);
    let mut then = ObjectThen { facts: None, first_seen: Timestamp(first_seen), last_change: Timestamp(first_seen) };
    // Two queries, because the index leaves out the record that has the object's own id.
    let mut later = db.prepare_cached(concat!(
        "SELECT at_ns, ",
        fact_columns!(),
        " FROM changes WHERE file_id=?1 AND file_id<>seq AND seq<=?2 ORDER BY seq DESC"
    ))?;
    let mut rows = later.query(params![file_id, signed(at.0)])?;
    let mut is_last = true;
    while let Some(row) = rows.next()? {
        if std::mem::take(&mut is_last) {
            then.last_change = Timestamp(row.get(0)?);
        }
        then.facts = read_facts(row, 1)?.1;
        if then.facts.is_some() {
            return Ok(then);
        }
    }
    let mut own =
        db.prepare_cached(concat!("SELECT ", fact_columns!(), " FROM changes WHERE seq=?1 AND file_id=seq"))?;
    let mut rows = own.query([file_id])?;
    if let Some(row) = rows.next()? {
        then.facts = read_facts(row, 0)?.1;
    }
    Ok(then)
}
