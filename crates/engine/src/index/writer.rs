//! The one writer of a host's rows: a batch is one transaction, which moves the cursor first.

use std::collections::HashSet;

use super::ahead;
use super::audit::{self, Audit, COPY_ACTS, COPY_CHANGES};
use super::copies;
use super::database::Database;
use super::error::{IndexError, Result};
use super::host::{self, Writer};
use super::overlay::Overlay;
use super::schema;
use super::session::{Access, Session, Stop};
use super::settings::IndexSettings;
use crate::apply::{Fault, FileId, Halves, Memory, Stamp, Tree, signed};
use crate::model::{Body, Cursor, JournalId, Record, Seq};

/// What is read ahead at once after a directory was moved or ended: that makes what was read before worthless.
const AHEAD_AGAIN: usize = 256;
/// Months whose partitions are remembered; a clock that leaps wildly makes more.
const MONTHS_MAX: usize = 1024;

/// The writer of one host's rows, on a connection of its own.
pub struct Index {
    session: Session,
    host: i32,
    cursor: Cursor,
    /// History up to here is not written: it was detached on purpose.
    history_from: Seq,
    memory: Memory,
    months: HashSet<String>,
}

/// A part of a record that was set aside.
struct Problem<'r> {
    record: &'r Record,
    part: &'static str,
    reason: String,
}

/// Why records could not be applied together.
enum Stuck {
    /// The one at this place contradicts itself or the tree.
    Contradiction(usize, &'static str),
    Failed(IndexError),
}

impl From<IndexError> for Stuck {
    fn from(error: IndexError) -> Self {
        Stuck::Failed(error)
    }
}

impl Index {
    /// Connects, brings the tables up to date and finds the host's place. `is_set_aside` says whether a journal of this
    /// state directory was set aside when a new epoch began.
    ///
    /// # Errors
    /// [`IndexError`], by what can be done about it.
    pub fn open(
        settings: &IndexSettings,
        writer: &Writer,
        is_set_aside: impl Fn(JournalId) -> bool,
        stop: Stop,
    ) -> Result<Index> {
        let session = Session::open(settings, Access::Write, stop)?;
        schema::prepare(&session)?;
        let (host, cursor) = host::register(&session, writer, is_set_aside)?;
        Ok(Index::at(session, host, cursor, Seq::ZERO))
    }

    pub(super) fn at(session: Session, host: i32, cursor: Cursor, history_from: Seq) -> Index {
        Index { session, host, cursor, history_from, memory: Memory::default(), months: HashSet::new() }
    }

    /// How far the journal was applied; seq 0 at its beginning.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn host(&self) -> i32 {
        self.host
    }

    /// How many records have a part that was set aside.
    ///
    /// # Errors
    /// The server's.
    pub fn problems(&self) -> Result<u64> {
        let rows = self.session.query("SELECT count(DISTINCT seq) FROM problems WHERE host_id=$1", &[&self.host])?;
        Ok(rows.first().and_then(|row| super::row::get::<i64>(row, 0)).map_or(0, i64::unsigned_abs))
    }

    /// Applies the records behind the cursor up to `to`, in one transaction with the cursor's move. `head` is where the
    /// journal ends now. Returns how many parts of records were set aside.
    ///
    /// # Errors
    /// [`IndexError`]. Whether the transaction was committed is then unknown: a new connection's cursor tells.
    pub fn apply(&mut self, records: &[Record], to: Cursor, head: Seq) -> Result<u64> {
        let done = self.transact(records, to, head);
        if done.is_err() {
            self.memory.forget();
        }
        done
    }

    fn transact(&mut self, records: &[Record], to: Cursor, head: Seq) -> Result<u64> {
        for record in records.iter().filter(|record| record.seq > self.history_from) {
            let month = schema::month_of(record.at);
            if !self.months.contains(&month) {
                if self.months.len() >= MONTHS_MAX {
                    self.months.clear();
                }
                schema::make_month(&self.session, &month)?;
                self.months.insert(month);
            }
        }
        self.session.run("BEGIN")?;
        host::move_cursor(&self.session, self.host, self.cursor, to, head)?;
        let mut problems = Vec::new();
        let mut files = Vec::with_capacity(records.len());
        self.inventory(records, &mut files, &mut problems)?;
        self.copies(records, &mut problems)?;
        let told = records.partition_point(|record| record.seq <= self.history_from);
        let (changes, acts) = audit::rows(self.host, &records[told..], &files[told..]);
        self.history(COPY_CHANGES, &records[told..], &changes, 0..changes.rows.len(), &mut problems)?;
        self.history(COPY_ACTS, &records[told..], &acts, 0..acts.rows.len(), &mut problems)?;
        self.keep_problems(&problems)?;
        self.session.run("COMMIT")?;
        self.cursor = to;
        Ok(problems.len() as u64)
    }

