//! A file's metadata as an object's, and back. Pure.
//!
//! `mtime` in RFC 3339 with nanoseconds, as rclone keeps it in these stores; `mode` in octal with the kind's bits, `uid` and
//! `gid` in decimal. A symbolic link is an object whose content is where it points, with `keepwatch_kind` `symlink`.
//! `keepwatch_put` is drawn for each upload: by it one whose reply was lost is known again. Names have no `-`: Azure takes
//! only what could be a name in C#.

use object_store::{Attribute, Attributes};

use crate::model::{FileType, Timestamp};
use crate::target::Meta;

const MTIME: &str = "mtime";
const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const PUT: &str = "keepwatch_put";
const KIND: &str = "keepwatch_kind";
const SYMLINK: &str = "symlink";

const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// What carries a file's metadata.
pub(super) fn attributes(kind: FileType, meta: &Meta, put: &str) -> Attributes {
    let is_symlink = kind == FileType::Symlink;
    let kind_bits = if is_symlink { S_IFLNK } else { S_IFREG };
    let texts = [
        (MTIME, Timestamp(meta.mtime_ns).to_string()),
        (MODE, format!("{:o}", kind_bits | meta.mode)),
        (UID, meta.uid.to_string()),
        (GID, meta.gid.to_string()),
        (PUT, put.to_owned()),
    ];
    let texts = texts.into_iter().chain(is_symlink.then(|| (KIND, SYMLINK.to_owned())));
    // What it holds is not for a browser to guess.
    let plain = (Attribute::ContentType, "application/octet-stream".to_owned());
    texts.map(|(name, text)| (Attribute::Metadata(name.into()), text)).chain([plain]).collect()
}

/// What an object's attributes say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) is_symlink: bool,
    /// Of the original, where it is known.
    pub(super) mtime_ns: Option<i64>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    /// Which upload made it.
    pub(super) put: Option<String>,
}

/// Reads what [`attributes`] writes.
pub(super) fn kept(attributes: &Attributes) -> Kept {
    let text = |name: &'static str| attributes.get(&Attribute::Metadata(name.into())).map(AsRef::as_ref);
    let number = |name| text(name).and_then(|text: &str| text.parse().ok());
    Kept {
        is_symlink: text(KIND) == Some(SYMLINK),
        mtime_ns: text(MTIME).and_then(|text| text.parse::<Timestamp>().ok()).map(|at| at.0),
        mode: text(MODE).and_then(|text| u32::from_str_radix(text, 8).ok()).map(|mode| mode & 0o7777),
        uid: number(UID),
        gid: number(GID),
        put: text(PUT).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for mtime_ns in [1_500_000_000, -1_500_000_000, 1_354_040_105_123_456_789, 0] {
            let meta = Meta { mode: 0o640, uid: 7, gid: 8, mtime_ns, xattrs: Vec::new() };
            let read = kept(&attributes(FileType::Symlink, &meta, "x"));
            let (mode, put) = (Some(0o640), Some("x".to_owned()));
            let expected = Kept { is_symlink: true, mtime_ns: Some(mtime_ns), mode, uid: Some(7), gid: Some(8), put };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn names_are_such_as_azure_takes() {
        for (name, _) in &attributes(FileType::Symlink, &Meta::default(), "x") {
            if let Attribute::Metadata(name) = name {
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            }
        }
    }
}
