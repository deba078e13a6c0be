//! Local headers: what stands before a member's data. Sizes and sum are always in the header, never behind the data, so
//! that a file which was torn off still tells of each complete member.

use super::{
    DEFLATED, EXTRA_STAGED, EXTRA_ZIP64, FLAG_DESCRIPTOR, FLAG_ENCRYPTED, NEEDED, NEEDED_ZIP64, STORED, ZIP64_FROM,
    extras, low32, name_flag, time, u16_at, u32_at, u64_at,
};

/// "PK\3\4".
pub(crate) const SIGNATURE: u32 = 0x0403_4B50;
/// The bytes before name and extra fields.
pub(crate) const FIXED_LEN: usize = 30;
/// The packer's own field: salt, mode, seconds, nanoseconds, sum of the header.
const STAGED_LEN: usize = 8 + 4 + 8 + 4 + 4;
/// Room that a staged header takes at most, besides the name.
pub(crate) const STAGED_EXTRA_LEN_MAX: usize = (4 + 16) + time::EXTRA_LEN_MAX + (4 + STAGED_LEN);

/// What a header tells of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// [`STORED`] or [`DEFLATED`], where we write; anything where we read.
    pub(crate) method: u16,
    /// CRC-32 of the content.
    pub(crate) crc: u32,
    /// Bytes in the archive.
    pub(crate) packed: u64,
    /// Bytes of the content.
    pub(crate) size: u64,
}

/// Attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permissions, without the file's type.
    pub(crate) mode: u32,
    /// Since 1970.
    pub(crate) mtime_secs: i64,
    /// The rest of a second.
    pub(crate) mtime_nanos: u32,
}

/// A local header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Local<'a> {
    pub(crate) flags: u16,
    pub(crate) content: Content,
    pub(crate) attributes: Attributes,
    pub(crate) name: &'a [u8],
    /// The bytes up to the data.
    pub(crate) len: usize,
    /// What the packer's own field tells.
    pub(crate) staged: Staged,
}

/// Whether the packer's own field stands in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Staged {
    /// It does, and the header's sum is right: every field is as it was written. Whose file it is, by its salt.
    Sound(u64),
    /// It does, and the header's sum is wrong.
    Damaged,
    /// It does not.
    Absent,
}

/// What is wrong with a local header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The bytes end within it.
    Short,
    /// It does not begin with [`SIGNATURE`].
    Signature,
    /// A size that should stand in a zip64 field stands nowhere.
    Zip64,
}

/// Appends a header as it stands in an archive.
pub(crate) fn encode(name: &[u8], content: &Content, mtime_secs: i64, out: &mut Vec<u8>) {
    encode_start(name, content, mtime_secs, extra_len(content, mtime_secs), out);
    encode_extras(content, mtime_secs, out);
}