    // The inventory part.

    /// Applies all that can be applied; what a value or constraint refuses is found by halves, and set aside.
    fn inventory<'r>(
        &mut self,
        records: &'r [Record],
        files: &mut Vec<Option<FileId>>,
        problems: &mut Vec<Problem<'r>>,
    ) -> Result<()> {
        let Some(first) = records.first() else { return Ok(()) };
        self.session.run("SAVEPOINT part")?;
        let mut set_aside = |record: &'r Record, reason: &str| {
            problems.push(Problem { record, part: "inventory", reason: reason.to_owned() });
        };
        let cut = match self.apply_together(records) {
            Ok(found) => {
                files.extend(found);
                return self.session.run("RELEASE part");
            }
            Err(Stuck::Contradiction(place, why)) => {
                self.undo()?;
                self.inventory(&records[..place], files, problems)?;
                files.push(None);
                problems.push(Problem { record: &records[place], part: "inventory", reason: why.to_owned() });
                return self.inventory(&records[place + 1..], files, problems);
            }
            Err(Stuck::Failed(error)) if error.is_of_the_row() => {
                self.undo()?;
                match half(records) {
                    Some(cut) => cut,
                    None if records.len() == 1 => {
                        set_aside(first, &error.to_string());
                        files.push(None);
                        return Ok(());
                    }
                    None => {
                        for record in records {
                            set_aside(record, &error.to_string());
                            files.push(None);
                        }
                        return Ok(());
                    }
                }
            }
            Err(Stuck::Failed(error)) => return Err(error),
        };
        self.inventory(&records[..cut], files, problems)?;
        self.inventory(&records[cut..], files, problems)
    }

    /// Applies what the records say of replicas, which is a part of its own: what is wrong there is found by halves, too.
    fn copies<'r>(&self, records: &'r [Record], problems: &mut Vec<Problem<'r>>) -> Result<()> {
        if !records.iter().any(copies::tells_of_replicas) {
            return Ok(());
        }
        self.session.run("SAVEPOINT part")?;
        match copies::apply(&self.session, self.host, records) {
            Ok(()) => self.session.run("RELEASE part"),
            Err(error) if error.is_of_the_row() => {
                self.session.run("ROLLBACK TO part; RELEASE part")?;
                if let [record] = records {
                    problems.push(Problem { record, part: "inventory", reason: error.to_string() });
                    return Ok(());
                }
                let (first, second) = records.split_at(records.len() / 2);
                self.copies(first, problems)?;
                self.copies(second, problems)
            }
            Err(error) => Err(error),
        }
    }

    fn undo(&mut self) -> Result<()> {
        self.memory.forget();
        self.session.run("ROLLBACK TO part; RELEASE part")
    }

    fn apply_together(&mut self, records: &[Record]) -> std::result::Result<Vec<Option<FileId>>, Stuck> {
        let mut overlay = Overlay::new(Database { session: &self.session, host: self.host });
        ahead::read(&mut overlay, &self.memory, records)?;
        let mut tree = Tree::new(overlay, &mut self.memory);
        let mut halves = Halves::default();
        let mut files = Vec::with_capacity(records.len());
        let mut read_until = records.len();
        for (place, record) in records.iter().enumerate() {
            let (store, memory) = tree.parts();
            if store.take_stale() || place == read_until {
                store.write()?;
                read_until = records.len().min(place + AHEAD_AGAIN);
                ahead::read(store, memory, &records[place..read_until])?;
            }
            match apply_one(&mut tree, &mut halves, record) {
                Ok(file) => files.push(file),
                Err(Fault::Contradiction(why)) => return Err(Stuck::Contradiction(place, why)),
                Err(Fault::Store(error)) => return Err(error.into()),
            }
            tree.settle_counts();
        }
        tree.write_counts()?;
        tree.parts().0.write()?;
        Ok(files)
    }

    // The audit part.

    fn history<'r>(
        &self,
        sql: &'static str,
        records: &'r [Record],
        audit: &Audit,
        rows: std::ops::Range<usize>,
        problems: &mut Vec<Problem<'r>>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.session.run("SAVEPOINT part")?;
        match self.session.copy(sql, audit.rows.part(rows.clone())) {
            Ok(_) => self.session.run("RELEASE part"),
            Err(error) if error.is_of_the_row() => {
                self.session.run("ROLLBACK TO part; RELEASE part")?;
                if rows.len() == 1 {
                    let record = &records[audit.of[rows.start]];
                    problems.push(Problem { record, part: "audit", reason: error.to_string() });
                    return Ok(());
                }
                let cut = rows.start + rows.len() / 2;
                self.history(sql, records, audit, rows.start..cut, problems)?;
                self.history(sql, records, audit, cut..rows.end, problems)
            }
            Err(error) => Err(error),
        }
    }

    fn keep_problems(&self, problems: &[Problem<'_>]) -> Result<()> {
        if problems.is_empty() {
            return Ok(());
        }
        let seqs: Vec<i64> = problems.iter().map(|problem| signed(problem.record.seq.0)).collect();
        let parts: Vec<&str> = problems.iter().map(|problem| problem.part).collect();
        let reasons: Vec<&str> = problems.iter().map(|problem| &problem.reason[..]).collect();
        let records: Vec<String> = problems.iter().map(|problem| line(problem.record)).collect();
        self.session.execute(
            "INSERT INTO problems (host_id, seq, part, reason, record) \
             SELECT $1, u.* FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS u \
             ON CONFLICT (host_id, seq, part) DO NOTHING",
            &[&self.host, &seqs, &parts, &reasons, &records],
        )?;
        Ok(())
    }
}

