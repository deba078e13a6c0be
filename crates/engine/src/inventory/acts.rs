//! What acts change besides the history: roots, gaps.

use rusqlite::{Connection, params};

use super::row::signed;
use crate::apply::Stamp;
pub(super) use crate::apply::acts::{body, columns, extra_of, extra_text, reason, seq};
use crate::model::{Config, Gap, GapClosed};

/// A root is watched, at this place; or no longer. Its files stay: leaving the configuration deletes nothing.
pub(super) fn configure(db: &Connection, root: i64, config: &Config) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE roots SET watched=?2, dir=coalesce(?3, dir), identity=coalesce(?4, identity) WHERE root_id=?1",
    )?;
    update.execute(params![root, config.dir.is_some(), config.dir.as_deref(), config.identity])?;
    Ok(())
}

/// A root of another host begins, of which a backup tells.
pub(super) fn enrol(db: &Connection, root: i64, (host, dir): &(String, Box<[u8]>)) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached("UPDATE roots SET host=?2, dir=?3 WHERE root_id=?1")?;
    update.execute(params![root, host, &**dir])?;
    Ok(())
}

/// Opens a gap in its root, or in each root that is watched.
pub(super) fn open_gap(db: &Connection, gap: &Gap, root: Option<i64>, stamp: Stamp) -> rusqlite::Result<()> {
    let mut watched = db.prepare_cached("SELECT root_id FROM roots WHERE watched ORDER BY root_id")?;
    let mut roots: Vec<i64> = match root {
        Some(root) => vec![root],
        None => watched.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?,
    };
    if roots.is_empty() {
        roots.push(0);
    }
    let since = gap.since.map_or(stamp.at, |since| since.min(stamp.at)).0;
    let mut insert = db.prepare_cached(
        "INSERT INTO gaps (seq, root_id, path, reason, since_ns, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for root in roots {
        let path = gap.path.as_bytes();
        insert.execute(params![signed(stamp.seq.0), root, path, gap.reason.as_str(), since, gap.note])?;
    }
    Ok(())
}

/// Closes a gap in one root, or wherever it is open.
pub(super) fn close_gap(db: &Connection, closed: &GapClosed, root: Option<i64>, stamp: Stamp) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE gaps SET closed_seq=?3 WHERE seq=?1 AND closed_seq IS NULL AND (?2 IS NULL OR root_id IN (?2, 0))",
    )?;
    update.execute(params![signed(closed.gap.0), root, signed(stamp.seq.0)])?;
    Ok(())
}
