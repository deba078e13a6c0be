//! Whose rows are written: a host's row in `hosts`, and its cursor.

use keepwatch_journal::ChainHash;
use uuid::Uuid;

use super::error::{IndexError, Result};
use super::row::get;
use super::session::Session;
use crate::apply::{signed, unsigned};
use crate::model::{Cursor, JournalId, Seq};

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The host's name, unique in the index.
    pub name: String,
    /// The identity of its state directory.
    pub identity: String,
    /// The journal that it writes now.
    pub journal: JournalId,
}

/// Finds or makes the host's row; its number and its cursor.
pub(super) fn register(
    session: &Session,
    writer: &Writer,
    is_set_aside: impl Fn(JournalId) -> bool,
) -> Result<(i32, Cursor)> {
    let rows = session
        .query("SELECT host_id, identity, journal::text FROM hosts WHERE name=$1 AND is_current", &[&writer.name])?;
    let Some(row) = rows.first() else { return begin(session, writer, None) };
    let host: i32 = get(row, 0).unwrap_or(0);
    if get::<&str>(row, 1) != Some(&writer.identity) {
        return Err(IndexError::NameTaken { name: writer.name.clone() });
    }
    let journal = get::<&str>(row, 2).and_then(|id| id.parse().ok()).map(JournalId);
    match journal {
        Some(journal) if journal == writer.journal => Ok((host, cursor(session, host)?)),
        Some(journal) if is_set_aside(journal) => begin(session, writer, Some(host)),
        _ => Err(IndexError::Forked { cursor: Box::new(cursor(session, host)?) }),
    }
}

/// Begins a journal at its beginning; the one before it, of the same host, keeps its history.
fn begin(session: &Session, writer: &Writer, before: Option<i32>) -> Result<(i32, Cursor)> {
    session.run("BEGIN")?;
    if let Some(before) = before {
        session.execute("UPDATE hosts SET is_current=false WHERE host_id=$1", &[&before])?;
    }
    let host = add(session, writer, true, Seq::ZERO)?;
    session.run("COMMIT")?;
    Ok((host, cursor(session, host)?))
}

/// Adds a host's row, and a cursor at the journal's beginning.
pub(super) fn add(session: &Session, writer: &Writer, is_current: bool, history_from: Seq) -> Result<i32> {
    let journal = writer.journal.to_string();
    let rows = session.query(
        "INSERT INTO hosts (host_id, name, identity, journal, is_current, history_from) \
         SELECT coalesce(max(host_id), 0) + 1, $1, $2, $3::text::uuid, $4, $5 FROM hosts RETURNING host_id",
        &[&writer.name, &writer.identity, &journal, &is_current, &signed(history_from.0)],
    )?;
    let host: i32 = rows.first().and_then(|row| get(row, 0)).unwrap_or(0);
    session.execute(
        "INSERT INTO cursors (host_id, journal, seq, hash, head_seq, moved_at) \
         VALUES ($1, $2::text::uuid, 0, $3, 0, now())",
        &[&host, &journal, &&ChainHash::ZERO.0[..]],
    )?;
    Ok(host)
}

/// How far a host is; seq 0 at the beginning.
pub(super) fn cursor(session: &Session, host: i32) -> Result<Cursor> {
    let rows = session.query("SELECT journal::text, seq, hash FROM cursors WHERE host_id=$1", &[&host])?;
    rows.first()
        .and_then(|row| {
            let journal: Uuid = get::<&str>(row, 0)?.parse().ok()?;
            let hash: [u8; 32] = get::<&[u8]>(row, 2)?.try_into().ok()?;
            Some(Cursor { journal: JournalId(journal), seq: Seq(unsigned(get(row, 1)?)), hash: ChainHash(hash) })
        })
        .ok_or_else(|| IndexError::Unfit(format!("host {host} has no cursor there")))
}

/// Moves a host's cursor from exactly where it was to where it shall be, or not at all: then another transaction came
/// first, one that had hung perhaps, and what is there has to be read again.
pub(super) fn move_cursor(session: &Session, host: i32, from: Cursor, to: Cursor, head: Seq) -> Result<()> {
    let moved = session.execute(
        "UPDATE cursors SET journal=$2::text::uuid, seq=$3, hash=$4, head_seq=$5, moved_at=now() \
         WHERE host_id=$1 AND journal=$6::text::uuid AND seq=$7 AND hash=$8",
        &[
            &host,
            &to.journal.to_string(),
            &signed(to.seq.0),
            &&to.hash.0[..],
            &signed(head.0.max(to.seq.0)),
            &from.journal.to_string(),
            &signed(from.seq.0),
            &&from.hash.0[..],
        ],
    )?;
    if moved == 1 { Ok(()) } else { Err(IndexError::Moved { from: from.seq }) }
}