/// What one record does to the tree.
fn apply_one<'r>(
    tree: &mut Tree<'_, Overlay<Database<'_>>>,
    halves: &mut Halves<'r>,
    record: &'r Record,
) -> std::result::Result<Option<FileId>, Fault<IndexError>> {
    let stamp = Stamp::of(record);
    match &record.body {
        Body::Change(change) => {
            let root = tree.root(&change.root, stamp)?;
            let old_root = match change.old.as_ref().and_then(|old| old.root.as_ref()) {
                Some(name) => tree.root(name, stamp)?,
                None => root,
            };
            let parks = halves.parks(change);
            tree.change(change, root, old_root, stamp, parks)
        }
        Body::Config(config) => {
            let root = tree.declare_root(&config.root, stamp)?;
            tree.parts().0.configure(root, config);
            Ok(None)
        }
        Body::Enrolled(act) => {
            let root = match act.path.is_root() {
                true => tree.declare_root(&act.root, stamp)?,
                false => tree.root(&act.root, stamp)?,
            };
            tree.enrolled(act, root, stamp)
        }
        Body::Settled(settled) => {
            let root = tree.root(&settled.root, stamp)?;
            tree.settled(settled, root, stamp)
        }
        body => {
            if let Some(name) = audit::named_root(body) {
                tree.root(name, stamp)?;
            }
            Ok(match body {
                Body::Copied(copied) => Some(FileId(copied.file)),
                _ => None,
            })
        }
    }
}

/// Where records can be cut in two, not between the two halves of an exchange of names; `None`: nowhere.
fn half(records: &[Record]) -> Option<usize> {
    let exchanges = |place: usize| matches!(&records[place].body, Body::Change(change) if change.exchange);
    let may_cut = |cut: &usize| !(exchanges(cut - 1) && exchanges(*cut));
    let middle = records.len() / 2;
    (middle.max(1)..records.len()).find(may_cut).or_else(|| (1..middle).rev().find(may_cut))
}

/// A record as the journal has it.
fn line(record: &Record) -> String {
    let mut text = Vec::new();
    record.render(&mut text);
    String::from_utf8_lossy(&text).replace('\0', "\u{fffd}")
}
