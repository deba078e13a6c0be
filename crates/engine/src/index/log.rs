//! `log`: what happened on a host, record by record, as it stands in its journal.

use std::ops::ControlFlow;

use tokio_postgres::Row;

use super::copy::{moment, moment_ns};
use super::error::Result;
use super::row::{get, read_facts};
use super::text::readable;
use super::view::{IndexHost, IndexView};
use crate::apply::codes::Code as _;
use crate::apply::{acts, signed, unsigned};
use crate::model::{Body, By, Change, OldPlace, Op, Record, RelPath, RootName, Seq, Timestamp, Via};

/// Which records to tell of a host.
#[derive(Clone, Debug, Default)]
pub struct IndexLog {
    /// In which root; `None`: in all.
    pub root: Option<RootName>,
    /// Of what stands or stood at this path of the root; of a directory, with all below it.
    pub path: Option<RelPath>,
    /// Follow what is or was at `path` to the names it had before and after, those of directories above it among them; of a
    /// directory, what was told below this path.
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
}

const CHANGES: &str = "SELECT c.seq, c.at, c.at_ns, c.root, c.path, c.path_raw, c.file_id, c.op, c.via, c.old_root, c.old_path, \
     c.old_path_raw, c.kind, c.size, c.mtime_ns, c.ctime_ns, c.dev, c.inode, c.mode, c.uid, c.gid, c.nlink, c.target, c.by_pid, \
     c.by_uid, c.by_exe, c.merged, c.subtree, c.exchange, NULL::text AS act, NULL::text AS detail, c.extra FROM changes c";
pub(super) const ACTS: &str = "SELECT a.seq, a.at, a.at_ns, a.root, a.path, a.path_raw, a.file_id, NULL::smallint, NULL::smallint, \
     NULL::text, NULL::text, NULL::bytea, NULL::smallint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, \
     NULL::integer, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bytea, NULL::bigint, NULL::bigint, NULL::bytea, false, false, \
     false, a.act, a.detail, a.extra FROM acts a";
const ACT: usize = 29;

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
        // A moment has microseconds there: it is looked at again below.
        let time = "at >= to_timestamp($2::bigint / 1000000.0 + 946684799) AND at <= to_timestamp($3::bigint / 1000000.0 + 946684801)";
        let mut tell = |record: Record, file: Option<i64>| {
            let is_about = file.is_some_and(|file| found.objects.contains(&file));
            let is_told = if by_object {
                (is_about || found.ends.contains(&signed(record.seq.0))) && is_asked_for(query, &record, true)
            } else {
                is_asked_for(query, &record, is_about && query.follow)
            };
            if is_told { each(record) } else { ControlFlow::Continue(()) }
        };
        match (&query.path, root) {
            (Some(_), Some(_)) if by_object => {
                // The record that first told of an object has its id as seq.
                let seqs = [&found.objects[..], &found.ends[..]].concat();
                let sql = format!(
                    "{CHANGES} WHERE c.host_id=$1 AND c.{time} AND (c.file_id <> c.seq AND c.file_id = ANY($4) OR c.seq = ANY($5)) \
                     UNION ALL {ACTS} WHERE a.host_id=$1 AND a.{time} AND (a.file_id = ANY($4) OR a.seq = ANY($5)) ORDER BY 1"
                );
                self.stream(&sql, &[&host.id, &first, &last, &found.objects, &seqs], |row| told(row, &mut tell))
            }
            (Some(path), Some(root)) => {
                let objects = &found.objects;
                let text = readable(path.as_bytes()).0.into_owned();
                let changes = format!(
                    "{CHANGES} WHERE c.host_id=$1 AND c.{time} AND ({} OR {} OR (c.file_id <> c.seq AND c.file_id = ANY($6)) \
                     OR c.seq = ANY($6))",
                    within("c.root", "c.path", ""),
                    within("coalesce(c.old_root, c.root)", "c.old_path", "c.old_path IS NOT NULL AND ")
                );
                let acts = format!(
                    "{ACTS} WHERE a.host_id=$1 AND a.{time} AND (a.file_id = ANY($6) OR (a.act <> 'settled' AND {}) \
                     OR a.file_id IN (SELECT file_id FROM changes c WHERE c.host_id=$1 AND {}))",
                    within("a.root", "a.path", ""),
                    within("c.root", "c.path", "")
                );
                let sql = format!("{changes} UNION ALL {acts} ORDER BY 1");
                self.stream(&sql, &[&host.id, &first, &last, &root, &text, objects], |row| told(row, &mut tell))
            }
            _ => {
                let sql = format!(
                    "{CHANGES} WHERE c.host_id=$1 AND c.{time} AND ($4::text IS NULL OR c.root=$4 OR c.old_root=$4) \
                     UNION ALL {ACTS} WHERE a.host_id=$1 AND a.{time} AND ($4::text IS NULL OR a.root=$4) ORDER BY 1"
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
            "SELECT EXISTS (SELECT 1 FROM dirs WHERE host_id=$1 AND dir_id=ANY($2)) \
             OR EXISTS (SELECT 1 FROM dir_names WHERE host_id=$1 AND dir_id=ANY($2))",
            &[&host.id, &found.objects],
        )?;
        found.has_dir = rows.first().and_then(|row| get(row, 0)).unwrap_or(false);
        Ok(found)
    }
}

/// At a path or below it: by the beginning, which the index has, then by all of it.
fn within(root: &str, path: &str, known: &str) -> String {
    format!(
        "({known}{root}=$4 AND (left({path}, 200)=left($5, 200) AND {path}=$5 OR left({path}, 200)>=left($5 || '/', 200) \
         AND left({path}, 200)<=left($5 || '0', 200) AND starts_with({path}, $5 || '/') OR $5 = ''))"
    )
}

fn told(row: &Row, tell: &mut impl FnMut(Record, Option<i64>) -> ControlFlow<()>) -> ControlFlow<()> {
    match record(row) {
        Some(record) => tell(record, get(row, 6)),
        // What none of our versions wrote is no record of ours.
        None => ControlFlow::Continue(()),
    }
}

/// A record as [`CHANGES`] or [`ACTS`] give it; `None` if none of our versions wrote it.
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
    let body = match get::<String>(row, ACT) {
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

fn is_asked_for(query: &IndexLog, record: &Record, is_about: bool) -> bool {
    if query.since.is_some_and(|since| record.at < since) || query.until.is_some_and(|until| record.at > until) {
        return false;
    }
    let word = match &record.body {
        Body::Change(change) => change.op.as_str(),
        body => acts::name(body),
    };
    if !query.words.is_empty() && !query.words.iter().any(|asked| asked == word) {
        return false;
    }
    let (Some(path), false) = (&query.path, is_about) else { return true };
    match &record.body {
        Body::Change(change) => {
            change.path.is_within(path)
                || change.old.as_ref().is_some_and(|old| old.path.is_within(path))
                || change.path.is_root() && path.is_root()
        }
        Body::Settled(settled) => settled.path.is_within(path),
        Body::Gap(gap) => gap.path.is_within(path),
        Body::GapClosed(_) | Body::Config(_) | Body::Other(_) => path.is_root(),
    }
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
