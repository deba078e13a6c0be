//! How acts lie in the table `acts`, and what they change besides: roots, gaps.

use keepwatch_journal::Extra;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::row::{signed, unsigned};
use super::tree::Stamp;
use crate::model::{Body, Config, Evidence, Gap, GapClosed, GapReason, RelPath, RootName, Seq, Settled, Timestamp};

/// The fields of an act that are neither root nor path. Which of them are there depends on the act.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    accepted: bool,
}

/// An act as columns.
pub(super) struct Columns<'r> {
    pub(super) name: &'r str,
    pub(super) path: Option<&'r [u8]>,
    pub(super) detail: String,
}

/// The word of an act. A change is not an act.
pub(super) fn name(body: &Body) -> &str {
    match body {
        Body::Settled(_) => "settled",
        Body::Gap(_) => "gap",
        Body::GapClosed(_) => "gap_closed",
        Body::Config(_) => "config",
        Body::Other(name) => name,
        Body::Change(_) => "change",
    }
}

/// An act's columns. A change has none; it is not an act.
pub(super) fn columns(body: &Body) -> Columns<'_> {
    let (path, detail) = match body {
        Body::Settled(settled) => {
            let detail = Detail {
                evidence: Some(settled.evidence.as_str().to_owned()),
                size: Some(settled.size),
                mtime_ns: Some(settled.mtime_ns),
                inode: Some(settled.inode),
                ..Detail::default()
            };
            (Some(settled.path.as_bytes()), detail)
        }
        Body::Gap(gap) => {
            let detail = Detail {
                reason: Some(gap.reason.as_str().to_owned()),
                since_ns: gap.since.map(|since| since.0),
                note: gap.note.clone(),
                ..Detail::default()
            };
            (Some(gap.path.as_bytes()), detail)
        }
        Body::GapClosed(closed) => {
            let detail = Detail {
                gap: Some(closed.gap.0),
                scanned: Some(closed.scanned),
                found: Some(closed.found),
                ..Detail::default()
            };
            (None, detail)
        }
        Body::Config(config) => {
            let detail = Detail { identity: config.identity.clone(), accepted: config.accepted, ..Detail::default() };
            (config.dir.as_deref(), detail)
        }
        Body::Other(_) | Body::Change(_) => (None, Detail::default()),
    };
    // A struct of numbers and strings always serialises; an empty object would only lose the detail.
    let detail = serde_json::to_string(&detail).unwrap_or_else(|_| "{}".to_owned());
    Columns { name: name(body), path, detail }
}

/// The act that was written as these columns; `None` if they are not what this program writes.
pub(super) fn body(name: String, root: Option<RootName>, path: Option<Vec<u8>>, detail: &str) -> Option<Body> {
    let detail: Detail = serde_json::from_str(detail).ok()?;
    let rel_path = |path: Option<Vec<u8>>| RelPath::new(path?).ok();
    Some(match name.as_str() {
        "settled" => Body::Settled(Settled {
            root: root?,
            path: rel_path(path)?,
            evidence: Evidence::from_word(&detail.evidence?)?,
            size: detail.size?,
            mtime_ns: detail.mtime_ns?,
            inode: detail.inode?,
        }),
        "gap" => Body::Gap(Gap {
            root,
            path: rel_path(path)?,
            reason: GapReason::from_word(&detail.reason?)?,
            since: detail.since_ns.map(Timestamp),
            note: detail.note,
        }),
        "gap_closed" => {
            Body::GapClosed(GapClosed { gap: Seq(detail.gap?), root, scanned: detail.scanned?, found: detail.found? })
        }
        "config" => Body::Config(Config {
            root: root?,
            dir: path.map(Into::into),
            identity: detail.identity,
            accepted: detail.accepted,
        }),
        _ => Body::Other(name),
    })
}

/// Fields that this version does not know, as the tables hold them.
pub(super) fn extra_text(extra: &Extra) -> Option<String> {
    extra.as_ref().and_then(|fields| serde_json::to_string(fields).ok())
}

/// Undoes [`extra_text`].
pub(super) fn extra_of(text: Option<String>) -> Extra {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

/// A root is watched, at this place; or no longer. Its files stay: leaving the configuration deletes nothing.
pub(super) fn configure(db: &Connection, root: i64, config: &Config) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE roots SET watched=?2, dir=coalesce(?3, dir), identity=coalesce(?4, identity) WHERE root_id=?1",
    )?;
    update.execute(params![root, config.dir.is_some(), config.dir.as_deref(), config.identity])?;
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

/// A gap's reason as it was written; one that a later version named reads as asked for.
pub(super) fn reason(word: &str) -> GapReason {
    GapReason::from_word(word).unwrap_or(GapReason::Asked)
}

/// A seq column.
pub(super) fn seq(number: i64) -> Seq {
    Seq(unsigned(number))
}
