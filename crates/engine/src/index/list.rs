//! `ls`: what stands on a host, or stood there at a moment, directory by directory.
//!
//! The past is found downwards, as on the host itself: from a directory to the names that it had at a record, live ones
//! that are old enough and those that ended later.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::Row;

use super::error::Result;
use super::row::{fact_columns, get, read_facts};
use super::view::{IndexHost, IndexRoot, IndexView};
use crate::apply::codes::Code as _;
use crate::apply::{below, signed, unsigned};
use crate::model::{Facts, FileType, RelPath, Seq, Timestamp};

/// One name.
#[derive(Clone, Debug)]
pub struct IndexName {
    /// Its path in the root.
    pub path: RelPath,
    /// What was last found by then.
    pub facts: Option<Facts>,
    /// The digest of its content, where it is known that it was this content by then.
    pub sha256: Option<[u8; 32]>,
}

/// A moment in a host's history.
#[derive(Clone, Copy, Debug)]
pub struct IndexMoment {
    /// What was asked for; `None`: now.
    pub(super) at: Option<Timestamp>,
    /// The last record that counts.
    pub(super) seq: Seq,
}

/// Names now, below a directory and the one at its own path.
const NOW: &str = concat!(
    "SELECT d.path, f.name, f.sha256, ",
    fact_columns!("f"),
    " FROM dirs d JOIN files f ON f.host_id=d.host_id AND f.dir_id=d.dir_id WHERE d.host_id=$1 AND d.root_id=$2 \
     AND ((substr(d.path,1,512)>=substr($3::bytea,1,512) AND substr(d.path,1,512)<=substr($4::bytea,1,512) \
     AND d.path>=$3 AND d.path<$4) OR (sha256(d.path)=sha256($5::bytea) AND d.path=$5) \
     OR (sha256(d.path)=sha256($6::bytea) AND d.path=$6 AND f.name=$7)) ORDER BY d.path, f.name"
);

/// The names of `dir` after record $2, without those that an exchange sets aside between its halves (a zero first), that meet a condition, which the live ones and those that ended later each have.
macro_rules! names_then {
    ($live:literal, $past:literal, $condition:literal) => {
        concat!(
            "(SELECT ",
            $live,
            " FROM files f WHERE f.host_id=$1 AND f.dir_id=dir.dir_id AND f.name>='\\x01'::bytea AND f.from_seq<=$2",
            $condition,
            " UNION ALL SELECT ",
            $past,
            " FROM past_names f WHERE f.host_id=$1 AND f.dir_id=dir.dir_id AND f.name>='\\x01'::bytea \
             AND f.from_seq<=$2 AND f.to_seq>$2",
            $condition,
            ")"
        )
    };
}
/// The names in the directories `dir`, with what was known of their objects after record $2, which came at $3: of those
/// that no later record tells of it stands with the name, else in the last record by then that tells of it. The record
/// that first told of an object has its id as seq, and the index of later ones leaves it out.
macro_rules! listed_then {
    ($condition:literal) => {
        concat!(
            "SELECT dir.path, n.name, n.sha256, n.is_now, n.kind, n.size, n.mtime_ns, n.ctime_ns, n.dev, n.inode, n.mode, \
             n.uid, n.gid, n.nlink, n.target, ",
            fact_columns!("t"),
            " FROM dir CROSS JOIN LATERAL ",
            names_then!(
                "f.name, f.file_id, f.last_seq<=$2 AS is_now, f.kind, f.size, f.mtime_ns, f.ctime_ns, f.dev, f.inode, f.mode, \
                 f.uid, f.gid, f.nlink, f.target, CASE WHEN f.version_seq<=$2 THEN f.sha256 END AS sha256",
                "f.name, f.file_id, false, f.kind, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
                $condition
            ),
            " AS n LEFT JOIN LATERAL (\
             (SELECT * FROM changes c WHERE NOT n.is_now AND c.host_id=$1 AND c.file_id=n.file_id AND c.file_id<>c.seq \
             AND c.seq<=$2 AND c.at<=$3 AND c.kind IS NOT NULL AND c.inode IS NOT NULL ORDER BY c.seq DESC LIMIT 1) \
             UNION ALL (SELECT * FROM changes c WHERE NOT n.is_now AND c.host_id=$1 AND c.seq=n.file_id AND c.file_id=c.seq \
             AND c.at<=$3 AND c.kind IS NOT NULL AND c.inode IS NOT NULL) ORDER BY seq DESC LIMIT 1) AS t ON true"
        )
    };
}
const BELOW_THEN: &str = concat!(
    "WITH RECURSIVE dir (dir_id, path) AS (SELECT $4::bigint, $5::bytea UNION ALL \
     SELECT n.file_id, CASE WHEN dir.path='' THEN n.name ELSE dir.path || '\\x2f'::bytea || n.name END \
     FROM dir CROSS JOIN LATERAL ",
    names_then!("f.file_id, f.name", "f.file_id, f.name", " AND f.kind=2"),
    " AS n) ",
    listed_then!(""),
    " ORDER BY 1, 2"
);
const NAME_THEN: &str =
    concat!("WITH dir (dir_id, path) AS (SELECT $4::bigint, $5::bytea) ", listed_then!(" AND f.name=$6"));
