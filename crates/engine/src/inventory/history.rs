//! The audit part of a record: its row in `changes` or `acts`, and the marks by which a moment is found.

use keepwatch_journal::Extra;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::acts;
use super::row::{FileId, bind_facts, fact_columns, signed};
use crate::apply::Stamp;
use crate::apply::codes::Code;
use crate::model::{Body, Change, Record, Seq};

/// A mark in `moments` every so many records: what a search for a moment reads at most.
pub(super) const MOMENT_EVERY: u64 = 1_024;

const INSERT_CHANGE: &str = concat!(
    "INSERT INTO changes (seq, at_ns, op, root_id, file_id, dir_id, name, old_root_id, old_dir_id, old_name, ",
    fact_columns!(),
    ", via, by_pid, by_uid, by_exe, merged, subtree, exchange, extra) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,\
     ?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29)"
);

/// A name in a directory that was live when the record came. Where the directory was not known: the root and the whole path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Then<'r> {
    pub(super) dir: i64,
    pub(super) name: &'r [u8],
}

/// Where a change was, in the history's terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'r> {
    pub(super) root: i64,
    pub(super) place: Then<'r>,
    /// The old root where the record names one, and the old place.
    pub(super) old: Option<(Option<i64>, Then<'r>)>,
    pub(super) file: Option<FileId>,
}

/// Writes the history within one transaction.
pub(super) struct History<'c> {
    db: &'c Connection,
    insert: CachedStatement<'c>,
    max_at_ns: i64,
}

impl<'c> History<'c> {
    /// `latest` is the running maximum of `at` so far, where it is known.
    pub(super) fn new(db: &'c Connection, latest: Option<i64>) -> rusqlite::Result<Self> {
        let max_at_ns = latest.map_or_else(|| running_max(db), Ok)?;
        Ok(History { db, insert: db.prepare_cached(INSERT_CHANGE)?, max_at_ns })
    }

    pub(super) fn max_at_ns(&self) -> i64 {
        self.max_at_ns
    }

    pub(super) fn change(
        &mut self,
        stamp: Stamp,
        change: &Change,
        told: &Told<'_>,
        extra: &Extra,
    ) -> rusqlite::Result<()> {
        let row = &mut self.insert;
        row.raw_bind_parameter(1, signed(stamp.seq.0))?;
        row.raw_bind_parameter(2, stamp.at.0)?;
        row.raw_bind_parameter(3, change.op.code())?;
        row.raw_bind_parameter(4, told.root)?;
        row.raw_bind_parameter(5, told.file.map(|file| file.0))?;
        row.raw_bind_parameter(6, told.place.dir)?;
        row.raw_bind_parameter(7, told.place.name)?;
        row.raw_bind_parameter(8, told.old.and_then(|(root, _)| root))?;
        row.raw_bind_parameter(9, told.old.map(|(_, place)| place.dir))?;
        row.raw_bind_parameter(10, told.old.map(|(_, place)| place.name))?;
        bind_facts(row, 11, change.facts.as_ref().map(|facts| facts.kind), change.facts.as_ref())?;
        row.raw_bind_parameter(22, change.via.code())?;
        let by = change.by.as_deref();
        row.raw_bind_parameter(23, by.map(|by| by.pid))?;
        row.raw_bind_parameter(24, by.and_then(|by| by.uid))?;
        row.raw_bind_parameter(25, by.and_then(|by| by.exe.as_deref()))?;
        row.raw_bind_parameter(26, change.merged)?;
        row.raw_bind_parameter(27, change.subtree)?;
        row.raw_bind_parameter(28, change.exchange)?;
        row.raw_bind_parameter(29, acts::extra_text(extra))?;
        row.raw_execute()?;
        Ok(())
    }

    /// The object of a change is not in the inventory after all.
    pub(super) fn disown(&mut self, seq: Seq) -> rusqlite::Result<()> {
        let mut update = self.db.prepare_cached("UPDATE changes SET file_id=NULL WHERE seq=?1")?;
        update.execute([signed(seq.0)])?;
        Ok(())
    }

    pub(super) fn act(
        &mut self,
        record: &Record,
        body: &Body,
        root: Option<i64>,
        file: Option<FileId>,
    ) -> rusqlite::Result<()> {
        let act = acts::columns(body);
        let mut insert = self.db.prepare_cached(
            "INSERT INTO acts (seq, at_ns, act, root_id, file_id, path, detail, extra) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
        )?;
        insert.execute(params![
            signed(record.seq.0),
            record.at.0,
            act.name,
            root,
            file.map(|file| file.0),
            act.path,
            act.detail,
            acts::extra_text(&record.extra)
        ])?;
        Ok(())
    }

    /// Sets aside the part of a record that could not be applied.
    pub(super) fn problem(&mut self, record: &Record, part: &str, reason: &str) -> rusqlite::Result<()> {
        let mut insert = self
            .db
            .prepare_cached("INSERT OR REPLACE INTO problems (seq, part, reason, record) VALUES (?1, ?2, ?3, ?4)")?;
        insert.execute(params![signed(record.seq.0), part, reason, format!("{:?}", record.body)])?;
        Ok(())
    }

    /// The record is in: moves the running maximum of `at`, and marks it at every [`MOMENT_EVERY`]th.
    pub(super) fn passed(&mut self, stamp: Stamp) -> rusqlite::Result<()> {
        self.max_at_ns = self.max_at_ns.max(stamp.at.0);
        if stamp.seq.0.is_multiple_of(MOMENT_EVERY) {
            let mut insert = self.db.prepare_cached("INSERT INTO moments (seq, max_at_ns) VALUES (?1, ?2)")?;
            insert.execute(params![signed(stamp.seq.0), self.max_at_ns])?;
        }
        Ok(())
    }
}

/// The running maximum of `at` at the end of the history.
fn running_max(db: &Connection) -> rusqlite::Result<i64> {
    let mut mark = db.prepare_cached("SELECT seq, max_at_ns FROM moments ORDER BY seq DESC LIMIT 1")?;
    let (seq, max) = mark.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?.unwrap_or((0_i64, i64::MIN));
    let mut since = db.prepare_cached(
        "SELECT max(at_ns) FROM (SELECT at_ns FROM changes WHERE seq>?1 UNION ALL SELECT at_ns FROM acts WHERE seq>?1)",
    )?;
    let since: Option<i64> = since.query_row([seq], |row| row.get(0))?;
    Ok(since.map_or(max, |since| since.max(max)))
}
