//! The central directory: the list of members at the end of an archive, and the records behind it.

use std::io;

use super::local::Content;
use super::window::Window;
use super::{
    EXTRA_ZIP64, MADE_BY, MODE_FILE, NEEDED, NEEDED_ZIP64, ZIP64_FROM, ZIP64_MEMBERS_FROM, extras, low32, name_flag,
    time, u16_at, u32_at, u64_at,
};
use crate::files::{File, read_exact_at};

/// "PK\1\2".
pub(crate) const SIGNATURE: u32 = 0x0201_4B50;
/// "PK\5\6".
pub(crate) const END_SIGNATURE: u32 = 0x0605_4B50;
const END64_SIGNATURE: u32 = 0x0606_4B50;
const LOCATOR_SIGNATURE: u32 = 0x0706_4B50;
const FIXED_LEN: usize = 46;
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const LOCATOR_LEN: usize = 20;
/// The longest comment, and what stands before it.
const TAIL_BYTES_MAX: usize = 65_535 + END_LEN;
/// The longest entry: three fields of 16-bit length.
pub(crate) const ENTRY_BYTES_MAX: usize = FIXED_LEN + 3 * 65_535;

/// An entry, in the bytes that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) made_by: u16,
    pub(crate) flags: u16,
    pub(crate) content: Content,
    time: u16,
    date: u16,
    internal: u16,
    pub(crate) external: u32,
    /// Where its local header is.
    pub(crate) offset: u64,
    pub(crate) name: &'a [u8],
    /// As it was read: with the zip64 field, if there is one.
    extra: &'a [u8],
    comment: &'a [u8],
}

/// The end of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Where the central directory begins, and so where the members end.
    pub(crate) directory_at: u64,
    /// Its length.
    pub(crate) directory_len: u64,
    /// How many entries it has.
    pub(crate) members: u64,
    /// The archive's comment.
    pub(crate) comment: Vec<u8>,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not end as a zip archive does")]
    NoEnd,
    #[error("its end tells of a directory of members that is not there")]
    Directory,
    #[error("its directory of members is damaged at byte {0}")]
    Entry(u64),
    #[error("it is spread over several disks")]
    Disks,
}

/// Appends an entry for a regular file that the packer stores.
pub(crate) fn encode(name: &[u8], content: &Content, mode: u32, mtime_secs: i64, offset: u64, out: &mut Vec<u8>) {
    let (date, dos_time) = time::to_dos(mtime_secs);
    let mut extra = Vec::with_capacity(time::EXTRA_LEN_MAX);
    time::extra(mtime_secs, &mut extra);
    let entry = Entry {
        made_by: MADE_BY,
        flags: name_flag(name),
        content: *content,
        time: dos_time,
        date,
        internal: 0,
        external: (MODE_FILE | mode & 0o7777) << 16,
        offset,
        name,
        extra: &extra,
        comment: &[],
    };
    entry.encode(out);
}

