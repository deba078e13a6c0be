//! How what is known of a name lies in the columns of `files`.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::copy::Rows;
use super::text::{extension, readable};
use crate::apply::codes::Code;
use crate::apply::{FileId, Known, Place, signed, unsigned};
use crate::model::{Facts, FileType, Seq, Timestamp};

/// The columns of facts, in the order in which [`read_facts`] takes them.
macro_rules! fact_columns {
    ($of:literal) => {
        concat!(
            $of,
            ".kind, ",
            $of,
            ".size, ",
            $of,
            ".mtime_ns, ",
            $of,
            ".ctime_ns, ",
            $of,
            ".dev, ",
            $of,
            ".inode, ",
            $of,
            ".mode, ",
            $of,
            ".uid, ",
            $of,
            ".gid, ",
            $of,
            ".nlink, ",
            $of,
            ".target"
        )
    };
}
/// The columns of a [`Known`], in the order in which [`read_known`] takes them.
macro_rules! known_columns {
    () => {
        concat!(
            "f.file_id, ",
            $crate::index::row::fact_columns!("f"),
            ", f.first_seen_ns, f.from_seq, f.version_seq, f.last_seq, f.last_change_ns, f.settled_seq, f.sha256"
        )
    };
}
pub(super) use {fact_columns, known_columns};

/// The columns of `files`, in the order in which [`put_name`] and [`Columns`] give them.
macro_rules! file_columns {
    () => {
        "host_id, dir_id, name, name_text, ext, file_id, kind, size, mtime_ns, ctime_ns, dev, inode, mode, uid, gid, nlink, \
         target, first_seen_ns, from_seq, version_seq, last_seq, last_change_ns, settled_seq, sha256"
    };
}
pub(super) use file_columns;

const FILE_COLUMNS: i16 = 24;

/// A column that this program wrote: what does not fit its type is another's doing, and reads as nothing.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Option<T> {
    row.try_get(column).ok()
}

fn number(row: &Row, column: usize) -> i64 {
    get(row, column).unwrap_or(0)
}

fn narrow(row: &Row, column: usize) -> u32 {
    u32::try_from(number(row, column)).unwrap_or(u32::MAX)
}

/// Reads facts from column `first` on: kind, size, mtime, ctime, dev, inode, mode, uid, gid, nlink, target.
pub(super) fn read_facts(row: &Row, first: usize) -> (Option<FileType>, Option<Facts>) {
    let kind = get::<i16>(row, first).and_then(|kind| FileType::decode(i64::from(kind)));
    let (Some(known), Some(inode)) = (kind, get::<i64>(row, first + 5)) else { return (kind, None) };
    let facts = Facts {
        kind: known,
        size: unsigned(number(row, first + 1)),
        mtime_ns: number(row, first + 2),
        ctime_ns: number(row, first + 3),
        dev: unsigned(number(row, first + 4)),
        inode: unsigned(inode),
        mode: get::<i32>(row, first + 6).and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0),
        uid: narrow(row, first + 7),
        gid: narrow(row, first + 8),
        nlink: narrow(row, first + 9),
        target: get::<&[u8]>(row, first + 10).map(Into::into),
    };
    (kind, Some(facts))
}

/// Reads a [`Known`] from column `first` on.
pub(super) fn read_known(row: &Row, first: usize) -> Known {
    let (kind, facts) = read_facts(row, first + 1);
    let rest = first + 12;
    let seq = |column: usize| Seq(unsigned(number(row, column)));
    Known {
        file_id: FileId(number(row, first)),
        kind,
        facts,
        first_seen: Timestamp(number(row, rest)),
        from_seq: seq(rest + 1),
        version_seq: seq(rest + 2),
        last_seq: seq(rest + 3),
        last_change: Timestamp(number(row, rest + 4)),
        settled_seq: seq(rest + 5),
        sha256: get::<&[u8]>(row, rest + 6).and_then(|digest| digest.try_into().ok()),
    }
}

/// The number of a kind, as its column holds it.
pub(super) fn kind_code(kind: FileType) -> i16 {
    i16::try_from(kind.code()).unwrap_or(0)
}

fn mode(facts: &Facts) -> i32 {
    // Twelve bits.
    i32::try_from(facts.mode).unwrap_or(0)
}

fn ending(name: &[u8], known: &Known) -> Option<String> {
    (known.kind == Some(FileType::File)).then(|| extension(name)).flatten()
}

