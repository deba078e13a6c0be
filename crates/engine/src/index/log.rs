//! `log`: what happened on a host, record by record, as it stands in its journal.

use std::ops::ControlFlow;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::copy::{moment, moment_ns};
use super::error::Result;
use super::row::{get, read_facts};
use super::text::readable;
use super::view::{IndexHost, IndexView};
use crate::apply::codes::Code as _;
use crate::apply::told::{places, word};
use crate::apply::{acts, signed, unsigned};
use crate::model::{Body, By, Change, OldPlace, Op, Record, RelPath, RootName, Seq, Timestamp, Via};

/// Which records to tell of a host.
#[derive(Clone, Debug, Default)]
pub struct IndexLog {
    /// In which root; `None`: in all.
    pub root: Option<RootName>,
    /// Of what stands or stood at this path of the root; of a directory, with all below it.
    pub path: Option<RelPath>,
    /// Follow what is or was at `path` to the names it had before and after, those of directories above it among them, and what
    /// happened in it there.
    pub follow: bool,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Not after this moment.
    pub until: Option<Timestamp>,
    /// Only these words in `do`; none: all.
    pub words: Vec<String>,
}

/// What stands or ever stood at a path.
#[derive(Default)]
struct FoundAt {
    objects: Vec<i64>,
    /// The records that ended names there; the end of a directory tells of no name below it.
    ends: Vec<i64>,
    has_dir: bool,
    /// Where its directories stood besides.
    spans: Vec<Span>,
}

/// Columns of a change, then those of an act; [`record`] reads both.
const CHANGE: &str = "SELECT c.seq, c.at, c.at_ns, c.root, c.path, c.path_raw, c.file_id, c.op, c.via, c.old_root, c.old_path, \
     c.old_path_raw, c.kind, c.size, c.mtime_ns, c.ctime_ns, c.dev, c.inode, c.mode, c.uid, c.gid, c.nlink, c.target, c.by_pid, \
     c.by_uid, c.by_exe, c.merged, c.subtree, c.exchange, NULL::text AS act, NULL::text AS detail, c.extra";
pub(super) const ACT: &str = "SELECT a.seq, a.at, a.at_ns, a.root, a.path, a.path_raw, a.file_id, NULL::smallint, NULL::smallint, \
     NULL::text, NULL::text, NULL::bytea, NULL::smallint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, \
     NULL::integer, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bytea, NULL::bigint, NULL::bigint, NULL::bytea, false, false, \
     false, a.act, a.detail, a.extra";
const ACT_COLUMN: usize = 29;

/// Where a directory stood, elsewhere than where it was asked for, from a record until before another.
struct Span {
    root: RootName,
    path: RelPath,
    from: i64,
    to: i64,
}

impl Span {
    fn holds(&self, root: &RootName, path: &RelPath, seq: i64) -> bool {
        (self.from..self.to).contains(&seq) && self.root == *root && path.is_within(&self.path) && *path != self.path
    }
}

/// Where directories stood: their names from each up to its root, with the records between which all of them held.
const SPANS: &str = "WITH RECURSIVE up AS (\
     SELECT from_seq, coalesce(to_seq, 9223372036854775807) AS to_seq, parent, name AS path FROM dir_names \
     WHERE host_id=$1 AND dir_id=ANY($2) UNION ALL \
     SELECT greatest(up.from_seq, n.from_seq), least(up.to_seq, n.to_seq), n.parent, n.name || '\\x2f'::bytea || up.path \
     FROM up CROSS JOIN LATERAL (SELECT from_seq, coalesce(to_seq, 9223372036854775807) AS to_seq, parent, name FROM dir_names \
     WHERE host_id=$1 AND dir_id=up.parent AND from_seq<up.to_seq AND coalesce(to_seq, 9223372036854775807)>up.from_seq \
     OFFSET 0) AS n) \
     SELECT r.name, up.path, up.from_seq, up.to_seq FROM up JOIN roots r ON r.host_id=$1 AND r.root_id=up.parent";
