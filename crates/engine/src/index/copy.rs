//! Rows in PostgreSQL's binary COPY format.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".

use bytes::{BufMut as _, BytesMut};

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Nanoseconds between 1970 and 2000, from where PostgreSQL counts.
const EPOCH_NS: i64 = 946_684_800_000_000_000;

/// A moment as PostgreSQL keeps it, and the nanoseconds that it leaves out.
pub(super) fn moment(at_ns: i64) -> (i64, i16) {
    let rest = at_ns.rem_euclid(1000);
    // Below 1000.
    ((at_ns - rest) / 1000 - EPOCH_NS / 1000, i16::try_from(rest).unwrap_or(0))
}

/// Undoes [`moment`].
pub(super) fn moment_ns(micros: i64, rest: i16) -> i64 {
    micros.saturating_add(EPOCH_NS / 1000).saturating_mul(1000).saturating_add(i64::from(rest))
}

/// Rows of one table.
#[derive(Debug, Default)]
pub(super) struct Rows {
    data: BytesMut,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn begin(&mut self, columns: i16) {
        self.data.put_i16(columns);
    }

    pub(super) fn end(&mut self) {
        self.ends.push(self.data.len());
    }

    /// Some of the rows, as COPY takes them.
    pub(super) fn part(&self, rows: std::ops::Range<usize>) -> BytesMut {
        let begin = |row: usize| if row == 0 { 0 } else { self.ends[row - 1] };
        let data = &self.data[begin(rows.start)..begin(rows.end)];
        let mut copy = BytesMut::with_capacity(HEADER.len() + data.len() + 2);
        copy.put_slice(HEADER);
        copy.put_slice(data);
        copy.put_i16(-1);
        copy
    }

    pub(super) fn null(&mut self) {
        self.data.put_i32(-1);
    }

    pub(super) fn int2(&mut self, value: i16) {
        self.data.put_i32(2);
        self.data.put_i16(value);
    }

    pub(super) fn int4(&mut self, value: i32) {
        self.data.put_i32(4);
        self.data.put_i32(value);
    }

    pub(super) fn int8(&mut self, value: i64) {
        self.data.put_i32(8);
        self.data.put_i64(value);
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.data.put_i32(1);
        self.data.put_u8(u8::from(value));
    }

    /// Text or bytes. What is longer than the format can say would be no name: the journal's lines are far shorter.
    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.data.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.data.put_slice(value);
    }

    pub(super) fn maybe<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => put(self, value),
            None => self.null(),
        }
    }
}