fn odd_text(name: &[u8]) -> Option<String> {
    let (text, exact) = readable(name);
    (!exact).then(|| text.into_owned())
}

/// Puts the facts' columns from kind to nlink, then the target.
pub(super) fn put_facts(rows: &mut Rows, kind: Option<FileType>, facts: Option<&Facts>) {
    rows.maybe(kind, |rows, kind| rows.int2(kind_code(kind)));
    let Some(facts) = facts else {
        for _ in 0..10 {
            rows.null();
        }
        return;
    };
    rows.int8(signed(facts.size));
    rows.int8(facts.mtime_ns);
    rows.int8(facts.ctime_ns);
    rows.int8(signed(facts.dev));
    rows.int8(signed(facts.inode));
    rows.int4(mode(facts));
    rows.int8(i64::from(facts.uid));
    rows.int8(i64::from(facts.gid));
    rows.int8(i64::from(facts.nlink));
    rows.maybe(facts.target.as_deref(), Rows::bytes);
}

/// Puts a row of `files`.
pub(super) fn put_name(rows: &mut Rows, host: i32, place: &Place, known: &Known) {
    rows.begin(FILE_COLUMNS);
    rows.int4(host);
    rows.int8(place.dir);
    rows.bytes(&place.name);
    rows.maybe(odd_text(&place.name), |rows, text| rows.bytes(text.as_bytes()));
    rows.maybe(ending(&place.name, known), |rows, text| rows.bytes(text.as_bytes()));
    rows.int8(known.file_id.0);
    put_facts(rows, known.kind, known.facts.as_ref());
    rows.int8(known.first_seen.0);
    rows.int8(signed(known.from_seq.0));
    rows.int8(signed(known.version_seq.0));
    rows.int8(signed(known.last_seq.0));
    rows.int8(known.last_change.0);
    rows.int8(signed(known.settled_seq.0));
    rows.maybe(known.sha256.as_ref(), |rows, digest| rows.bytes(digest));
    rows.end();
}

/// Rows of `files`, column by column, as UNNEST takes them.
#[derive(Default)]
pub(super) struct Columns<'r> {
    pub(super) dir_id: Vec<i64>,
    pub(super) name: Vec<&'r [u8]>,
    pub(super) name_text: Vec<Option<String>>,
    pub(super) ext: Vec<Option<String>>,
    pub(super) file_id: Vec<i64>,
    pub(super) kind: Vec<Option<i16>>,
    /// Size, mtime, ctime, dev, inode, uid, gid, nlink.
    pub(super) facts: [Vec<Option<i64>>; 8],
    pub(super) mode: Vec<Option<i32>>,
    pub(super) target: Vec<Option<&'r [u8]>>,
    /// First seen, from, version, last, last change, settled.
    pub(super) seqs: [Vec<i64>; 6],
    pub(super) sha256: Vec<Option<&'r [u8]>>,
}

impl<'r> Columns<'r> {
    pub(super) fn push(&mut self, place: &'r Place, known: &'r Known) {
        self.dir_id.push(place.dir);
        self.name.push(&place.name);
        self.name_text.push(odd_text(&place.name));
        self.ext.push(ending(&place.name, known));
        self.file_id.push(known.file_id.0);
        self.kind.push(known.kind.map(kind_code));
        let facts = known.facts.as_ref();
        let numbers = facts.map(|facts| {
            [
                signed(facts.size),
                facts.mtime_ns,
                facts.ctime_ns,
                signed(facts.dev),
                signed(facts.inode),
                i64::from(facts.uid),
                i64::from(facts.gid),
                i64::from(facts.nlink),
            ]
        });
        for (column, values) in self.facts.iter_mut().enumerate() {
            values.push(numbers.map(|numbers| numbers[column]));
        }
        self.mode.push(facts.map(mode));
        self.target.push(facts.and_then(|facts| facts.target.as_deref()));
        let numbers = [
            known.first_seen.0,
            signed(known.from_seq.0),
            signed(known.version_seq.0),
            signed(known.last_seq.0),
            known.last_change.0,
            signed(known.settled_seq.0),
        ];
        for (values, number) in self.seqs.iter_mut().zip(numbers) {
            values.push(number);
        }
        self.sha256.push(known.sha256.as_ref().map(|digest| &digest[..]));
    }
}