/// All that ever was in directories, at whatever depth.
const EVER_IN: &str = "WITH RECURSIVE held (file_id, kind) AS (SELECT unnest($6::bigint[]), 2::smallint UNION \
     SELECT n.file_id, n.kind FROM held CROSS JOIN LATERAL (\
     SELECT file_id, kind FROM files WHERE host_id=$1 AND dir_id=held.file_id UNION ALL \
     SELECT file_id, kind FROM past_names WHERE host_id=$1 AND dir_id=held.file_id) AS n WHERE held.kind=2) \
     SELECT DISTINCT file_id FROM held";

impl IndexView {
    /// Tells a host's records in the order of their seq, as they stand in its journal.
    ///
    /// # Errors
    /// The server's.
    pub fn log(
        &self,
        host: &IndexHost,
        query: &IndexLog,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<()> {
        let first = moment(query.since.map_or(0, |since| since.0)).0;
        let last = moment(query.until.map_or(i64::MAX, |until| until.0)).0;
        let root = query.root.as_ref().map(RootName::as_str);
        let found = match (&query.path, root) {
            (Some(path), Some(root)) => self.found_at(host, root, path)?,
            _ => FoundAt::default(),
        };
        let by_object = query.path.is_some() && query.follow && !found.has_dir;
        let mut before = Seq::ZERO;
        let mut tell = |record: Record, file: Option<i64>| {
            // Of a change that is found in several ways there is one row for each.
            let is_new = std::mem::replace(&mut before, record.seq) != record.seq;
            if is_new && found.is_asked_for(query, by_object, &record, file) {
                each(record)
            } else {
                ControlFlow::Continue(())
            }
        };
        match (&query.path, root) {
            (Some(_), Some(_)) if by_object => {
                // The record that first told of an object has its id as seq.
                let seqs = [&found.objects[..], &found.ends[..]].concat();
                let sql = format!(
                    "{CHANGE} FROM changes c WHERE c.host_id=$1 AND c.{TIME} \
                     AND (c.file_id <> c.seq AND c.file_id = ANY($4) OR c.seq = ANY($5)) \
                     UNION ALL {ACT} FROM acts a WHERE a.host_id=$1 AND a.{TIME} AND (a.file_id = ANY($4) OR a.seq = ANY($5)) ORDER BY 1"
                );
                self.stream(&sql, &[&host.id, &first, &last, &found.objects, &seqs], |row| told(row, &mut tell))
            }
            (Some(path), Some(root)) if !path.is_root() => {
                let text = readable(path.as_bytes()).0;
                let roots: Vec<&str> = found.spans.iter().map(|span| span.root.as_str()).collect();
                let paths: Vec<_> = found.spans.iter().map(|span| readable(span.path.as_bytes()).0).collect();
                let (from, to): (Vec<i64>, Vec<i64>) = found.spans.iter().map(|span| (span.from, span.to)).unzip();
                let spans: [&(dyn ToSql + Sync); 4] = [&roots, &paths, &from, &to];
                let head: [&(dyn ToSql + Sync); 6] = [&host.id, &first, &last, &root, &text, &found.objects];
                self.stream(&in_directory(), &[&head[..], &spans[..]].concat(), |row| told(row, &mut tell))
            }
            _ => {
                let sql = format!(
                    "{CHANGE} FROM changes c WHERE c.host_id=$1 AND c.{TIME} \
                     AND ($4::text IS NULL OR c.root=$4 OR c.old_root=$4) \
                     UNION ALL {ACT} FROM acts a WHERE a.host_id=$1 AND a.{TIME} AND ($4::text IS NULL OR a.root=$4) ORDER BY 1"
                );
                self.stream(&sql, &[&host.id, &first, &last, &root], |row| told(row, &mut tell))
            }
        }
    }

    /// What stands or ever stood at a path, whatever directories led there.
    fn found_at(&self, host: &IndexHost, root: &str, path: &RelPath) -> Result<FoundAt> {
        let roots = self.session.query("SELECT root_id FROM roots WHERE host_id=$1 AND name=$2", &[&host.id, &root])?;
        let mut found = FoundAt { objects: roots.iter().filter_map(|row| get(row, 0)).collect(), ..FoundAt::default() };
        for name in path.components() {
            let rows = self.session.query(
                "SELECT file_id, NULL::bigint FROM files WHERE host_id=$1 AND dir_id=ANY($2) AND name=$3 \
                 UNION ALL SELECT file_id, to_seq FROM past_names WHERE host_id=$1 AND dir_id=ANY($2) AND name=$3",
                &[&host.id, &found.objects, &name],
            )?;
            found.objects = rows.iter().filter_map(|row| get(row, 0)).collect();
            found.objects.sort_unstable();
            found.objects.dedup();
            found.ends = rows.iter().filter_map(|row| get(row, 1)).collect();
        }
        let rows = self.session.query(
            "SELECT EXISTS (SELECT 1 FROM roots WHERE host_id=$1 AND root_id=ANY($2)) \
             OR EXISTS (SELECT 1 FROM dir_names WHERE host_id=$1 AND dir_id=ANY($2))",
            &[&host.id, &found.objects],
        )?;
        found.has_dir = rows.first().and_then(|row| get(row, 0)).unwrap_or(false);
        if found.has_dir {
            let rows = self.session.query(SPANS, &[&host.id, &found.objects])?;
            let spans = rows.iter().filter_map(|row| {
                let (name, path) = (RootName::new(get::<&str>(row, 0)?), RelPath::new(get::<Vec<u8>>(row, 1)?).ok()?);
                Some(Span { root: name, path, from: get(row, 2)?, to: get(row, 3)? })
            });
            found.spans = spans.filter(|span| span.root.as_str() != root || span.path != *path).collect();
        }
        Ok(found)
    }
}

impl FoundAt {
    /// Whether a record that the server gave, which is not exact about text and moments, is to be told: as the inventory
    /// of the host would tell it.
    fn is_asked_for(&self, query: &IndexLog, by_object: bool, record: &Record, file: Option<i64>) -> bool {
        if query.since.is_some_and(|since| record.at < since) || query.until.is_some_and(|until| record.at > until) {
            return false;
        }
        if !query.words.is_empty() && !query.words.iter().any(|asked| asked == word(&record.body)) {
            return false;
        }
        let Some(path) = &query.path else { return true };
        let seq = signed(record.seq.0);
        let is_about = file.is_some_and(|file| self.objects.contains(&file));
        if by_object {
            return is_about || self.ends.contains(&seq);
        }
        let is_there = |(named, place): &(Option<&RootName>, Option<&RelPath>)| {
            query.root.as_ref().is_none_or(|root| *named == Some(root))
                && place.is_some_and(|place| place.is_within(path))
        };
        places(&record.body).iter().any(is_there) || query.follow && (is_about || self.held(&record.body, seq))
    }