impl Entry<'_> {
    /// Appends it, with a zip64 field if one is needed.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Content { method, crc, packed, size } = self.content;
        let wide: Vec<u64> = [size, packed, self.offset].into_iter().filter(|number| *number >= ZIP64_FROM).collect();
        let kept = extras(self.extra).filter(|(id, _)| *id != EXTRA_ZIP64);
        let kept_len: usize = kept.map(|(_, content)| 4 + content.len()).sum();
        let extra_len = kept_len + if wide.is_empty() { 0 } else { 4 + 8 * wide.len() };
        let needed = if wide.is_empty() { NEEDED } else { NEEDED_ZIP64 };
        out.extend_from_slice(&SIGNATURE.to_le_bytes());
        for word in [self.made_by, needed, self.flags, method, self.time, self.date] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for long in [crc, low32(packed), low32(size)] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        for len in [self.name.len(), extra_len, self.comment.len()] {
            out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        }
        for word in [0, self.internal] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.external.to_le_bytes());
        out.extend_from_slice(&low32(self.offset).to_le_bytes());
        out.extend_from_slice(self.name);
        if !wide.is_empty() {
            out.extend_from_slice(&EXTRA_ZIP64.to_le_bytes());
            out.extend_from_slice(&u16::try_from(8 * wide.len()).unwrap_or(0).to_le_bytes());
            wide.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        }
        if kept_len == self.extra.len() {
            out.extend_from_slice(self.extra);
        } else {
            for (id, content) in extras(self.extra).filter(|(id, _)| *id != EXTRA_ZIP64) {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&u16::try_from(content.len()).unwrap_or(0).to_le_bytes());
                out.extend_from_slice(content);
            }
        }
        out.extend_from_slice(self.comment);
    }

    /// When the file was changed, in seconds since 1970.
    pub(crate) fn mtime_secs(&self) -> i64 {
        time::of_extra(self.extra).unwrap_or_else(|| time::of_dos(self.date, self.time))
    }

    /// Its permissions, where a Unix wrote them.
    pub(crate) fn mode(&self) -> Option<u32> {
        (self.made_by >> 8 == 3).then_some(self.external >> 16 & 0o7777)
    }
}

/// Reads the entry that these bytes begin with, and how long it is.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    if u32_at(bytes, 0)? != SIGNATURE {
        return None;
    }
    let word = |at| u16_at(bytes, at);
    let long = |at| u32_at(bytes, at);
    let (name_len, extra_len) = (usize::from(word(28)?), usize::from(word(30)?));
    let (name_end, extra_end) = (FIXED_LEN + name_len, FIXED_LEN + name_len + extra_len);
    let len = extra_end + usize::from(word(32)?);
    let (name, extra) = (bytes.get(FIXED_LEN..name_end)?, bytes.get(name_end..extra_end)?);
    let content = Content { method: word(10)?, crc: long(16)?, packed: long(20)?.into(), size: long(24)?.into() };
    let mut entry = Entry {
        made_by: word(4)?,
        flags: word(8)?,
        content,
        time: word(12)?,
        date: word(14)?,
        internal: word(36)?,
        external: long(38)?,
        offset: long(42)?.into(),
        name,
        extra,
        comment: bytes.get(extra_end..len)?,
    };
    let Content { packed, size, .. } = &mut entry.content;
    if let Some((_, wide)) = extras(extra).find(|(id, _)| *id == EXTRA_ZIP64) {
        let mut at = 0;
        for number in [size, packed, &mut entry.offset] {
            if *number == ZIP64_FROM {
                *number = u64_at(wide, at)?;
                at += 8;
            }
        }
    }
    Some((entry, len))
}