/// What stood under a name, and of what kind.
const FIND_THEN: &str = concat!(
    "WITH dir (dir_id) AS (SELECT $3::bigint) SELECT n.file_id, n.kind FROM dir CROSS JOIN LATERAL ",
    names_then!("f.file_id, f.kind", "f.file_id, f.kind", " AND f.name=$4"),
    " AS n"
);
/// The first record behind a moment, and the first of all that are here.
const FIRST_AFTER: &str = "SELECT (SELECT min(seq) FROM (\
     (SELECT seq FROM changes WHERE host_id=$1 AND at>=$2 AND (at>$2 OR at_ns>$3) ORDER BY seq LIMIT 1) UNION ALL \
     (SELECT seq FROM acts WHERE host_id=$1 AND at>=$2 AND (at>$2 OR at_ns>$3) ORDER BY seq LIMIT 1)) AS after), \
     (SELECT min(seq) FROM ((SELECT seq FROM changes WHERE host_id=$1 ORDER BY seq LIMIT 1) UNION ALL \
     (SELECT seq FROM acts WHERE host_id=$1 ORDER BY seq LIMIT 1)) AS kept)";

impl IndexView {
    /// Where a moment is in a host's history: behind the last record whose running maximum of `at` is not after it.
    /// `None` if the history that is kept here begins later.
    ///
    /// # Errors
    /// The server's.
    pub fn moment(&self, host: &IndexHost, at: Option<Timestamp>) -> Result<Option<IndexMoment>> {
        let Some(asked) = at else { return Ok(Some(IndexMoment { at, seq: host.seq })) };
        let (micros, rest) = server_time(asked);
        let rows = self.session.query(FIRST_AFTER, &[&host.id, &micros, &rest])?;
        let found = |column| rows.first().and_then(|row| get::<i64>(row, column)).map(|seq| Seq(unsigned(seq)));
        let seq = match found(0) {
            // The maximum passes the moment where the first record behind it does.
            Some(after) => Seq(after.0.saturating_sub(1)),
            None => host.seq,
        };
        let is_kept = seq == Seq::ZERO || found(1).is_some_and(|first| first <= seq);
        Ok(is_kept.then_some(IndexMoment { at, seq }))
    }

    /// Tells the names at and below a path of a root, directory by directory. Holds one at a time.
    ///
    /// # Errors
    /// The server's.
    pub fn list(
        &self,
        host: &IndexHost,
        root: &IndexRoot,
        path: &RelPath,
        moment: IndexMoment,
        mut each: impl FnMut(IndexName) -> ControlFlow<()>,
    ) -> Result<()> {
        if moment.at.is_some() {
            return self.list_then(host, root, path, moment, &mut each);
        }
        let (low, high) = below(path.as_bytes());
        let (parent, name) = path.split().unwrap_or((&[], &[]));
        let own = path.as_bytes();
        self.stream(NOW, &[&host.id, &root.id, &low, &high, &own, &parent, &name], |row| {
            tell(row, read_facts(row, 3).1, &mut each)
        })
    }

    fn list_then(
        &self,
        host: &IndexHost,
        root: &IndexRoot,
        path: &RelPath,
        moment: IndexMoment,
        each: &mut impl FnMut(IndexName) -> ControlFlow<()>,
    ) -> Result<()> {
        let seq = signed(moment.seq.0);
        let (at, _) = server_time(moment.at.unwrap_or(Timestamp(i64::MAX)));
        let mut dir = root.id;
        let mut parent = RelPath::ROOT;
        let mut is_ended = false;
        let mut components = path.components().peekable();
        while let Some(name) = components.next() {
            let found = self.session.query(FIND_THEN, &[&host.id, &seq, &dir, &name])?;
            let Some(found) = found.first() else { return Ok(()) };
            if components.peek().is_none() {
                self.stream(NAME_THEN, &[&host.id, &seq, &at, &dir, &parent.as_bytes(), &name], |row| {
                    let flow = tell(row, facts_then(row), each);
                    is_ended = flow.is_break();
                    flow
                })?;
            }
            let kind = get::<i16>(found, 1).and_then(|kind| FileType::decode(i64::from(kind)));
            let (true, Some(id)) = (kind == Some(FileType::Dir), get(found, 0)) else { return Ok(()) };
            dir = id;
            parent = parent.join(name);
        }
        if is_ended {
            return Ok(());
        }
        self.stream(BELOW_THEN, &[&host.id, &seq, &at, &dir, &path.as_bytes()], |row| tell(row, facts_then(row), each))
    }
}

fn facts_then(row: &Row) -> Option<Facts> {
    let is_now = get(row, 3).unwrap_or(false);
    read_facts(row, if is_now { 4 } else { 15 }).1
}

fn tell(row: &Row, facts: Option<Facts>, each: &mut impl FnMut(IndexName) -> ControlFlow<()>) -> ControlFlow<()> {
    let dir = RelPath::new(get::<Vec<u8>>(row, 0).unwrap_or_default()).unwrap_or(RelPath::ROOT);
    let name: &[u8] = get(row, 1).unwrap_or_default();
    // The first half of an exchange sets a name aside that no file has.
    if name.first() == Some(&0) {
        return ControlFlow::Continue(());
    }
    let sha256 = get::<&[u8]>(row, 2).and_then(|digest| digest.try_into().ok());
    each(IndexName { path: dir.join(name), facts, sha256 })
}

/// A moment as the server's column takes it, and the nanoseconds that this leaves out.
fn server_time(at: Timestamp) -> (SystemTime, i16) {
    let rest = at.0.rem_euclid(1000);
    let micros = (at.0 - rest) / 1000;
    let span = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span };
    // Below 1000.
    (time, i16::try_from(rest).unwrap_or(0))
}
