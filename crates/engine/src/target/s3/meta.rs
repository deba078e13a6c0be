//! A file's metadata as an object's, and back. Pure.
//!
//! `mtime` as rclone writes it: seconds since 1970 with a fraction. `mode` in octal with the kind's bits, `uid` and `gid` in
//! decimal, as rclone's `--metadata` names them. A symbolic link is an object whose content is where it points, with
//! `keepwatch-kind: symlink`. `keepwatch-put` is drawn for each upload: by it an upload whose reply was lost is known again.

use std::time::UNIX_EPOCH;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::model::FileType;
use crate::target::Meta;

const MTIME: HeaderName = HeaderName::from_static("x-amz-meta-mtime");
const MODE: HeaderName = HeaderName::from_static("x-amz-meta-mode");
const UID: HeaderName = HeaderName::from_static("x-amz-meta-uid");
const GID: HeaderName = HeaderName::from_static("x-amz-meta-gid");
const KIND: HeaderName = HeaderName::from_static("x-amz-meta-keepwatch-kind");
const PUT: HeaderName = HeaderName::from_static("x-amz-meta-keepwatch-put");
const SYMLINK: &str = "symlink";

const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// The headers that carry a file's metadata.
pub(super) fn headers(kind: FileType, meta: &Meta, put: &str) -> Vec<(HeaderName, HeaderValue)> {
    let is_symlink = kind == FileType::Symlink;
    let kind_bits = if is_symlink { S_IFLNK } else { S_IFREG };
    let texts = [
        (MTIME, seconds(meta.mtime_ns)),
        (MODE, format!("{:o}", kind_bits | meta.mode)),
        (UID, meta.uid.to_string()),
        (GID, meta.gid.to_string()),
        (PUT, put.to_owned()),
    ];
    let kind = is_symlink.then(|| (KIND, SYMLINK.to_owned()));
    let texts = texts.into_iter().chain(kind);
    texts.filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect()
}

/// What an object's headers say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) is_symlink: bool,
    pub(super) size: u64,
    /// Of the original; without that, when the object came.
    pub(super) mtime_ns: i64,
    pub(super) etag: String,
    /// Which upload made it.
    pub(super) put: Option<String>,
}

impl Head {
    pub(super) fn of(headers: &HeaderMap, size: u64) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let modified = || {
            let at = httpdate::parse_http_date(text(&reqwest::header::LAST_MODIFIED)?).ok()?;
            i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
        };
        Head {
            is_symlink: text(&KIND) == Some(SYMLINK),
            size,
            mtime_ns: text(&MTIME).and_then(nanoseconds).or_else(modified).unwrap_or(0),
            etag: text(&reqwest::header::ETAG).unwrap_or_default().to_owned(),
            put: text(&PUT).map(str::to_owned),
        }
    }
}

/// Nanoseconds as rclone writes a time: seconds, and a fraction without zeros at its end.
fn seconds(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let (whole, fraction) = (ns.unsigned_abs() / 1_000_000_000, ns.unsigned_abs() % 1_000_000_000);
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads what [`seconds`] writes.
fn nanoseconds(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || whole.starts_with(['+', '-']) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)?.checked_mul(sign)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rclone_does() {
        for (ns, text) in [
            (1_354_040_105_123_456_789, "1354040105.123456789"),
            (1_354_040_105_120_000_000, "1354040105.12"),
            (100_000_000_000, "100"),
            (0, "0"),
            (5, "0.000000005"),
            (-1_500_000_000, "-1.5"),
            (i64::MAX, "9223372036.854775807"),
        ] {
            assert_eq!(seconds(ns), text);
            assert_eq!(nanoseconds(text), Some(ns), "{text}");
        }
        assert_eq!(nanoseconds("12.1234567891"), Some(12_123_456_789));
        for text in ["", "x", "1.x", "1.-5", "--1", "99999999999999999999"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let meta = Meta { mode: 0o640, uid: 7, gid: 8, mtime_ns: 1_500_000_000, xattrs: Vec::new() };
        let map: HeaderMap = headers(FileType::Symlink, &meta, "token").into_iter().collect();
        assert_eq!(map[MODE], "120640");
        let head = Head::of(&map, 3);
        assert!(head.is_symlink);
        assert_eq!((head.size, head.mtime_ns, head.put.as_deref()), (3, 1_500_000_000, Some("token")));
    }

    #[test]
    fn what_others_put_has_the_time_at_which_it_came() {
        let mut map = HeaderMap::new();
        map.insert(reqwest::header::LAST_MODIFIED, HeaderValue::from_static("Thu, 01 Jan 1970 00:01:40 GMT"));
        assert_eq!(Head::of(&map, 0).mtime_ns, 100_000_000_000);
    }
}