/// Appends what stands behind the central directory.
pub(crate) fn encode_end(end: &End, out: &mut Vec<u8>) {
    let End { directory_at, directory_len, members, ref comment } = *end;
    if directory_at >= ZIP64_FROM || directory_len >= ZIP64_FROM || members >= ZIP64_MEMBERS_FROM {
        out.extend_from_slice(&END64_SIGNATURE.to_le_bytes());
        out.extend_from_slice(&(END64_LEN as u64 - 12).to_le_bytes());
        for word in [MADE_BY, NEEDED_ZIP64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&[0; 8]);
        for number in [members, members, directory_len, directory_at] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&LOCATOR_SIGNATURE.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(directory_at + directory_len).to_le_bytes());
        out.extend_from_slice(&1_u32.to_le_bytes());
    }
    let count = u16::try_from(members).unwrap_or(u16::MAX);
    out.extend_from_slice(&END_SIGNATURE.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for word in [count, count] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for long in [low32(directory_len), low32(directory_at)] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    out.extend_from_slice(&u16::try_from(comment.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(comment);
}

/// Finds the end of an archive of `size` bytes.
///
/// The directory must stand right before its end: an archive with something in front of it or between is refused,
/// for where such an archive's members are is a matter of taste.
pub(crate) fn find_end(file: &dyn File, size: u64) -> Result<End, Unreadable> {
    // Nearly all have a short comment or none.
    for most in [4096, TAIL_BYTES_MAX + LOCATOR_LEN + END64_LEN] {
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(most);
        let mut tail = vec![0; len];
        read_exact_at(file, &mut tail, size - len as u64)?;
        let last = tail.len().checked_sub(END_LEN).ok_or(Unreadable::NoEnd)?;
        let found = (0..=last).rev().find(|at| {
            u32_at(&tail, *at) == Some(END_SIGNATURE)
                && u16_at(&tail, at + 20).is_some_and(|comment| at + END_LEN + usize::from(comment) == tail.len())
        });
        if let Some(at) = found {
            return read_end(file, &tail, at, size);
        }
    }
    Err(Unreadable::NoEnd)
}

fn read_end(file: &dyn File, tail: &[u8], at: usize, size: u64) -> Result<End, Unreadable> {
    let word = |offset| u16_at(tail, at + offset).unwrap_or(0);
    let long = |offset| u64::from(u32_at(tail, at + offset).unwrap_or(0));
    let mut end = End {
        directory_at: long(16),
        directory_len: long(12),
        members: word(10).into(),
        comment: tail[at + END_LEN..].to_vec(),
    };
    let mut end_at = size - (tail.len() - at) as u64;
    let is_wide =
        end.members == ZIP64_MEMBERS_FROM || end.directory_at == ZIP64_FROM || end.directory_len == ZIP64_FROM;
    if let (true, Some(locator_at)) = (is_wide, end_at.checked_sub(LOCATOR_LEN as u64)) {
        let mut locator = [0; LOCATOR_LEN];
        read_exact_at(file, &mut locator, locator_at)?;
        if u32_at(&locator, 0) == Some(LOCATOR_SIGNATURE) {
            let end64_at = u64_at(&locator, 8).unwrap_or(u64::MAX);
            if end64_at.checked_add(END64_LEN as u64).is_none_or(|behind| behind > locator_at) {
                return Err(Unreadable::Directory);
            }
            let mut end64 = [0; END64_LEN];
            read_exact_at(file, &mut end64, end64_at)?;
            if u32_at(&end64, 0) != Some(END64_SIGNATURE) {
                return Err(Unreadable::Directory);
            }
            let number = |offset| u64_at(&end64, offset).unwrap_or(u64::MAX);
            (end.members, end.directory_len, end.directory_at) = (number(32), number(40), number(48));
            end_at = end64_at;
        }
    } else if word(4) != 0 || word(6) != 0 {
        return Err(Unreadable::Disks);
    }
    let is_there = end.directory_at.checked_add(end.directory_len) == Some(end_at)
        && end.members.checked_mul(FIXED_LEN as u64).is_some_and(|least| least <= end.directory_len);
    if is_there { Ok(end) } else { Err(Unreadable::Directory) }
}

/// Hands each entry to `take`, in the order in which they stand.
pub(crate) fn each(
    file: &dyn File,
    end: &End,
    take: &mut dyn FnMut(&Entry<'_>) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let directory_end = end.directory_at + end.directory_len;
    let mut window = Window::new(file, directory_end);
    let mut at = end.directory_at;
    for _ in 0..end.members {
        // Most entries are short: what is in memory is enough for them.
        let len = match parse(window.at(at, FIXED_LEN + 1024)?) {
            Some((entry, len)) => take(&entry).map(|()| len)?,
            None => {
                let bytes = window.at(at, ENTRY_BYTES_MAX)?;
                let (entry, len) = parse(bytes).ok_or(Unreadable::Entry(at))?;
                take(&entry).map(|()| len)?
            }
        };
        at += len as u64;
    }
    if at == directory_end { Ok(()) } else { Err(Unreadable::Entry(at)) }
}