    /// Whether a change was in one of the directories, wherever that was then: a new name after the record, an old one
    /// before it.
    fn held(&self, body: &Body, seq: i64) -> bool {
        let Body::Change(change) = body else { return false };
        self.spans.iter().any(|span| {
            span.holds(&change.root, &change.path, seq)
                || change.old.as_ref().is_some_and(|old| {
                    span.holds(old.root.as_ref().unwrap_or(&change.root), &old.path, seq.saturating_sub(1))
                })
        })
    }
}

/// A moment has microseconds there: what is found is looked at again.
const TIME: &str =
    "at >= to_timestamp($2::bigint / 1000000.0 + 946684799) AND at <= to_timestamp($3::bigint / 1000000.0 + 946684801)";

/// What happened at path $5 of root $4 or below it, to the objects $6, and below where they stood: roots $7, paths $8, from
/// records $9 until $10.
fn in_directory() -> String {
    let (new, old) = (("c.root", "c.path"), ("coalesce(c.old_root, c.root)", "c.old_path"));
    let there = |(root, path): (&str, &str)| {
        let below = below(path, "$5");
        format!("({path} IS NOT NULL AND {root}=$4 AND (left({path}, 200)=left($5, 200) AND {path}=$5 OR {below}))")
    };
    let elsewhere = |(root, path): (&str, &str), seqs: &str| {
        let below = below(path, "s.path");
        format!(
            "{CHANGE} FROM unnest($7::text[], $8::text[], $9::bigint[], $10::bigint[]) AS s(root, path, from_seq, to_seq) \
             CROSS JOIN LATERAL (SELECT * FROM changes c WHERE c.host_id=$1 AND c.{TIME} AND {path} IS NOT NULL \
             AND {root}=s.root AND {below} AND {seqs} OFFSET 0) AS c"
        )
    };
    // Settled files have no index by path; whatever settled there was there once.
    format!(
        "{CHANGE} FROM changes c WHERE c.host_id=$1 AND c.{TIME} AND ({} OR {} OR (c.file_id <> c.seq AND c.file_id = ANY($6)) \
         OR c.seq = ANY($6)) UNION ALL {} UNION ALL {} \
         UNION ALL {ACT} FROM acts a WHERE a.host_id=$1 AND a.{TIME} AND a.act <> 'settled' AND (a.file_id = ANY($6) OR {}) \
         UNION ALL {ACT} FROM ({EVER_IN}) AS held CROSS JOIN LATERAL (SELECT * FROM acts WHERE host_id=$1 AND {TIME} \
         AND file_id=held.file_id AND act='settled' OFFSET 0) AS a ORDER BY 1",
        there(new),
        there(old),
        elsewhere(new, "c.seq>=s.from_seq AND c.seq<s.to_seq"),
        elsewhere(old, "c.seq>s.from_seq AND c.seq<=s.to_seq"),
        there(("a.root", "a.path")),
    )
}

/// Below a path: by the beginning, which the index has, then by all of it.
fn below(path: &str, top: &str) -> String {
    format!(
        "(left({path}, 200)>=left({top} || '/', 200) AND left({path}, 200)<=left({top} || '0', 200) \
         AND starts_with({path}, {top} || '/'))"
    )
}

fn told(row: &Row, tell: &mut impl FnMut(Record, Option<i64>) -> ControlFlow<()>) -> ControlFlow<()> {
    match record(row) {
        Some(record) => tell(record, get(row, 6)),
        // What none of our versions wrote is no record of ours.
        None => ControlFlow::Continue(()),
    }
}

/// A record as [`CHANGE`] or [`ACT`] give it; `None` if none of our versions wrote it.
pub(super) fn record(row: &Row) -> Option<Record> {
    let seq = Seq(unsigned(get(row, 0)?));
    let at: std::time::SystemTime = get(row, 1)?;
    let micros = match at.duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).ok()?,
        Err(before) => -i64::try_from(before.duration().as_micros()).ok()?,
    };
    let at = Timestamp(moment_ns(micros - moment_ns(0, 0) / 1000, get(row, 2)?));
    let root = get::<&str>(row, 3).map(RootName::new);
    let bytes =
        |raw: usize, text: usize| get::<Vec<u8>>(row, raw).or_else(|| Some(get::<String>(row, text)?.into_bytes()));
    let extra = acts::extra_of(get(row, 31));
    let body = match get::<String>(row, ACT_COLUMN) {
        Some(act) => acts::body(act, root, bytes(5, 4), &get::<String>(row, 30)?)?,
        None => {
            let small = |column: usize| get::<i16>(row, column).map(i64::from);
            let old = match bytes(11, 10) {
                Some(path) => {
                    Some(OldPlace { root: get::<&str>(row, 9).map(RootName::new), path: RelPath::new(path).ok()? })
                }
                None => None,
            };
            let narrow = |column: usize| get::<i64>(row, column).and_then(|number| u32::try_from(number).ok());
            let by = narrow(23).map(|pid| {
                std::sync::Arc::new(By { pid, uid: narrow(24), exe: get::<Vec<u8>>(row, 25).map(Into::into) })
            });
            Body::Change(Change {
                op: Op::decode(small(7)?)?,
                root: root?,
                path: RelPath::new(bytes(5, 4)?).ok()?,
                old,
                facts: read_facts(row, 12).1,
                via: Via::decode(small(8)?)?,
                by,
                merged: get(row, 26)?,
                subtree: get(row, 27)?,
                exchange: get(row, 28)?,
            })
        }
    };
    Some(Record { seq, at, body, extra })
}

#[cfg(test)]
mod tests {
    use super::super::copy::{moment, moment_ns};

    #[test]
    fn moments_keep_their_nanoseconds() {
        for at in [0, 1, -1, 999, 1_800_000_000_123_456_789, i64::MIN + 999, i64::MAX - 999] {
            let (micros, rest) = moment(at);
            assert_eq!(moment_ns(micros, rest), at);
        }
    }
}