/// Appends a header as it stands in a staging file. The packer's own field is stretched to make the header's extra
/// fields `extra_len` long, if that is more than they need.
pub(crate) fn encode_staged(
    name: &[u8],
    content: &Content,
    attributes: &Attributes,
    salt: u64,
    stretch: Option<usize>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let least = extra_len(content, attributes.mtime_secs) + 4 + STAGED_LEN;
    let wanted = stretch.unwrap_or(least).max(least);
    encode_start(name, content, attributes.mtime_secs, wanted, out);
    encode_extras(content, attributes.mtime_secs, out);
    let own_len = STAGED_LEN + (wanted - least);
    out.extend_from_slice(&EXTRA_STAGED.to_le_bytes());
    out.extend_from_slice(&u16::try_from(own_len).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&salt.to_le_bytes());
    out.extend_from_slice(&attributes.mode.to_le_bytes());
    out.extend_from_slice(&attributes.mtime_secs.to_le_bytes());
    out.extend_from_slice(&attributes.mtime_nanos.to_le_bytes());
    out.resize(out.len() + (wanted - least), 0);
    let sum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// How long a header is that [`encode`] writes.
pub(crate) fn encoded_len(name: &[u8], content: &Content, mtime_secs: i64) -> usize {
    FIXED_LEN + name.len() + extra_len(content, mtime_secs)
}

fn is_zip64(content: &Content) -> bool {
    content.size >= ZIP64_FROM || content.packed >= ZIP64_FROM
}

fn extra_len(content: &Content, mtime_secs: i64) -> usize {
    let time = if i32::try_from(mtime_secs).is_ok() { 9 } else { time::EXTRA_LEN_MAX };
    time + if is_zip64(content) { 20 } else { 0 }
}

fn encode_start(name: &[u8], content: &Content, mtime_secs: i64, extra_len: usize, out: &mut Vec<u8>) {
    let (date, time) = time::to_dos(mtime_secs);
    let zip64 = is_zip64(content);
    // Where one size needs 64 bits, both stand in the zip64 field.
    let short = |size: u64| if zip64 { u32::MAX } else { low32(size) };
    let words = [if zip64 { NEEDED_ZIP64 } else { NEEDED }, name_flag(name), content.method, time, date];
    out.extend_from_slice(&SIGNATURE.to_le_bytes());
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    for word in [content.crc, short(content.packed), short(content.size)] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for len in [name.len(), extra_len] {
        out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    }
    out.extend_from_slice(name);
}

fn encode_extras(content: &Content, mtime_secs: i64, out: &mut Vec<u8>) {
    if is_zip64(content) {
        out.extend_from_slice(&EXTRA_ZIP64.to_le_bytes());
        out.extend_from_slice(&16_u16.to_le_bytes());
        out.extend_from_slice(&content.size.to_le_bytes());
        out.extend_from_slice(&content.packed.to_le_bytes());
    }
    time::extra(mtime_secs, out);
}

/// Reads the header that these bytes begin with.
pub(crate) fn parse(bytes: &[u8]) -> Result<Local<'_>, Flaw> {
    if bytes.len() < 4 {
        return Err(Flaw::Short);
    }
    if u32_at(bytes, 0) != Some(SIGNATURE) {
        return Err(Flaw::Signature);
    }
    let fixed = bytes.get(..FIXED_LEN).ok_or(Flaw::Short)?;
    let word = |at| u16_at(fixed, at).unwrap_or(0);
    let long = |at| u32_at(fixed, at).unwrap_or(0);
    let (name_len, extra_len) = (usize::from(word(26)), usize::from(word(28)));
    let len = FIXED_LEN + name_len + extra_len;
    let header = bytes.get(..len).ok_or(Flaw::Short)?;
    let (name, extra) = header[FIXED_LEN..].split_at(name_len);
    let mut content = Content { method: word(8), crc: long(14), packed: long(18).into(), size: long(22).into() };
    let mut attributes = Attributes {
        mode: 0o644,
        mtime_secs: time::of_extra(extra).unwrap_or_else(|| time::of_dos(word(12), word(10))),
        mtime_nanos: 0,
    };
    let mut staged = Staged::Absent;
    let mut is_wide = false;
    for (id, field) in extras(extra) {
        match id {
            EXTRA_ZIP64 => {
                let mut at = 0;
                for size in [&mut content.size, &mut content.packed] {
                    if *size == ZIP64_FROM {
                        *size = u64_at(field, at).ok_or(Flaw::Zip64)?;
                        at += 8;
                    }
                }
                is_wide = true;
            }
            EXTRA_STAGED => staged = read_staged(header, field, &mut attributes),
            _ => {}
        }
    }
    if !is_wide && (content.packed == ZIP64_FROM || content.size == ZIP64_FROM) {
        return Err(Flaw::Zip64);
    }
    Ok(Local { flags: word(6), content, attributes, name, len, staged })
}

/// The packer's own field is the last one, and its sum the last of it.
fn read_staged(header: &[u8], field: &[u8], attributes: &mut Attributes) -> Staged {
    let (true, Some(salt)) = (field.len() >= STAGED_LEN, u64_at(field, 0)) else { return Staged::Damaged };
    let (summed, sum) = header.split_at(header.len() - 4);
    if u32_at(sum, 0) != Some(crc32fast::hash(summed)) {
        return Staged::Damaged;
    }
    attributes.mode = u32_at(field, 8).unwrap_or(0) & 0o7777;
    attributes.mtime_secs = u64_at(field, 12).unwrap_or(0).cast_signed();
    attributes.mtime_nanos = u32_at(field, 20).unwrap_or(0);
    Staged::Sound(salt)
}

impl Local<'_> {
    /// Whether content can be had by this header alone.
    pub(crate) fn is_readable(&self) -> bool {
        self.flags & (FLAG_DESCRIPTOR | FLAG_ENCRYPTED) == 0
            && match self.content.method {
                STORED => self.content.packed == self.content.size,
                DEFLATED => true,
                _ => false,
            }
    }
}
