//! A host's rows made anew from the journal: beside the old ones, which are there until the new ones are complete.

use super::error::Result;
use super::host::{self, Writer};
use super::row::get;
use super::schema;
use super::session::{Access, Session, Stop};
use super::settings::IndexSettings;
use super::writer::Index;
use crate::model::{Cursor, Record, Seq};

/// The tables that hold rows of hosts, but for `hosts` itself.
const TABLES: [&str; 12] = [
    "cursors",
    "problems",
    "roots",
    "dirs",
    "dir_names",
    "files",
    "past_names",
    "failures",
    "copies",
    "replicas",
    "acts",
    "changes",
];
/// Rows of a host that are taken away in one transaction.
const FORGET_AT_ONCE: i64 = 50_000;

/// A replay that is under way.
pub struct Replay {
    index: Index,
    writer: Writer,
}

impl Replay {
    /// Begins beside what is there. Of the history only what stands behind `from` is written; names are always replayed
    /// from the beginning.
    ///
    /// # Errors
    /// [`super::IndexError`], by what can be done about it.
    pub fn begin(settings: &IndexSettings, writer: &Writer, from: Seq, stop: Stop) -> Result<Replay> {
        let session = Session::open(settings, Access::Write, stop)?;
        schema::prepare(&session)?;
        // What a replay left that did not come to its end.
        for host in
            hosts(&session, "SELECT host_id FROM hosts WHERE name=$1 AND NOT is_current AND is_loading", &writer.name)?
        {
            forget(&session, host)?;
        }
        session.run("BEGIN")?;
        let host = host::add(&session, writer, false, from)?;
        session.execute("UPDATE hosts SET is_loading=true WHERE host_id=$1", &[&host])?;
        session.run("COMMIT")?;
        let cursor = host::cursor(&session, host)?;
        Ok(Replay { index: Index::at(session, host, cursor, from), writer: writer.clone() })
    }

    /// Applies the next records.
    ///
    /// # Errors
    /// As [`Index::apply`].
    pub fn apply(&mut self, records: &[Record], to: Cursor, head: Seq) -> Result<u64> {
        self.index.apply(records, to, head)
    }

    /// Puts the new rows in the place of the old ones of the same journal, which then go. Where another state directory or
    /// another journal had the name until now, its history stays. Returns how many records have a part that was set aside.
    ///
    /// # Errors
    /// The server's.
    pub fn finish(self) -> Result<u64> {
        let problems = self.index.problems()?;
        let (session, host) = (self.index.session(), self.index.host());
        session.run("BEGIN")?;
        let Writer { name, identity, journal } = &self.writer;
        let rows = session.query(
            "SELECT host_id, identity=$2 AND journal=$3::text::uuid FROM hosts WHERE name=$1 AND is_current FOR UPDATE",
            &[name, identity, &journal.to_string()],
        )?;
        let mut old = Vec::new();
        for row in &rows {
            let (host, is_same): (i32, bool) = (get(row, 0).unwrap_or(0), get(row, 1).unwrap_or(false));
            // The cursor's row goes first: whoever follows into the old rows finds none, and looks again.
            session.execute("DELETE FROM cursors WHERE host_id=$1", &[&host])?;
            session.execute("UPDATE hosts SET is_current=false, is_loading=$2 WHERE host_id=$1", &[&host, &is_same])?;
            old.extend(is_same.then_some(host));
        }
        session.execute("UPDATE hosts SET is_current=true, is_loading=false WHERE host_id=$1", &[&host])?;
        session.run("COMMIT")?;
        for old in old {
            forget(session, old)?;
        }
        Ok(problems)
    }
}

fn hosts(session: &Session, sql: &'static str, name: &str) -> Result<Vec<i32>> {
    Ok(session.query(sql, &[&name])?.iter().filter_map(|row| get(row, 0)).collect())
}

/// Takes a host's rows away, a part at a time, its row in `hosts` last.
fn forget(session: &Session, host: i32) -> Result<()> {
    for table in TABLES {
        // A row is named by its partition and its place in it.
        let delete = format!(
            "WITH some_rows AS (SELECT tableoid, ctid FROM {table} WHERE host_id=$1 LIMIT {FORGET_AT_ONCE}), \
             gone AS (DELETE FROM {table} t USING some_rows s WHERE t.host_id=$1 AND t.tableoid=s.tableoid AND t.ctid=s.ctid \
             RETURNING 1) SELECT count(*) FROM gone"
        );
        loop {
            let gone = session.query_once(&delete, &[&host])?;
            if gone.first().and_then(|row| get::<i64>(row, 0)).unwrap_or(0) < FORGET_AT_ONCE {
                break;
            }
        }
    }
    session.execute("DELETE FROM hosts WHERE host_id=$1", &[&host])?;
    Ok(())
}
