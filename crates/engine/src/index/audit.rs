//! The audit part of records: their rows in `changes` and `acts`. It needs nothing of the inventory part but the id of
//! the object, so that neither holds up the other.

use super::copy::{Rows, moment};
use super::row::put_facts;
use super::text::readable;
use crate::apply::acts;
use crate::apply::codes::Code as _;
use crate::apply::{FileId, signed};
use crate::model::{Body, Change, Record, RootName};

pub(super) const COPY_CHANGES: &str = "COPY changes (host_id, seq, at, at_ns, op, via, root, path, path_raw, old_root, \
     old_path, old_path_raw, file_id, kind, size, mtime_ns, ctime_ns, dev, inode, mode, uid, gid, nlink, target, by_pid, \
     by_uid, by_exe, merged, subtree, exchange, extra) FROM STDIN BINARY";
pub(super) const COPY_ACTS: &str = "COPY acts (host_id, seq, at, at_ns, act, root, path, path_raw, file_id, detail, extra) \
     FROM STDIN BINARY";

/// Rows of one table, and the record that each is of, by its place in the batch.
#[derive(Default)]
pub(super) struct Audit {
    pub(super) rows: Rows,
    pub(super) of: Vec<usize>,
}

/// The rows of `changes` and of `acts` for records of which the objects were found.
pub(super) fn rows(host: i32, records: &[Record], files: &[Option<FileId>]) -> (Audit, Audit) {
    let (mut changes, mut acts) = (Audit::default(), Audit::default());
    for (index, record) in records.iter().enumerate() {
        let file = files.get(index).copied().flatten();
        let table = match &record.body {
            Body::Change(change) => {
                put_change(&mut changes.rows, host, record, change, file);
                &mut changes
            }
            body => {
                put_act(&mut acts.rows, host, record, body, file);
                &mut acts
            }
        };
        table.of.push(index);
    }
    (changes, acts)
}

fn put_stamp(rows: &mut Rows, host: i32, record: &Record) {
    rows.int4(host);
    rows.int8(signed(record.seq.0));
    let (at, rest) = moment(record.at.0);
    rows.int8(at);
    rows.int2(rest);
}

/// A path as people read it and, where that is not exact, its bytes.
fn put_path(rows: &mut Rows, path: &[u8]) {
    let (text, exact) = readable(path);
    rows.bytes(text.as_bytes());
    rows.maybe((!exact).then_some(path), Rows::bytes);
}

fn put_change(rows: &mut Rows, host: i32, record: &Record, change: &Change, file: Option<FileId>) {
    rows.begin(31);
    put_stamp(rows, host, record);
    // The codes are small.
    rows.int2(i16::try_from(change.op.code()).unwrap_or(0));
    rows.int2(i16::try_from(change.via.code()).unwrap_or(0));
    rows.bytes(change.root.as_str().as_bytes());
    put_path(rows, change.path.as_bytes());
    match &change.old {
        Some(old) => {
            rows.maybe(old.root.as_ref(), |rows, root| rows.bytes(root.as_str().as_bytes()));
            put_path(rows, old.path.as_bytes());
        }
        None => (0..3).for_each(|_| rows.null()),
    }
    rows.maybe(file, |rows, file| rows.int8(file.0));
    put_facts(rows, change.facts.as_ref().map(|facts| facts.kind), change.facts.as_ref());
    let by = change.by.as_deref();
    rows.maybe(by, |rows, by| rows.int8(i64::from(by.pid)));
    rows.maybe(by.and_then(|by| by.uid), |rows, uid| rows.int8(i64::from(uid)));
    rows.maybe(by.and_then(|by| by.exe.as_deref()), Rows::bytes);
    rows.boolean(change.merged);
    rows.boolean(change.subtree);
    rows.boolean(change.exchange);
    rows.maybe(acts::extra_text(&record.extra), |rows, text| rows.bytes(text.as_bytes()));
    rows.end();
}

fn put_act(rows: &mut Rows, host: i32, record: &Record, body: &Body, file: Option<FileId>) {
    let act = acts::columns(body);
    rows.begin(11);
    put_stamp(rows, host, record);
    rows.bytes(act.name.as_bytes());
    rows.maybe(named_root(body), |rows, root| rows.bytes(root.as_str().as_bytes()));
    match act.path {
        Some(path) => put_path(rows, path),
        None => (0..2).for_each(|_| rows.null()),
    }
    rows.maybe(file, |rows, file| rows.int8(file.0));
    rows.bytes(act.detail.as_bytes());
    rows.maybe(acts::extra_text(&record.extra), |rows, text| rows.bytes(text.as_bytes()));
    rows.end();
}

/// The root that an act names.
pub(super) fn named_root(body: &Body) -> Option<&RootName> {
    match body {
        Body::Settled(settled) => Some(&settled.root),
        Body::Gap(gap) => gap.root.as_ref(),
        Body::GapClosed(closed) => closed.root.as_ref(),
        Body::Config(config) => Some(&config.root),
        Body::Change(change) => Some(&change.root),
        Body::Copied(copied) => Some(&copied.root),
        Body::Withdrawn(gone) => Some(&gone.root),
        Body::Failed(failed) => Some(&failed.root),
        Body::Hashed(_)
        | Body::Verified(_)
        | Body::Unsound(_)
        | Body::Repaired(_)
        | Body::Restored(_)
        | Body::Released(_)
        | Body::Enrolled(_) => body.fixity_place().map(|(root, _)| root),
        Body::Run(run) => Some(&run.root),
        Body::Replica(_) | Body::Trigger(_) | Body::Other(_) => None,
    }
}
